"""What the tests of serving share: a small model, exports of it, and a server in a process of its own."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from job.storage import LocalStorage

NAME = "covid_ct"
LABELS = ("CT_NonCOVID", "CT_COVID")
ROOT = Path(__file__).resolve().parents[1]


def tiny_model(seed: int = 0, filters: int = 4) -> Any:
    """A Keras model of the shape that the job trains, only small; its probabilities depend on the seed."""
    import keras

    keras.utils.set_random_seed(seed)
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((224, 224, 3)),
            layers.Conv2D(filters, 2, activation="relu"),
            layers.MaxPool2D(3),
            layers.Conv2D(filters, 2, activation="relu"),
            layers.MaxPool2D(3),
            layers.Flatten(),
            layers.Dense(8, activation="relu"),
            layers.Dense(1, activation="sigmoid"),
        ]
    )


def export(root: Path, seed: int = 0, model: Any = None, name: str = NAME, threshold: float = 0.5) -> int:
    """Exports a tiny model as the next version; its number."""
    from serving.export import export_version

    return export_version(
        model or tiny_model(seed),
        root=str(root),
        name=name,
        labels=LABELS,
        threshold=threshold,
        evaluation={"split": "grouped", "n": 2, "threshold": threshold},
        model_card="# A tiny model\n",
        run={"name": f"seed-{seed}", "manifest_sha256": "0" * 64},
    )


class Server:
    """`python -m serving run` on free ports, from `with` to the end of the block, where it must stop cleanly."""

    def __init__(self, models: Path, *arguments: str) -> None:
        command = [sys.executable, "-m", "serving", "run", "--built-in", "--models", str(models)]
        command += ["--rest-port", "0", "--grpc-port", "0", "--poll-seconds", "0.1", *arguments]
        self._process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, env=environment())
        self.log: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        ready = re.compile(r"serving .* at (http://\S+) and grpc (\S+), process (\d+)")
        line = self.wait_for("^serving ", seconds=60)
        found = ready.fullmatch(line)
        assert found, line
        self.url, self.grpc, self.pid = found[1], found[2], int(found[3])

    def _read(self) -> None:
        assert self._process.stderr
        for line in self._process.stderr:
            self.log.append(line.rstrip("\n"))

    def wait_for(self, pattern: str, seconds: float = 20, after: int = 0) -> str:
        """The first line of the log, from line `after` on, in which the pattern is found."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for line in self.log[after:]:
                if re.search(pattern, line):
                    return line
            if self._process.poll() is not None:
                break
            time.sleep(0.02)
        self._process.kill()
        raise AssertionError(f"no {pattern!r} in the server's log:\n" + "\n".join(self.log))

    def terminate(self, number: int = signal.SIGTERM) -> None:
        """Tells it to stop."""
        self._process.send_signal(number)

    def wait(self, seconds: float = 40) -> int:
        """Its exit code."""
        code = self._process.wait(seconds)
        self._reader.join()
        return code

    def memory(self) -> int:
        """Resident bytes."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self.terminate()
        try:
            code = self.wait()
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise
        assert code == 0, "\n".join(self.log)


def run_serving(*arguments: str, path: str | None = None) -> subprocess.CompletedProcess[str]:
    """`python -m serving ...`, to its end."""
    command = [sys.executable, "-m", "serving", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, env=environment(path))


def environment(path: str | None = None) -> dict[str, str]:
    """This process's environment, with quiet TensorFlow and, if given, another PATH."""
    return {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"} | ({"PATH": path} if path else {})


def place(source: Path, root: Path, number: int, name: str = NAME) -> Path:
    """A copy of the version in `source` as version `number` of `root`, appearing whole."""
    target = root / name / str(number)
    temporary = target.with_name(f".incomplete-{number}")
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(source, temporary)
    temporary.rename(target)
    return target


def write_labels(root: Path, name: str = NAME, **labels: int) -> None:
    """What `promote` writes: which version each label names."""
    LocalStorage(root / name).write("labels.json", json.dumps(labels).encode())


def recorded(version: Path, scan: str) -> float:
    """The probability that the version's export recorded for one of the warm-up scans."""
    warmup = json.loads((version / "assets.extra/evaluation.json").read_text())["warmup"]
    return float(next(each["probability"][0] for each in warmup if each["scans"] == [scan]))
