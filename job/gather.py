"""What the workers found for their micro-batches, put together: the same on every worker, whatever their number."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf


def gather(parts: Sequence[Sequence[tf.Tensor]], micro_batches: tf.Tensor) -> list[tf.Tensor]:
    """The parts of all micro-batches of a step, in the order of `job.order`. Within `strategy.run`.

    Args:
        parts: of each of this worker's micro-batches the same number of tensors, float32 or int32, each of the same
            shape in every micro-batch.
        micro_batches: int32 [], how many the step has; what the workers have beyond them is padding.

    Returns:
        Each part of all micro-batches: its dtype, [micro_batches, its size].
    """
    kinds = [part.dtype for part in parts[0]]
    sizes = [part.shape.num_elements() for part in parts[0]]
    local = len(parts)
    flat = [tf.reshape(tf.bitcast(part, tf.float32), [-1]) for micro_batch in parts for part in micro_batch]
    rows = tf.reshape(tf.concat(flat, axis=0), [local, sum(sizes)])
    context = tf.distribute.get_replica_context()
    workers = context.num_replicas_in_sync
    if workers > 1:
        # By worker, and worker w of W has the micro-batches w, w + W, w + 2W, ...
        rows = tf.reshape(context.all_gather(rows, axis=0), [workers, local, sum(sizes)])
        rows = tf.reshape(tf.transpose(rows, [1, 0, 2]), [workers * local, sum(sizes)])
    columns = tf.split(rows[:micro_batches], sizes, axis=1)
    return [tf.bitcast(column, kind) for column, kind in zip(columns, kinds, strict=True)]
