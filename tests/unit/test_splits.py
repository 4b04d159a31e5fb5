"""Groups and splits: no group on two sides, nothing lost, the same everywhere."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from job import groups, splits
from job.errors import UserError
from job.splits import Member
from job.storage import LocalStorage

FRACTIONS = (0.7, 0.15, 0.15)

sizes = st.lists(st.integers(1, 6), min_size=3, max_size=40)


def members(of_negative: list[int], of_positive: list[int]) -> list[Member]:
    return [
        Member(f"{label}/{group}/{i}", label, f"{label}/{group}")
        for label, counts in enumerate((of_negative, of_positive))
        for group, count in enumerate(counts)
        for i in range(count)
    ]


@given(sizes, sizes, st.integers(0, 1000))
def test_a_grouped_split_takes_every_scan_once_and_divides_no_group(negative, positive, seed):
    all_ = members(negative, positive)
    parts = splits.by_group(all_, FRACTIONS, seed)
    assert parts.keys() == {m.path for m in all_}
    for group in {m.group for m in all_}:
        assert len({parts[m.path] for m in all_ if m.group == group}) == 1
    for label in (0, 1):
        assert {parts[m.path] for m in all_ if m.label == label} == set(splits.PARTS)


@given(sizes, sizes, st.integers(0, 1000))
def test_each_class_is_within_a_group_of_the_wanted_fractions(negative, positive, seed):
    all_ = members(negative, positive)
    parts = splits.by_group(all_, FRACTIONS, seed)
    for label, counts in enumerate((negative, positive)):
        n, slack = sum(counts), 2 * max(counts)
        found = Counter(parts[m.path] for m in all_ if m.label == label)
        for part, fraction in zip(splits.PARTS, FRACTIONS, strict=True):
            assert abs(found[part] - fraction * n) <= slack


@given(sizes, st.integers(0, 1000), st.randoms())
def test_the_order_of_a_listing_does_not_matter(counts, seed, random):
    all_ = members(counts, counts)
    shuffled = random.sample(all_, len(all_))
    assert splits.by_group(all_, FRACTIONS, seed) == splits.by_group(shuffled, FRACTIONS, seed)


@given(sizes, st.integers(0, 1000))
def test_a_new_patient_moves_at_most_the_groups_beside_a_cut(counts, seed):
    ones = [1] * (len(counts) * 5)
    before = splits.by_group(members(ones, ones), FRACTIONS, seed)
    after = splits.by_group(members([*ones, 1], ones), FRACTIONS, seed)
    assert sum(before[path] != after[path] for path in before) <= 2


def test_the_scans_of_a_patient_in_both_classes_stay_together():
    all_ = [
        *members([1] * 9, [1] * 9),
        *(Member(f"x{p}-{label}", label, f"p{p}") for p in range(5) for label in (0, 1)),
    ]
    parts = splits.by_group(all_, FRACTIONS, 0)
    assert all(parts[f"x{p}-0"] == parts[f"x{p}-1"] for p in range(5))


def test_other_seeds_give_other_splits():
    all_ = members([1] * 50, [1] * 50)
    assert len({tuple(sorted(splits.by_group(all_, FRACTIONS, seed).items())) for seed in range(5)}) == 5


def test_a_split_by_image_may_divide_a_group():
    all_ = members([30], [30])
    parts = splits.by_image(all_, FRACTIONS, 0)
    assert Counter(parts[m.path] for m in all_ if m.label) == {"train": 21, "val": 4, "test": 5}


@pytest.fixture
def lists(tmp_path):
    for part, name in (("train", "a.png"), ("val", "b.png"), ("test", "c d%0.png")):
        (tmp_path / f"{part}X.txt").write_text(f"{name}\r\n")
    return tmp_path


KNOWN = {"X": ["X/a.png", "X/b.png", "X/c d%0.png"]}


def test_published_lists_give_the_parts(lists):
    parts = splits.published(LocalStorage(lists), ["X"], KNOWN)
    assert parts == {"X/a.png": "train", "X/b.png": "val", "X/c d%0.png": "test"}


def test_a_missing_list_is_named(lists):
    (lists / "valX.txt").unlink()
    with pytest.raises(UserError, match=r"valX\.txt: no such list"):
        splits.published(LocalStorage(lists), ["X"], KNOWN)


def test_a_listed_file_that_is_not_there_is_named(lists):
    (lists / "valX.txt").write_text("gone.png\n")
    with pytest.raises(UserError, match=r"valX\.txt: names gone\.png, which is not in X/"):
        splits.published(LocalStorage(lists), ["X"], KNOWN)


def test_a_file_in_two_lists_is_named(lists):
    (lists / "testX.txt").write_text("a.png\n")
    with pytest.raises(UserError, match=r"testX\.txt: names a\.png, which is in train already"):
        splits.published(LocalStorage(lists), ["X"], KNOWN)


@pytest.mark.parametrize(
    ("path", "group"),
    [
        ("CT_COVID/2020.02.10.20021584-p6-52%10.png", "CT_COVID/2020.02.10.20021584"),
        ("CT_COVID/kjr-21-e24-p5-29.png", "CT_COVID/kjr-21-e24"),
        ("CT_COVID/2020.02.26.20027938-p6-80_1%0.png", "CT_COVID/2020.02.26.20027938"),
        ("CT_COVID/PIIS0140673620301549_0%1.png", "CT_COVID/PIIS0140673620301549_0%"),
        ("CT_NonCOVID/71%0.jpg", "CT_NonCOVID/71%"),
        ("CT_NonCOVID/1216.png", "CT_NonCOVID/1216"),
        ("CT_NonCOVID/%5.jpg", "CT_NonCOVID/%5"),
        ("CT_NonCOVID/-p5.jpg", "CT_NonCOVID/-p5"),
    ],
)
def test_the_group_is_read_off_the_file_name(path, group):
    assert groups.from_name(path) == group


def test_patients_come_from_csv_files_as_the_data_set_ships_them(tmp_path):
    one, two = tmp_path / "one.csv", tmp_path / "two.csv"
    one.write_text('\ufeffFile name,Patient ID,Notes\na.png,Patient 1,"two\nlines"\nb.png,Patient 1,\n')
    two.write_text(",image name,patient id\n0,c.jpg,crawled_patient_0\n")
    patients = groups.from_files([str(one), str(two)])
    assert patients == {"a.png": "Patient 1", "b.png": "Patient 1", "c.jpg": "crawled_patient_0"}
    assert groups.group_of("CT_COVID/b.png", patients) == "Patient 1"
    with pytest.raises(UserError, match=r"no line for CT_COVID/z\.png"):
        groups.group_of("CT_COVID/z.png", patients)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x,y\n1,2\n", "needs a column with the image"),
        ("", "needs a column with the image"),
        ("image,patient\na.png,1\na.png,2\n", r"line 3 gives a\.png to 2, before to 1"),
    ],
)
def test_a_csv_that_cannot_be_used_is_said(tmp_path, text, said):
    file = tmp_path / "patients.csv"
    file.write_text(text)
    with pytest.raises(UserError, match=said):
        groups.from_files([str(file)])


def test_a_csv_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UserError, match=r"gone\.csv: no such file"):
        groups.from_files([str(tmp_path / "gone.csv")])
