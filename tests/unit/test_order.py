"""The order of training: a pure function of seed, epoch and step, whatever the number of workers."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from job.order import PADDING, Order

orders = st.builds(
    Order,
    n=st.integers(1, 200),
    batch_size=st.integers(1, 40),
    seed=st.integers(0, 2**32 - 1),
    micro_batch=st.integers(1, 5),
)
epochs = st.integers(0, 5)


def global_batches(order: Order, epoch: int, workers: int) -> list[set[int]]:
    shares = [list(order.share(epoch, worker, workers)) for worker in range(workers)]
    return [{int(i) for share in shares for i in share[step] if i != PADDING} for step in range(order.steps)]


@given(orders, epochs, st.data())
def test_the_batch_of_a_step_does_not_depend_on_the_number_of_workers(order, epoch, data):
    workers = data.draw(st.integers(1, order.batch_size))
    assert global_batches(order, epoch, workers) == global_batches(order, epoch, 1)
    for step, batch in enumerate(global_batches(order, epoch, 1)):
        assert batch == set(order.batch(epoch, step).tolist()) - {PADDING}


@given(orders, epochs, st.data())
def test_the_same_scans_are_computed_together_whatever_the_number_of_workers(order, epoch, data):
    workers = data.draw(st.integers(1, order.batch_size))

    def micro_batches(workers):
        """Of every step, in the order in which the workers' parts are put together."""
        shares = [
            np.stack(share) for share in zip(*(order.share(epoch, w, workers) for w in range(workers)), strict=True)
        ]
        rows = [share.reshape(workers, -1, order.micro_batch).swapaxes(0, 1) for share in shares]
        return [
            row.reshape(-1, order.micro_batch)[: -(-order.count(s) // order.micro_batch)] for s, row in enumerate(rows)
        ]

    for mine, alone in zip(micro_batches(workers), micro_batches(1), strict=True):
        np.testing.assert_array_equal(mine, alone)


@given(orders, epochs, st.data())
def test_an_epoch_has_every_scan_exactly_once(order, epoch, data):
    workers = data.draw(st.integers(1, order.batch_size))
    seen = [i for worker in range(workers) for local in order.share(epoch, worker, workers) for i in local.tolist()]
    assert sorted(i for i in seen if i != PADDING) == list(range(order.n))


@given(orders, epochs, st.data())
def test_all_workers_take_the_same_number_of_steps_of_the_same_size(order, epoch, data):
    workers = data.draw(st.integers(1, order.batch_size))
    shapes = {tuple(len(local) for local in order.share(epoch, worker, workers)) for worker in range(workers)}
    assert len(shapes) == 1
    assert len(next(iter(shapes))) == order.steps


@given(orders, epochs, st.data())
def test_all_batches_but_the_last_are_full_and_the_work_is_even(order, epoch, data):
    workers = data.draw(st.integers(1, order.batch_size))
    for step, batch in enumerate(global_batches(order, epoch, workers)):
        assert len(batch) == min(order.batch_size, order.n - step * order.batch_size)
    real = [[int((local != PADDING).sum()) for local in order.share(epoch, w, workers)] for w in range(workers)]
    assert all(max(step) - min(step) <= order.micro_batch for step in zip(*real, strict=True))


@given(orders, epochs, st.data())
def test_a_worker_needs_its_own_scans_only_and_the_shares_are_disjoint(order, epoch, data):
    workers = data.draw(st.integers(1, order.batch_size))
    owned = [set(order.owned(worker, workers).tolist()) for worker in range(workers)]
    assert sum(map(len, owned)) == order.n
    assert set().union(*owned) == set(range(order.n))
    for worker in range(workers):
        for local in order.share(epoch, worker, workers):
            assert set(local.tolist()) - {PADDING} <= owned[worker]


@given(orders, epochs, st.data())
def test_resuming_at_a_step_goes_on_with_the_same_batches(order, epoch, data):
    step = data.draw(st.integers(0, order.steps))
    whole, rest = list(order.share(epoch, 0, 1)), list(order.share(epoch, 0, 1, step))
    assert [a.tolist() for a in whole[step:]] == [a.tolist() for a in rest]


def test_epochs_and_seeds_shuffle_anew():
    firsts = {tuple(Order(1000, 32, seed).batch(epoch, 0)) for seed in range(5) for epoch in range(5)}
    assert len(firsts) == 25


def test_scans_meet_others_in_every_epoch():
    # Two scans of different slots share a batch about once in as many epochs as there are steps: as in a full shuffle.
    order, together = Order(320, 32, 0), np.zeros((320, 320))
    for epoch in range(200):
        for batch in np.stack(list(order.share(epoch, 0, 1))):
            together[np.ix_(batch, batch)] += 1
    np.fill_diagonal(together, 0)
    partners = (together > 0).sum(axis=1)
    assert partners.min() == 310  # all but the other nine of its own slot
