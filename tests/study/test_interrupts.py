import gc
import signal
import threading
from collections.abc import Iterator

import pytest

from lab.study.interrupts import Interrupts


@pytest.fixture(autouse=True)
def heard() -> Iterator[None]:
    """SIGINT as a terminal has it: a shell's background job starts with it ignored."""
    former = signal.signal(signal.SIGINT, signal.default_int_handler)
    gc.disable()  # an interrupt that falls into a collection's callback, of which Hypothesis has one, is lost
    yield
    gc.enable()
    signal.signal(signal.SIGINT, former)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_stops_the_second_hurries_and_the_third_breaks_off(number: signal.Signals) -> None:
    former = signal.getsignal(number)
    with Interrupts() as interrupts:
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
        assert not interrupts.again
        signal.raise_signal(signal.SIGINT)
        assert interrupts.again
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
    assert signal.getsignal(number) == former


def test_an_ignored_ctrl_c_stays_ignored() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with Interrupts() as interrupts:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        assert not interrupts.again
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_outside_the_main_thread_it_does_nothing() -> None:
    errors: list[BaseException] = []

    def enter() -> None:
        try:
            with Interrupts():
                pass
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert errors == []
