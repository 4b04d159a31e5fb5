"""Ray Train's storage through Arrow, configured by nothing but boto3's settings."""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import pytest

from job.arrow import pyarrow_filesystem
from job.storage import open_storage
from tests.s3_server import SECRET, S3Server


def test_arrow_writes_where_the_storage_reads(s3_root: str):
    filesystem, path = pyarrow_filesystem(f"{s3_root}/runs")
    filesystem = pickle.loads(pickle.dumps(filesystem))  # as Ray sends it to its workers
    filesystem.create_dir(f"{path}/demo")
    with filesystem.open_output_stream(f"{path}/demo/state") as file:
        file.write(b"state")
    assert open_storage(s3_root).read("runs/demo/state") == b"state"


def test_the_environments_secret_does_not_travel(s3_root: str):
    filesystem, _ = pyarrow_filesystem(s3_root)
    assert SECRET.encode() not in pickle.dumps(filesystem)


def test_a_profile_of_another_name_works_too(
    s3: S3Server, s3_root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    given = s3.environment()
    (tmp_path / "credentials").write_text(
        f"[team]\naws_access_key_id={given['AWS_ACCESS_KEY_ID']}\naws_secret_access_key={SECRET}\n"
    )
    (tmp_path / "config").write_text(f"[profile team]\nregion=us-east-1\nendpoint_url={s3.endpoint}\n")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL", "AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_PROFILE", "team")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    filesystem, path = pyarrow_filesystem(s3_root)
    filesystem.create_dir(path)
    with filesystem.open_output_stream(f"{path}/f") as file:
        file.write(b"1")
    assert open_storage(s3_root).read("f") == b"1"


def test_a_folder_is_a_folder(tmp_path: Path):
    filesystem, path = pyarrow_filesystem(str(tmp_path / "runs"))
    filesystem.create_dir(path)
    assert (tmp_path / "runs").is_dir()
    assert re.search("Local", type(filesystem).__name__)
