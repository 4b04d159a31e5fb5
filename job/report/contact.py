"""A contact sheet of augmentation: some training scans, and what training made of each in several epochs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from job import augment
from job.cache import Cache
from job.generator import Batches
from job.order import PADDING, Order
from job.report import html
from job.report.pictures import encode
from job.scan import Scan
from job.settings import Settings

SCANS_PER_CLASS = 2
EPOCHS_SHOWN = 5


class Augmented(NamedTuple):
    """One scan, encoded: as it is, and as each of some epochs (counted from 1) showed it."""

    path: str
    before: bytes
    after: Mapping[int, bytes]


def contact_sheet(settings: Settings, scans: Sequence[Scan], cache: Cache) -> list[Augmented]:
    """The sheet of a run on the catalog's `scans`, drawn by the batches that trained it; empty where nothing was
    augmented. The scans are those of each class that the first batches hold first."""
    ranges = augment.parse(settings.data.augment)
    if ranges is None:
        return []
    training = settings.training
    train = [scan for scan in scans if scan.split == "train"]
    order = Order(len(train), training.batch_size, training.seed)
    plain, augmented = (Batches(train, cache, order, augmentation=one) for one in (None, ranges))
    first = [index for batch in order.share(0, 0, 1) for index in batch if index != PADDING]
    per_class = [[index for index in first if train[index].label == label] for label in (1, 0)]
    chosen = np.array([index for held in per_class for index in held[:SCANS_PER_CLASS]])
    cache.fill([train[index] for index in chosen], settings.cluster.cpus_per_worker)
    before = plain.at(0, chosen).images
    after = {epoch + 1: augmented.at(epoch, chosen).images for epoch in _epochs(training.epochs)}
    return [
        Augmented(train[index].path, _encoded(before[row]), {e: _encoded(images[row]) for e, images in after.items()})
        for row, index in enumerate(chosen)
    ]


def contact_section(sheet: Sequence[Augmented], augment: Mapping[str, Any]) -> str:
    """The section's HTML. `augment` is the setting `data.augment`."""
    ranges = ", ".join(
        f"{name} {' to '.join(map(str, value)) if isinstance(value, list | tuple) else html.plain(value)}"
        for name, value in augment.items()
    )
    text = html.paragraph(
        f"Training saw every scan anew in every epoch, with {ranges or 'no range'}. Here are some of its scans as they "
        "are, and as some epochs showed them. What no scanner gives, or what hides the finding, teaches what is wrong."
    )
    return text + html.grid([_row(one) for one in sheet], "sheets")


def _row(one: Augmented) -> str:
    tiles = [html.figure(html.picture(one.before, f"The scan {one.path} before augmentation"), "before")]
    tiles += [
        html.figure(html.picture(data, f"The scan {one.path} as epoch {epoch} showed it"), f"epoch {epoch}")
        for epoch, data in one.after.items()
    ]
    return html.figure(html.grid(tiles, "sheet"), one.path, first=True)


def _epochs(count: int) -> list[int]:
    """The first epochs and the last one, counted from 0."""
    return sorted({*range(min(count, EPOCHS_SHOWN - 1)), count - 1})


def _encoded(image: tf.Tensor) -> bytes:
    pixels: np.ndarray[Any, np.dtype[np.uint8]] = np.round(image.numpy() * 255).astype(np.uint8)
    return encode(pixels)
