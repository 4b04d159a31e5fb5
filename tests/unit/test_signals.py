"""Signals that end a command."""

import os
import signal

import pytest

from job.signals import Terminated, held_back, sigterm_ends


@pytest.fixture(autouse=True)
def ctrl_c():
    """As in a terminal: processes that a script starts in the background ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def send(number):
    os.kill(os.getpid(), number)


def test_a_signal_waits_until_the_end_of_the_block_and_is_not_lost():
    left = []

    def leave():
        with held_back():
            send(signal.SIGINT)
            left.append("whole")

    with pytest.raises(KeyboardInterrupt):
        leave()
    assert left == ["whole"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_second_one_does_not_wait():
    left = []

    def leave():
        with held_back():
            send(signal.SIGINT)
            send(signal.SIGINT)
            left.append("whole")

    with pytest.raises(KeyboardInterrupt):
        leave()
    assert not left


def test_one_that_is_ignored_hides_no_other():
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def leave():
        with sigterm_ends(), held_back():
            send(signal.SIGINT)
            send(signal.SIGTERM)

    with pytest.raises(Terminated):
        leave()
    assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN


def test_without_a_signal_nothing_is_raised_and_the_handlers_are_those_of_before():
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)]
    with held_back():
        assert signal.getsignal(signal.SIGTERM) not in handlers
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)] == handlers


def test_sigterm_is_told_from_ctrl_c_and_from_other_exits():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Terminated), sigterm_ends():
        send(signal.SIGTERM)
    with pytest.raises(Terminated), sigterm_ends():
        raise SystemExit(15)  # Ray's answer to SIGTERM
    with pytest.raises(KeyboardInterrupt), sigterm_ends():
        send(signal.SIGINT)
    with pytest.raises(SystemExit), sigterm_ends():
        raise SystemExit(2)
    assert signal.getsignal(signal.SIGTERM) == before
