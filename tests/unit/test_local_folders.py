"""What a folder as storage makes of odd folders, names, links and bundles."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from job.errors import UserError
from job.storage import DamagedBundle, LocalStorage


def test_names_as_long_as_the_file_system_allows(tmp_path: Path):
    storage = LocalStorage(tmp_path)
    storage.write("n" * 255, b"1")
    storage.write_bundle("b" * 255, {"f" * 255: b"2"})
    assert storage.read_bundle("b" * 255) == {"f" * 255: b"2"}
    storage.delete("b" * 255)
    assert [entry.path for entry in storage.entries()] == ["n" * 255]


def test_links_are_followed(tmp_path: Path):
    (tmp_path / "elsewhere" / "CT_COVID").mkdir(parents=True)
    (tmp_path / "elsewhere/CT_COVID/a.png").write_bytes(b"1")
    (tmp_path / "data").mkdir()
    (tmp_path / "data/CT_COVID").symlink_to(tmp_path / "elsewhere/CT_COVID")
    storage = LocalStorage(tmp_path / "data")
    assert [(entry.path, entry.size) for entry in storage.entries()] == [("CT_COVID/a.png", 1)]
    assert [entry.path for entry in storage.entries("CT_COVID")] == ["CT_COVID/a.png"]


def dangling(folder: Path) -> None:
    (folder / "x").symlink_to(folder / "nowhere")


def endless(folder: Path) -> None:
    (folder / "x").symlink_to(folder)


def pipe(folder: Path) -> None:
    os.mkfifo(folder / "x")


def undecodable(folder: Path) -> None:
    (folder / os.fsdecode(b"x\xff")).write_bytes(b"")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (dangling, "a link that leads nowhere"),
        (endless, "cannot be l"),  # listed or looked at: the system decides where it loses patience
        (pipe, "neither a file nor a folder"),
        (undecodable, "the name is not UTF-8"),
    ],
)
def test_what_cannot_be_read_is_named_not_dropped(tmp_path: Path, make: Callable[[Path], None], said: str):
    make(tmp_path)
    with pytest.raises(UserError, match=said) as caught:
        list(LocalStorage(tmp_path).entries())
    assert "x" in str(caught.value).removeprefix(str(tmp_path))


@pytest.mark.parametrize("make", [lambda _: None, lambda path: path.write_bytes(b"")])
def test_a_root_that_is_no_folder_is_said(tmp_path: Path, make: Callable[[Path], None]):
    make(tmp_path / "data")
    with pytest.raises(UserError, match=f"^{tmp_path / 'data'}: (no such folder|not a folder)$"):
        list(LocalStorage(tmp_path / "data").entries())


def test_a_folder_that_is_no_bundle_is_not_replaced_by_one(tmp_path: Path):
    storage = LocalStorage(tmp_path)
    storage.write("b/own", b"somebody's")
    storage.write("c", b"somebody's")
    assert not storage.write_bundle("b", {"f": b""})
    assert not storage.write_bundle("c", {"f": b""})
    assert storage.read("b/own") == storage.read("c") == b"somebody's"


def test_a_bundle_may_fill_an_empty_folder(tmp_path: Path):
    storage = LocalStorage(tmp_path)
    storage.write_bundle("b", {"f": b"1"})
    (tmp_path / "into").mkdir()
    storage.read_bundle("b", tmp_path / "into")
    assert (tmp_path / "into/f").read_bytes() == b"1"


def test_a_bundle_cannot_bring_its_own_manifest(tmp_path: Path):
    with pytest.raises(ValueError, match="written by the storage"):
        LocalStorage(tmp_path).write_bundle("b", {"MANIFEST.json": b"{}"})


def test_any_changed_byte_of_a_bundle_is_found(tmp_path: Path):
    storage = LocalStorage(tmp_path)
    storage.write_bundle("b", {"f": bytes(64), "g": b"1"})
    manifest = (tmp_path / "b/MANIFEST.json").read_bytes()
    for name in ("f", "MANIFEST.json"):
        content = (tmp_path / "b" / name).read_bytes()
        for at in range(0, len(content), 7):
            changed = bytearray(content)
            changed[at] ^= 0x10
            (tmp_path / "b" / name).write_bytes(changed)
            try:
                found = storage.read_bundle("b")
            except DamagedBundle:
                continue
            # A manifest may change in its white space only.
            assert name == "MANIFEST.json"
            assert found == {"f": bytes(64), "g": b"1"}
        (tmp_path / "b" / name).write_bytes(content)
    assert (tmp_path / "b/MANIFEST.json").read_bytes() == manifest
