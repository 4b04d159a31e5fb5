"""What all storages share: paths that stay below their root, and reading ahead."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from job.errors import UserError
from job.files import ahead, safe_path


def test_reading_ahead_is_bounded_ordered_and_stops():
    begun: list[int] = []

    def work(item: int) -> int:
        begun.append(item)
        return item * 2

    results = ahead(work, iter(range(10**9)), threads=3)
    assert [next(results) for _ in range(5)] == [(item, item * 2) for item in range(5)]
    time.sleep(0.05)
    assert len(begun) <= 5 + 2 * 3
    results.close()
    count = len(begun)
    time.sleep(0.05)
    assert len(begun) == count


def test_an_error_while_reading_ahead_comes_at_its_place():
    def work(item: int) -> int:
        if item == 3:
            raise UserError("item 3")
        return item

    results = ahead(work, range(10), threads=4)
    assert [next(results)[0] for _ in range(3)] == [0, 1, 2]
    with pytest.raises(UserError, match="item 3"):
        next(results)


@given(path=st.text(alphabet="ab./\\\0%", max_size=12))
def test_a_path_is_safe_only_if_it_names_one_file_below_the_root(path: str):
    try:
        safe_path(path)
    except UserError:
        return
    root = Path("/root/of/storage")
    assert os.path.normpath(root / path) == f"{root}/{path}"
    assert "\\" not in path
