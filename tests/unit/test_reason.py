"""The worker that is named when workers fail is the one the others waited for."""

import pytest
import tensorflow as tf

from job.reason import Place, is_echo, reason_of

PLACES = {rank: Place(rank, 100 + rank, f"10.0.0.{rank}") for rank in range(4)}
WAITED = "Collective ops is aborted by: collective has timed out"


@pytest.mark.parametrize("hung", range(4))
def test_a_worker_that_hangs_is_named_and_not_those_that_waited_for_it(hung):
    waited = {rank: WAITED for rank in PLACES if rank != hung}
    said = reason_of({}, waited, {hung: "silent"}, PLACES)
    assert said.startswith(f"worker {hung} (process 10{hung} on 10.0.0.{hung}) does not answer")
    assert said.count("worker ") == 1


def test_a_machine_that_takes_several_workers_with_it_has_them_all_named():
    said = reason_of({}, {0: WAITED, 2: WAITED}, {1: "lost", 3: "lost"}, PLACES)
    assert "worker 1 " in said
    assert "worker 3 " in said
    assert "worker 0 " not in said


def test_a_lost_worker_explains_one_that_stays_away():
    assert reason_of({}, {0: WAITED}, {1: "absent", 2: "lost"}, PLACES).startswith("worker 2 ")


def test_a_worker_that_failed_explains_those_that_still_wait_for_it():
    said = reason_of({1: "no memory"}, {}, {0: "absent", 2: "absent"}, PLACES)
    assert said == "worker 1 (process 101 on 10.0.0.1) failed: no memory"


def test_a_worker_that_answers_but_is_not_there_is_named():
    assert reason_of({}, {0: WAITED}, {1: "absent"}, PLACES).startswith("worker 1 ")


def test_where_all_only_waited_the_first_says_what_for():
    assert reason_of({}, {1: "x", 0: WAITED}, {}, PLACES) == f"worker 0 (process 100 on 10.0.0.0) failed: {WAITED}"


def test_an_error_of_a_collective_is_told_from_one_of_the_worker():
    assert is_echo(tf.errors.UnavailableError(None, None, "Socket closed"))
    assert is_echo(tf.errors.InternalError(None, None, WAITED))
    assert not is_echo(tf.errors.ResourceExhaustedError(None, None, "out of memory"))
    assert not is_echo(ValueError("Collective ops"))
