"""The folds that recipes are compared on."""

from dataclasses import replace

from benchmarks.cross_validate import deal
from tests.unit.scans import population


def test_every_scan_but_those_of_test_is_left_out_once_and_no_group_is_divided():
    scans = [
        replace(scan, split=("train", "val", "test")[i // 2 % 3]) for i, scan in enumerate(population(120, leak=False))
    ]
    known = {scan.path for scan in scans if scan.split != "test"}
    dealt = [deal(scans, 4, fold) for fold in range(4)]
    left_out = []
    for fold in dealt:
        assert {scan.path for scan in fold} == known
        groups = [{scan.group for scan in fold if scan.split == part} for part in ("train", "val")]
        assert not groups[0] & groups[1]
        assert {scan.label for scan in fold if scan.split == "val"} == {0, 1}
        left_out += [scan.path for scan in fold if scan.split == "val"]
    assert sorted(left_out) == sorted(known)
    assert deal(scans, 4, 2) == dealt[2]
