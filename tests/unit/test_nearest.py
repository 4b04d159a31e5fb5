"""The search for candidates finds exactly what comparing all pairs finds."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from job.audit import nearest as module
from job.audit.duplicates import candidates, signatures
from job.audit.nearest import LENGTH, nearest

SIDE = 4


def pictures(seed: int, clusters: list[int], spread: float, repeated: int) -> np.ndarray:
    """Signatures [n, 16] in clusters, some of them mirrored, some repeated exactly, one without anything on it."""
    chance = np.random.default_rng(seed)
    found = [np.zeros((1, SIDE, SIDE))]
    for size in clusters:
        middle = chance.standard_normal((1, SIDE, SIDE))
        found.append(middle + spread * chance.standard_normal((size, SIDE, SIDE)))
    planes = np.concatenate(found)
    some = chance.random(len(planes)) < 0.3
    planes[some] = planes[some][:, :, ::-1]
    planes = np.concatenate([planes, planes[chance.integers(len(planes), size=repeated)]])
    rows = chance.permutation(planes).reshape(-1, SIDE * SIDE)
    sizes = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.round(np.divide(LENGTH * rows, sizes, out=np.zeros_like(rows), where=sizes > 0)).astype(np.float32)


def flipped(plain: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(plain.reshape(-1, SIDE, SIDE)[:, :, ::-1].reshape(plain.shape))


def all_pairs(plain: np.ndarray, most: int, least: float) -> set[tuple[int, int, int]]:
    """The definition, in whole numbers: each one's likest others, of equal ones those further back first."""
    rows = plain.astype(np.int64)
    products = [rows @ other.astype(np.int64).T for other in (plain, flipped(plain))]
    found = set()
    for one in range(len(rows)):
        held = sorted(
            ((int(products[m][one, other]), other, m) for m in (0, 1) for other in range(len(rows)) if other != one),
            reverse=True,
        )
        found |= {(min(one, o), max(one, o), m) for alike, o, m in held[:most] if alike > least * LENGTH**2}
    return found


@given(
    seed=st.integers(0, 10**6),
    clusters=st.lists(st.integers(1, 25), min_size=1, max_size=6),
    spread=st.sampled_from([0.01, 0.1, 0.3, 3.0]),
    repeated=st.integers(0, 8),
    most=st.integers(1, 6),
    least=st.sampled_from([0.3, 0.8, 0.93, 0.99]),
    block=st.sampled_from([1, 2, 7, 1000]),
)
def test_candidates_are_those_of_all_pairs(
    seed: int, clusters: list[int], spread: float, repeated: int, most: int, least: float, block: int
) -> None:
    plain = pictures(seed, clusters, spread, repeated)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_BLOCK", block)
        found = nearest(plain, flipped(plain), most, least)
    assert {tuple(map(int, row)) for row in found} == all_pairs(plain, most, least)
    assert len({tuple(row) for row in found.tolist()}) == len(found)


def test_blocks_that_lie_apart_are_never_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = pictures(0, [40] * 50, 0.02, 0)
    compared = []
    look = module._look
    monkeypatch.setattr(module, "_BLOCK", 50)
    monkeypatch.setattr(module, "_look", lambda *given: (compared.append(1), look(*given)))
    found = nearest(plain, flipped(plain), 5, 0.93)
    assert {tuple(map(int, row)) for row in found} == all_pairs(plain, 5, 0.93)
    assert len(compared) < 0.5 * 2 * (len(plain) / 50) ** 2


def test_none_and_one_have_no_candidates() -> None:
    for n in (0, 1):
        assert list(candidates(np.full((n, 64, 64), 7, np.uint8))) == []


def test_signatures_do_not_depend_on_brightness_and_are_zero_for_one_shade() -> None:
    picture = np.random.default_rng(0).integers(0, 100, (1, 64, 64), dtype=np.uint8)
    # 10,000 of them: more than are worked on at once.
    many = np.concatenate([picture, picture + 50, np.full_like(picture, 9), *([picture] * 5000)])
    found = signatures(many)
    assert np.abs(found[0] - found[1]).max() <= 1
    assert not found[2].any()
    assert (found[3:] == found[0]).all()
    assert np.linalg.norm(found[0]) == pytest.approx(LENGTH, rel=0.01)
