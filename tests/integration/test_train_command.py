"""`python -m job train`, for real: over two workers, what it says and leaves, refused, killed and started again."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from job import checkpoint
from job.storage import LocalStorage
from tests.training_support import EVERY_EPOCH, SMALL, configured, outcome, trained_in_a_process

pytestmark = pytest.mark.usefixtures("cache_folder")


def job(*arguments, **environment):
    command = [sys.executable, "-m", "job", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | environment)


def started_by_these_tests() -> set[int]:
    """Processes that were started with this module's cache, Ray's among them."""
    mark, found = os.fsencode(os.environ["COVID_CT_CACHE"]), set()
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if mark in (folder / "environ").read_bytes():
                found.add(int(folder.name))
    return found


@pytest.fixture(scope="module")
def two_workers(root, tmp_path_factory):
    """`python -m job train` over two workers on a local Ray; its folder, output and summary."""
    folder = tmp_path_factory.mktemp("two")
    overrides = [f"data.root={root}", *SMALL, f"runs={folder}/runs", f"export.root={folder}/models", *EVERY_EPOCH]
    sets = [word for o in [*overrides, "training.epochs=2", "cluster.workers=2"] for word in ("--set", o)]
    done = job("train", "--run", "two", *sets)
    assert done.returncode == 0, done.stderr
    deadline = time.monotonic() + 20
    while started_by_these_tests() and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not started_by_these_tests(), "the local Ray left processes behind"
    return folder, done, sets


def test_two_workers_are_one_worker_to_the_bit(root, run, two_workers):
    # That both hold the same weights is checked by the workers themselves, every epoch.
    two = LocalStorage(two_workers[0] / "runs" / "two")
    lines, _ = outcome(two)
    ours = trained_in_a_process(configured(root, "training.epochs=2", *EVERY_EPOCH), two, run).history
    figures = ("loss", "accuracy", "val_loss", "val_accuracy")
    assert [[line[f] for f in figures] for line in lines] == [[line[f] for f in figures] for line in ours]
    for name in ("step-00000003", "step-00000006"):
        of_two, of_one = (checkpoint.load(storage, name) for storage in (two, run))
        assert (of_two.epoch, of_two.step, of_two.totals) == (of_one.epoch, of_one.step, of_one.totals)
        arrays = zip([*of_two.weights, *of_two.optimizer], [*of_one.weights, *of_one.optimizer], strict=True)
        for mine, theirs in arrays:
            np.testing.assert_array_equal(mine, theirs)


def test_the_command_says_what_it_does_and_its_summary_is_json(two_workers):
    _, done, _ = two_workers
    lines = done.stderr.splitlines()
    assert sum(line.startswith("epoch ") for line in lines) == 2
    assert lines[-1].startswith("exported ")
    assert not any("Traceback" in line or "WARNING" in line for line in lines), done.stderr
    summary = json.loads(done.stdout)
    assert summary["exported"]["version"] == 1
    assert summary["figures"]["auc"]["low"] <= summary["figures"]["auc"]["value"] <= summary["figures"]["auc"]["high"]
    assert summary["versions"]["tensorflow"].startswith("2.20.")
    assert set(summary["seconds"]) == {"catalog", "training", "evaluation", "export", "report", "total"}
    assert all(10**8 < held < 10**10 for held in summary["peak_memory_bytes"].values())
    assert set(summary["peak_memory_bytes"]) == {"driver", "worker_0"}


def test_a_run_leaves_what_the_design_says(two_workers):
    folder, _, _ = two_workers
    run = folder / "runs" / "two"
    for name in ("config.yaml", "manifest.jsonl", "metrics.jsonl", "evaluation.json", "report.html", "summary.json"):
        assert (run / name).stat().st_size, name
    assert list((run / "tensorboard").glob("events.out.tfevents.*"))
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2]
    wanted = {
        "epoch",
        "loss",
        "accuracy",
        "val_loss",
        "val_accuracy",
        "images_per_second",
        "data_wait_share",
        "seconds",
    }
    assert all(wanted <= line.keys() for line in lines)
    manifest = [json.loads(line) for line in (run / "manifest.jsonl").read_text().splitlines()]
    keys = {"path", "sha256", "label", "group", "split", "width", "height", "mode", "format"}
    assert len(manifest) == 66
    assert all(keys <= line.keys() for line in manifest)


def test_tensorboard_reads_the_runs_events(two_workers):
    folder, _, _ = two_workers
    (file,) = (folder / "runs" / "two" / "tensorboard").iterdir()
    values = {}
    for event in tf.compat.v1.train.summary_iterator(str(file)):
        for value in event.summary.value:
            values.setdefault(value.tag, []).append((event.step, value.simple_value))
    lines = [json.loads(line) for line in (folder / "runs" / "two" / "metrics.jsonl").read_text().splitlines()]
    assert values["loss/train"] == [(line["epoch"], pytest.approx(line["loss"], abs=1e-6)) for line in lines]
    assert {"accuracy/validation", "learning_rate", "speed/images_per_second"} <= values.keys()


def test_the_exported_version_gives_the_probabilities_of_the_evaluation(root, two_workers):
    folder, _, _ = two_workers
    evaluation = json.loads((folder / "runs" / "two" / "evaluation.json").read_text())
    loaded = tf.saved_model.load(str(folder / "models" / "covid_ct" / "1"))
    for path, probability in evaluation["probabilities"].items():
        data = tf.constant([(root / path).read_bytes()])
        served = loaded.signatures["predict_bytes"](image_bytes=data)["probability"].numpy()
        assert served[0] == pytest.approx(probability, abs=1e-6)


def test_a_finished_run_is_left_as_it_is(two_workers):
    folder, done, sets = two_workers
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}
    again = job("train", "--run", "two", *sets)
    assert again.returncode == 0
    assert "finished already" in again.stderr
    assert json.loads(again.stdout) == json.loads(done.stdout)
    assert {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()} == before


def test_more_workers_than_cpus_is_said_at_once(root, tmp_path):
    cpus = os.cpu_count()
    sets = [f"data.root={root}", "data.per_class=null", f"runs={tmp_path}", f"cluster.workers={cpus + 1}"]
    done = job("train", *(word for o in [*sets, "training.batch_size=512"] for word in ("--set", o)))
    assert done.returncode == 1
    assert f"need {cpus + 1}, this machine has {cpus}: set cluster.workers={cpus}" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("epochs", "sign", "number", "word"),
    [
        (2, "manifest.jsonl", signal.SIGINT, "interrupted"),
        (300, "metrics.jsonl", signal.SIGINT, "interrupted"),
        (2, "exported.json", signal.SIGINT, "interrupted"),
        (300, "metrics.jsonl", signal.SIGTERM, "terminated"),
        (2, "exported.json", signal.SIGTERM, "terminated"),
    ],
    ids=["start-ctrl-c", "training-ctrl-c", "report-ctrl-c", "training-kill", "report-kill"],
)
def test_a_signal_ends_a_run_in_one_line_and_leaves_nothing_running(root, tmp_path, epochs, sign, number, word):
    overrides = [f"data.root={root}", *SMALL, f"runs={tmp_path}/runs", f"export.root={tmp_path}/models"]
    sets = [word for o in [*overrides, f"training.epochs={epochs}"] for word in ("--set", o)]
    command = [sys.executable, "-m", "job", "train", "--run", "left", *sets]
    folders = set(Path(tempfile.gettempdir()).glob("covid-ct-ray-*"))
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        # As in a terminal: what a script starts in the background, perhaps these tests, ignores it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as driver:
        deadline = time.monotonic() + 120
        while not (tmp_path / "runs" / "left" / sign).exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        # A terminal interrupts all processes of a command; `kill` and an orchestrator ask the first to end.
        os.killpg(driver.pid, number) if number == signal.SIGINT else driver.send_signal(number)
        out, said = (stream.decode() for stream in driver.communicate(timeout=60))
    assert (driver.returncode, out) == (128 + number, ""), said
    assert said.splitlines()[-1] == f"covid-ct train: {word}"
    assert not any(trace in said for trace in ("Traceback", "***")), said
    deadline = time.monotonic() + 20
    while started_by_these_tests() and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not started_by_these_tests()
    assert set(Path(tempfile.gettempdir()).glob("covid-ct-ray-*")) <= folders
    assert not (tmp_path / "runs" / "left" / "summary.json").exists()


def test_a_driver_killed_mid_run_goes_on_from_its_checkpoint(root, tmp_path):
    overrides = [f"data.root={root}", *SMALL, f"runs={tmp_path}/runs", f"export.root={tmp_path}/models"]
    overrides += ["training.epochs=30", "cluster.checkpoint_every_steps=3"]
    sets = [word for o in overrides for word in ("--set", o)]
    command = [sys.executable, "-m", "job", "train", "--run", "killed", *sets]
    folder = LocalStorage(tmp_path / "runs" / "killed")
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    ) as driver:
        deadline = time.monotonic() + 120
        while not folder.bundles("checkpoints") and time.monotonic() < deadline:
            time.sleep(0.05)
        os.killpg(driver.pid, signal.SIGKILL)
    reached = checkpoint.newest(folder, print)
    assert reached is not None
    assert not checkpoint.finished(folder, 30)
    done = job("train", "--run", "killed", *sets)
    assert done.returncode == 0, done.stderr
    lines, state = outcome(folder)
    assert [line["epoch"] for line in lines] == list(range(1, 31))
    undisturbed = trained_in_a_process(configured(root, "training.epochs=30"), folder, LocalStorage(tmp_path / "alone"))
    for first, second in zip(state.weights, undisturbed.weights, strict=True):
        np.testing.assert_array_equal(first, second)
