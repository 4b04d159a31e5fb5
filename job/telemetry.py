"""TensorBoard files of a run, made anew from its metrics, so that a resumed run has each epoch once."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import tensorflow as tf

from job.storage import Storage

_TAGS = {
    "loss": "loss/train",
    "val_loss": "loss/validation",
    "accuracy": "accuracy/train",
    "val_accuracy": "accuracy/validation",
    "images_per_second": "speed/images_per_second",
    "data_wait_share": "speed/data_wait_share",
}


def write_tensorboard(run: Storage, history: Sequence[Mapping[str, float]], learning_rate: float) -> None:
    """Writes `tensorboard/events.out.tfevents.run` with one step per epoch."""
    with tempfile.TemporaryDirectory(prefix="covid-ct-") as folder:
        path = str(Path(folder) / "events")
        with tf.io.TFRecordWriter(path) as writer:
            first = tf.compat.v1.Event(wall_time=history[0]["time"] if history else 0.0, file_version="brain.Event:2")
            writer.write(first.SerializeToString())
            for line in history:
                values = {tag: line[key] for key, tag in _TAGS.items()} | {"learning_rate": learning_rate}
                summary = tf.compat.v1.Summary(
                    value=[tf.compat.v1.Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]
                )
                event = tf.compat.v1.Event(wall_time=line["time"], step=int(line["epoch"]), summary=summary)
                writer.write(event.SerializeToString())
        run.write("tensorboard/events.out.tfevents.run", Path(path).read_bytes())
