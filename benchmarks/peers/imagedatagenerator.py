"""The mission's own way: Keras's ImageDataGenerator and `fit`, in one process."""

from __future__ import annotations

from tensorflow.keras.preprocessing.image import ImageDataGenerator

from benchmarks.peers.keras_fit import prepare, run
from benchmarks.peers.protocol import BATCH, task
from job.limits import SIDE


def main() -> None:
    """Trains, exports, reports."""
    given = task()
    prepare(given)
    generator = ImageDataGenerator(rescale=1 / 255)

    def flow(part: str, *, shuffle: bool) -> object:
        return generator.flow_from_directory(
            str(given.images / part),
            target_size=(SIDE, SIDE),
            classes=["0", "1"],
            class_mode="binary",
            batch_size=BATCH,
            shuffle=shuffle,
            seed=given.seed,
        )

    train = flow("train", shuffle=True)
    ordered = {part: flow(part, shuffle=False) for part in ("val", "test")}
    scored = {part: (batches, lambda b=batches: b.classes) for part, batches in ordered.items()}
    run(given, train, ordered["val"], train.n, scored).say()


if __name__ == "__main__":
    main()
