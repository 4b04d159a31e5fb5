"""Which worker is the reason that workers failed, in a line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Condition = Literal["lost", "silent", "absent"]
"""Of a worker that has not failed by itself: its process is gone, does not answer, or answers while the others wait."""

_WORDS: dict[Condition, str] = {
    "lost": "is gone: its process or machine was killed or lost",
    "silent": "does not answer: it hangs, or its machine cannot be reached",
    "absent": "did not come to the step in which the others waited for it",
}
"""In the order in which they explain the rest."""


@dataclass(frozen=True)
class Place:
    """Where a worker is."""

    rank: int
    pid: int
    host: str
    """Its address."""

    def __str__(self) -> str:
        return f"worker {self.rank} (process {self.pid} on {self.host})"


def reason_of(failed: Mapping[int, str], others: Mapping[int, Condition], places: Mapping[int, Place]) -> str:
    """Names the worker, by what is known of each rank: `failed` has what workers said last, `others` the rest.

    When a worker is lost, is silent or stays away, the failures of those that waited for it are only its echo.
    """
    for condition, words in _WORDS.items():
        ranks = sorted(rank for rank, its in others.items() if its == condition)
        if ranks:
            return "; ".join(f"{places[rank]} {words}" for rank in ranks)
    first = min(failed)
    return f"{places[first]} failed: {failed[first]}"
