"""`docs/storage.md`: its commands are ones that the programs take, and its policies are ones that S3 takes."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from types import ModuleType

import pytest

import job.cli
import serving.cli
from job.console import Command

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "storage.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """The code blocks of a language."""
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)


def commands() -> list[str]:
    """Each command of ours, on one line."""
    lines = "".join(blocks("sh")).replace("\\\n", " ").splitlines()
    return [line for line in lines if line.startswith("python -m ")]


@pytest.mark.parametrize("line", commands())
def test_every_command_is_one_that_the_program_takes(line: str, monkeypatch: pytest.MonkeyPatch):
    import importlib

    program, *words = shlex.split(line, comments=True)[2:]
    cli: ModuleType = {"job": job.cli, "serving": serving.cli}[program]
    module: Command = importlib.import_module(cli.COMMANDS[words[0]])  # type: ignore[assignment]
    monkeypatch.setattr(module, "run", lambda _: 0)
    assert cli.main(words) == 0


def test_the_policies_grant_what_the_storage_asks_for_and_nothing_on_the_data():
    training, servers = map(json.loads, blocks("json"))
    granted = {
        name: {
            action
            for each in policy["Statement"]
            for action in ([each["Action"]] if isinstance(each["Action"], str) else each["Action"])
            if "our-training" in str(each["Resource"])
        }
        for name, policy in {"training": training, "servers": servers}.items()
    }
    assert granted["training"] >= {"s3:ListBucket", "s3:GetObject", "s3:PutObject", "s3:DeleteObject"}
    assert granted["servers"] == {"s3:ListBucket", "s3:GetObject"}
    for each in training["Statement"]:
        if "hospital-scans" in str(each["Resource"]):
            assert each["Action"] in ("s3:ListBucket", "s3:GetObject")
