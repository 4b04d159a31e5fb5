"""The contact sheet of augmentation shows what training saw, and only where something was augmented."""

from pathlib import Path

import numpy as np
import pytest

from job import augment, catalog, settings
from job.cache import Cache
from job.generator import Batches
from job.order import PADDING, Order
from job.report.contact import contact_section, contact_sheet
from job.report.pictures import encode
from job.settings import Settings
from job.storage import LocalStorage
from tests.pictures import drawn_scans

AUGMENT = "data.augment={rotation_range: 20, horizontal_flip: true, brightness_range: [0.7, 1.3]}"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return drawn_scans(tmp_path_factory.mktemp("scans"), 24, 2)


def configured(root: Path, *overrides: str) -> Settings:
    own = [f"data.root={root}", "data.per_class=null", "training.batch_size=8", "training.seed=5", "training.epochs=7"]
    return settings.load(None, [*own, *overrides])


def test_every_picture_is_what_some_worker_s_batches_hold_in_that_epoch(root: Path, tmp_path: Path) -> None:
    config = configured(root, AUGMENT)
    scans = catalog.build(config.data, 5).scans
    cache = Cache(LocalStorage(root), tmp_path)
    sheet = contact_sheet(config, scans, cache)
    assert [one.path.split("/")[0] for one in sheet] == ["CT_COVID"] * 2 + ["CT_NonCOVID"] * 2
    train = [scan for scan in scans if scan.split == "train"]
    cache.fill(train, 2)
    order = Order(len(train), 8, 5)
    by_path = {one.path: one for one in sheet}
    for epoch in (1, 2, 3, 4, 7):
        seen = set()
        for worker in range(2):
            batches = Batches(train, cache, order, worker, 2, augment.parse(config.data.augment))
            places = zip(order.share(epoch - 1, worker, 2), batches.epochs(epoch - 1, epoch), strict=True)
            for indices, batch in places:
                for index, image in zip(indices, batch.images.numpy(), strict=True):
                    if index != PADDING and train[index].path in by_path:
                        path = train[index].path
                        seen.add(path)
                        assert by_path[path].after[epoch] == encode(np.round(image * 255).astype(np.uint8))
        assert seen == set(by_path)
    for one in sheet:
        assert list(one.after) == [1, 2, 3, 4, 7]
        (scan,) = (scan for scan in train if scan.path == one.path)
        assert one.before == encode(cache.read([scan])[0])
        assert len({one.before, *one.after.values()}) == 6


def test_without_augmentation_there_is_no_sheet(root: Path, tmp_path: Path) -> None:
    config = configured(root)
    assert contact_sheet(config, catalog.build(config.data, 5).scans, Cache(LocalStorage(root), tmp_path)) == []


def test_the_section_says_the_ranges_and_describes_every_picture(root: Path, tmp_path: Path) -> None:
    config = configured(root, AUGMENT, "training.epochs=2")
    sheet = contact_sheet(config, catalog.build(config.data, 5).scans, Cache(LocalStorage(root), tmp_path))
    section = contact_section(sheet, config.data.augment or {})
    assert "rotation_range 20, horizontal_flip true, brightness_range 0.7 to 1.3." in section
    assert section.count("<img ") == section.count(" alt=") == 4 * (1 + 2)
    assert f'alt="The scan {sheet[0].path} as epoch 2 showed it"' in section
