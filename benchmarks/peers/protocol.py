"""What every peer is told and what it says: arguments in, one JSON object on the last line of standard output.

A peer is a program of its own: `python -m benchmarks.peers.NAME --images DIR --weights FILE --export DIR ...`. Below
`--images` stand `{train,val,test}/{0,1}/`, the same files for every peer, 1 for the positive class.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

BATCH = 32
LEARNING_RATE = 0.001
RHO = 0.9
EPSILON = 1e-7
"""Of RMSprop, as Keras has them by default."""


@dataclass(frozen=True)
class Task:
    """What a peer is asked to do."""

    images: Path
    """Holds {train,val,test}/{0,1}/ with links to the scans."""
    weights: Path
    """An npz with the initial weights "0", "1", ...: kernel and bias of each layer in order, in Keras's layouts."""
    export: Path
    """The folder to leave the trained model in; it does not exist yet."""
    epochs: int
    threads: int
    precision: str
    """float32 or mixed_bfloat16."""
    option: str
    """What only this peer knows, e.g. compiled."""
    seed: int

    def files(self, part: str) -> tuple[list[Path], npt.NDArray[np.float32]]:
        """The files of train, val or test, sorted, and their labels float32 [n]."""
        found = [
            (path, float(label)) for label in (0, 1) for path in sorted((self.images / part / str(label)).iterdir())
        ]
        return [path for path, _ in found], np.array([label for _, label in found], np.float32)

    def initial_weights(self) -> list[npt.NDArray[np.float32]]:
        """Kernel and bias of each layer in order; convolutions [h, w, in, out], dense layers [in, out]."""
        with np.load(self.weights) as held:
            return [held[str(index)] for index in range(len(held.files))]


@dataclass
class Outcome:
    """What a peer reports. Times are Unix times, so that the harness can relate them to when it gave the command."""

    first_step: float | None = None
    """When the first update was done."""
    exported: float | None = None
    """When the trained model was on disk."""
    train_seconds: list[float] = field(default_factory=list)
    """Of each epoch, without validation."""
    epoch_seconds: list[float] = field(default_factory=list)
    """Of each epoch, with validation."""
    images: int = 0
    """In an epoch."""
    loss: list[float] = field(default_factory=list)
    """Mean training loss of each epoch."""
    val_loss: list[float] = field(default_factory=list)
    val_auc: float | None = None
    test_auc: float | None = None
    data_wait_share: float | None = None
    """Of training time from the second epoch on."""

    def step_done(self) -> None:
        """Notes the time of the first call."""
        if self.first_step is None:
            self.first_step = time.time()

    def say(self) -> None:
        """The last line of the peer's standard output."""
        sys.stdout.flush()
        print(json.dumps(asdict(self)), flush=True)


def task() -> Task:
    """From the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--export", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--precision", choices=("float32", "mixed_bfloat16"), default="float32")
    parser.add_argument("--option", default="")
    parser.add_argument("--seed", type=int, default=0)
    return Task(**vars(parser.parse_args()))


def auc(labels: npt.NDArray[np.float32], probabilities: npt.NDArray[np.float32]) -> float:
    """The area under the ROC curve; sklearn's, imported when it is needed, after the times are taken."""
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(labels, probabilities))
