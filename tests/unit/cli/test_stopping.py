"""Ctrl-C and SIGTERM: told first, then at once."""

from __future__ import annotations

import signal
import threading

import pytest

from chatkeep.daemon.cli.stopping import interruptible, stopping


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_is_told_and_the_second_ends(number: signal.Signals) -> None:
    told: list[str] = []
    before = signal.getsignal(number)
    with stopping(lambda: told.append("stopping")) as stopped:
        assert not stopped()
        signal.raise_signal(number)
        assert stopped()
        assert told == ["stopping"]
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
    assert signal.getsignal(number) is before


def test_sigterm_ends_as_ctrl_c_does() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), interruptible():
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_what_was_ignored_stays_ignored(number: signal.Signals) -> None:
    before = signal.signal(number, signal.SIG_IGN)
    try:
        with interruptible(), stopping() as stopped:
            signal.raise_signal(number)
            assert not stopped()
    finally:
        signal.signal(number, before)


def test_a_thread_cannot_handle_signals_and_need_not() -> None:
    seen: list[bool] = []

    def work() -> None:
        with stopping() as stopped, interruptible():
            seen.append(stopped())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [False]
