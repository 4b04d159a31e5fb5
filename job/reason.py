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


@dataclass(frozen=True)
class Place:
    """Where a worker is."""

    rank: int
    pid: int
    host: str
    """Its address."""

    def __str__(self) -> str:
        return f"worker {self.rank} (process {self.pid} on {self.host})"


def reason_of(
    failed: Mapping[int, str], waited: Mapping[int, str], others: Mapping[int, Condition], places: Mapping[int, Place]
) -> str:
    """Names the worker, by what is known of each rank.

    Args:
        failed: what workers said that failed by themselves.
        waited: what those said whose wait for the others came to nothing; only an echo, unless there is nothing else.
        others: the workers that said nothing.
        places: of all of them.
    """

    def those(condition: Condition) -> str:
        ranks = sorted(rank for rank, its in others.items() if its == condition)
        return "; ".join(f"{places[rank]} {_WORDS[condition]}" for rank in ranks)

    def first(said: Mapping[int, str]) -> str:
        return f"{places[min(said)]} failed: {said[min(said)]}" if said else ""

    # One that has failed has not come either to where the others wait: that is no reason of theirs.
    return those("lost") or those("silent") or first(failed) or those("absent") or first(waited)


def is_echo(error: BaseException) -> bool:
    """Whether an error tells of a collective that did not come about, rather than of this worker."""
    kinds = ("DeadlineExceededError", "UnavailableError", "AbortedError", "CancelledError")
    of_tensorflow = type(error).__module__.startswith("tensorflow")
    return of_tensorflow and (type(error).__name__ in kinds or "ollective op" in str(error))
