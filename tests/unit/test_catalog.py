"""The catalog: what a data set holds, and what is said of a data set that cannot be used."""

import hashlib
from collections import Counter
from dataclasses import replace

import pytest
from PIL import Image

from job import catalog
from job.errors import UserError
from job.sample import draw
from job.scan import from_lines, to_lines
from job.settings import Data
from job.storage import LocalStorage
from tests.pictures import bad_images, encode, good_images, noise


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("COVID_CT_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def root(tmp_path):
    for name, seed in (("CT_COVID", 1), ("CT_NonCOVID", 2)):
        (tmp_path / name).mkdir()
        for i in range(10):
            (tmp_path / name / f"case {i}[é]+%0.png").write_bytes(encode(noise(40, 50, seed * 100 + i), "PNG"))
    return tmp_path


@pytest.fixture
def data(root):
    return Data(root=str(root), per_class=None)


def test_every_image_is_there_once_with_what_its_bytes_say(root, data):
    scans = catalog.build(data, 0).scans
    assert [s.path for s in scans] == sorted(p.relative_to(root).as_posix() for p in root.rglob("*.png"))
    for scan in scans:
        content = (root / scan.path).read_bytes()
        assert (scan.size, scan.sha256) == (len(content), hashlib.sha256(content).hexdigest())
        assert (scan.width, scan.height, scan.mode, scan.format) == (50, 40, "RGB", "PNG")
        assert scan.label == scan.path.startswith("CT_COVID/")


def test_the_positive_class_is_named_and_not_alphabetical(root, data):
    swapped = replace(data, positive="CT_NonCOVID", negative="CT_COVID")
    assert all(s.label == s.path.startswith("CT_NonCOVID/") for s in catalog.build(swapped, 0).scans)


def test_the_manifest_reads_back(data):
    scans = list(catalog.build(data, 0).scans)
    assert list(from_lines(to_lines(scans))) == scans


def test_the_choice_per_class_is_seeded_and_grows(data):
    few = {s.path for s in catalog.build(replace(data, per_class=5), 1).scans}
    more = {s.path for s in catalog.build(replace(data, per_class=8), 1).scans}
    other = {s.path for s in catalog.build(replace(data, per_class=5), 2).scans}
    assert Counter(path.partition("/")[0] for path in few) == {"CT_COVID": 5, "CT_NonCOVID": 5}
    assert few < more
    assert few != other


def test_fewer_images_than_asked_for_are_all_taken_and_it_is_said(data):
    found = catalog.build(replace(data, per_class=300), 0)
    assert len(found.scans) == 20
    assert "CT_COVID has 10 scans, fewer than data.per_class 300: all are taken" in found.notices


@pytest.mark.parametrize(("name", "bad"), bad_images().items())
def test_a_bad_image_fails_with_its_path_unless_it_is_skipped_with_a_notice(root, data, name, bad):
    content, said = bad
    (root / "CT_COVID" / name).write_bytes(content)
    with pytest.raises(UserError) as caught:
        catalog.build(data, 0)
    assert f"CT_COVID/{name}: " in str(caught.value)
    assert said in str(caught.value)
    assert "data.on_bad_image=skip" in str(caught.value)
    found = catalog.build(replace(data, on_bad_image="skip"), 0)
    assert len(found.scans) == 20
    assert any(name in notice and said in notice for notice in found.notices)


def test_a_skipped_image_is_replaced_when_a_number_was_asked_for(root, data):
    chosen = catalog.build(replace(data, per_class=5), 0).scans[0]
    (root / chosen.path).write_bytes(b"")
    again = catalog.build(replace(data, per_class=5, on_bad_image="skip"), 0)
    assert len(again.scans) == 10
    assert chosen.path not in {s.path for s in again.scans}


def test_every_good_mode_is_catalogued(root, data):
    for name, content in good_images().items():
        (root / "CT_COVID" / name).write_bytes(content)
    assert len(catalog.build(data, 0).scans) == 20 + len(good_images())


def test_a_missing_class_folder_names_the_folders_there_are(root, data):
    with pytest.raises(UserError, match=r"CT_Covid: no images; .* the folders there are CT_COVID, CT_NonCOVID"):
        catalog.build(replace(data, positive="CT_Covid"), 0)


def test_an_empty_class_folder_is_said(root, data):
    for file in (root / "CT_COVID").iterdir():
        file.unlink()
    with pytest.raises(UserError, match="CT_COVID: no images"):
        catalog.build(data, 0)


def test_a_root_that_is_no_folder_is_said(tmp_path):
    with pytest.raises(UserError, match=r"nowhere: no such folder"):
        catalog.build(Data(root=str(tmp_path / "nowhere")), 0)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file: not a folder"):
        catalog.build(Data(root=str(tmp_path / "file")), 0)


def test_too_few_groups_are_said_with_what_to_do(root, data):
    for file in (root / "CT_COVID").iterdir():
        file.rename(file.with_name(f"one-p1-{file.name}"))
    with pytest.raises(UserError, match=r"CT_COVID has 1 groups .* use data.split=images"):
        catalog.build(data, 0)
    assert len(catalog.build(replace(data, split="images"), 0).scans) == 20


def test_hidden_files_are_left_out_and_it_is_said(root, data):
    (root / "CT_COVID" / ".DS_Store").write_bytes(b"\0")
    found = catalog.build(data, 0)
    assert len(found.scans) == 20
    assert found.notices == ("CT_COVID: 1 hidden files are left out",)


def test_scans_in_no_published_list_are_left_out_and_it_is_said(root, data):
    (root / "split").mkdir()
    for name in ("CT_COVID", "CT_NonCOVID"):
        files = sorted(p.name for p in (root / name).iterdir())
        for part, chosen in (("train", files[:6]), ("val", files[6:7]), ("test", files[7:9])):
            (root / "split" / f"{part}{name}.txt").write_text("\n".join(chosen))
    found = catalog.build(replace(data, split="published"), 0)
    assert Counter(s.split for s in found.scans) == {"train": 12, "val": 2, "test": 4}
    assert "CT_COVID: 1 scans are in no split list and are left out" in found.notices


def test_the_same_picture_in_both_classes_is_left_out_by_setting_and_it_is_said(tmp_path):
    drawings = {drawing.path: drawing.data for drawing in draw(9, 0)}
    for path, content in drawings.items():
        file = tmp_path / path
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(content)
    covid = next(path for path in drawings if path.startswith("CT_COVID/"))
    copy = Image.open(tmp_path / covid).convert("RGB").resize((180, 150))
    (tmp_path / "CT_NonCOVID" / "copy%0.png").write_bytes(encode(copy, "JPEG", quality=60))
    (tmp_path / "CT_COVID" / "again%0.png").write_bytes(drawings[covid])
    data = Data(root=str(tmp_path), per_class=None, split="images")
    kept = catalog.build(data, 0)
    assert len(kept.scans) == 20
    assert not any("both classes" in notice for notice in kept.notices)
    skipped = catalog.build(replace(data, on_contradiction="skip"), 0)
    out = sorted([covid, "CT_COVID/again%0.png", "CT_NonCOVID/copy%0.png"])
    assert sorted({s.path for s in kept.scans} - {s.path for s in skipped.scans}) == out
    assert f"left out, the same picture in both classes: {' = '.join(out)}" in skipped.notices


def test_the_contradicting_scans_of_the_real_data_set_are_left_out(covid_ct):
    data = Data(root=str(covid_ct), per_class=None, split="published", on_contradiction="skip")
    found = catalog.build(data, 0)
    assert len(found.scans) == 742
    assert "left out, the same picture in both classes: CT_COVID/kjr-21-e24-p5-29.png = CT_NonCOVID/71%0.jpg" in (
        found.notices
    )


def test_the_real_data_set_is_catalogued_whole(covid_ct):
    found = catalog.build(Data(root=str(covid_ct), per_class=None, split="published"), 0)
    counts = Counter((s.split, s.label) for s in found.scans)
    assert counts == {
        ("train", 1): 191, ("train", 0): 234, ("val", 1): 60, ("val", 0): 58, ("test", 1): 98, ("test", 0): 105,
    }  # fmt: skip
    assert sum(s.path.endswith(".png") and s.format == "JPEG" for s in found.scans) == 34
    assert {s.mode for s in found.scans if s.label == 0} == {"RGB", "L"}


def test_a_second_catalog_reads_only_what_has_changed(root, data, monkeypatch):
    first = catalog.build(data, 0)
    changed = root / first.scans[3].path
    changed.write_bytes(encode(noise(60, 70, 999), "PNG"))
    read = []
    whole = LocalStorage.read
    monkeypatch.setattr(LocalStorage, "read", lambda self, path, *rest: read.append(path) or whole(self, path, *rest))
    second = catalog.build(data, 0)
    assert [path for path in read if path.endswith(".png")] == [first.scans[3].path]
    assert second.scans[3].sha256 != first.scans[3].sha256
    assert second.scans[:3] + second.scans[4:] == first.scans[:3] + first.scans[4:]


def test_a_file_too_large_to_be_a_scan_is_refused_without_reading_it(root, data):
    with (root / "CT_COVID" / "volume.png").open("wb") as file:
        file.truncate(200 * 1024 * 1024)  # a hole: it takes no room
    with pytest.raises(UserError, match=r"volume\.png: 209,715,200 bytes, more than"):
        catalog.build(data, 0)
