"""What an exported version says of itself; readable without TensorFlow.

A version is the bundle `<name>/<N>` (see `job.storage`): a SavedModel, and beside it, in `assets.extra/`, what a
server, a page or an evaluation needs to know about it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from job.errors import UserError

ASSETS = "assets.extra"
"""The folder of a SavedModel that TensorFlow leaves to its owner, and where TF Serving looks for warm-up requests."""

VERSION_FILE = f"{ASSETS}/version.json"
EVALUATION_FILE = f"{ASSETS}/evaluation.json"
MODEL_CARD_FILE = f"{ASSETS}/model_card.md"
WARMUP_FILE = f"{ASSETS}/tf_serving_warmup_requests"

PIXELS_SIGNATURE = "serving_default"
"""Takes `images` float32 [n, 224, 224, 3] in [0, 1]."""
BYTES_SIGNATURE = "predict_bytes"
"""Takes `image_bytes` string [n]: encoded PNG or JPEG."""
PIXELS_INPUT = "images"
BYTES_INPUT = "image_bytes"
OUTPUT = "probability"
"""The output of both signatures: float32 [n], the probability of the positive class."""


@dataclass(frozen=True, slots=True)
class VersionInfo:
    """`assets.extra/version.json`."""

    name: str
    """The model's name, as servers know it."""
    negative: str
    """The class that a probability near 0 speaks for."""
    positive: str
    """The class whose probability the model gives."""
    threshold: float
    """From this probability on, a scan is called positive."""
    preprocessing: str
    """Names the function from encoded bytes to pixels: `job.limits.PREPROCESSING` at the time of export."""
    run: Mapping[str, str]
    """Where the version comes from: the run's name, its manifest's hash, and what else the exporter knew."""
    tensorflow: str
    """The TensorFlow version that wrote it."""

    def label(self, probability: float) -> str:
        """The class that this probability is read as."""
        return self.positive if probability >= self.threshold else self.negative

    def to_json(self) -> bytes:
        """The file's content."""
        content = {
            "name": self.name,
            "labels": {"negative": self.negative, "positive": self.positive},
            "threshold": self.threshold,
            "preprocessing": self.preprocessing,
            "run": dict(self.run),
            "tensorflow": self.tensorflow,
        }
        return json.dumps(content, indent=1, ensure_ascii=False).encode()


def read_version_info(folder: Path) -> VersionInfo:
    """What the version in `folder` says of itself. Raises `UserError` if it is no exported version."""
    content = _read_json(folder, VERSION_FILE)
    try:
        return VersionInfo(
            name=str(content["name"]),
            negative=str(content["labels"]["negative"]),
            positive=str(content["labels"]["positive"]),
            threshold=float(content["threshold"]),
            preprocessing=str(content["preprocessing"]),
            run={str(key): str(value) for key, value in content["run"].items()},
            tensorflow=str(content["tensorflow"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{folder / VERSION_FILE}: not what an export writes ({error!r})") from error


def read_evaluation(folder: Path) -> dict[str, Any]:
    """The version's `evaluation.json`. Raises `UserError` if there is none."""
    return _read_json(folder, EVALUATION_FILE)


def version_number(name: str) -> int | None:
    """The version that a folder of this name holds; None if it is no version's name."""
    return int(name) if name.isascii() and name.isdigit() and not name.startswith("0") else None


def _read_json(folder: Path, path: str) -> dict[str, Any]:
    try:
        content = json.loads((folder / path).read_bytes())
    except OSError as error:
        raise UserError(f"{folder}: no exported version, {path} cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise UserError(f"{folder / path}: not JSON ({error})") from error
    if not isinstance(content, dict):
        raise UserError(f"{folder / path}: not a JSON object")
    return content
