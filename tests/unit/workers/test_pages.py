"""The shared pages say what was written, whole, and nothing when nothing whole is there."""

import os
import threading
from collections.abc import Iterator

import pytest

from execution_service.workers.lease_page import LeasePage
from execution_service.workers.slots_page import SlotsPage


@pytest.fixture
def lease() -> Iterator[LeasePage]:
    page = LeasePage.create()
    yield page
    page.close()


def test_nothing_may_start_before_the_first_echo(lease: LeasePage) -> None:
    assert not lease.may_start(0, 0.0)
    assert not lease.may_start(7, 0.0)


def test_an_attempt_may_start_while_the_echo_is_young_and_of_its_own_session(lease: LeasePage) -> None:
    lease.write(7, 100.0)
    assert lease.may_start(7, 100.0)
    assert lease.may_start(7, 102.49)
    assert not lease.may_start(7, 102.5)
    assert not lease.may_start(8, 100.0)


def test_another_mapping_of_the_same_page_sees_the_writes(lease: LeasePage) -> None:
    other = LeasePage(os.dup(lease.fd))
    lease.write(9, 5.0)
    assert other.may_start(9, 6.0)
    other.close()


def test_a_write_that_was_not_finished_lets_nothing_start(lease: LeasePage) -> None:
    lease.write(7, 100.0)
    lease._words[0] += 1
    assert not lease.may_start(7, 100.0)


def test_a_reader_never_sees_a_mixture_of_two_writes(lease: LeasePage) -> None:
    stop = threading.Event()

    def write() -> None:
        number = 1
        while not stop.is_set():
            # Session n is always written with time n * 10: any other pair would be a torn one.
            lease.write(number, number * 10.0)
            number = number % 1000 + 1

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for number in range(1, 20_001):
            session = number % 1000 + 1
            if lease.may_start(session, session * 10.0 + 2.4):
                assert not lease.may_start(session, session * 10.0 + 1e9)
            assert not lease.may_start(session, session * 10.0 + 12.5)
    finally:
        stop.set()
        writer.join()


def test_the_slots_page_tells_what_was_started_and_what_runs() -> None:
    page = SlotsPage.create(3)
    assert (page.last_started, page.running()) == (0, {})
    page.begin(0, 1, 10.0, 1001.0)
    page.begin(2, 2, 20.0, 1002.0)
    page.end(0)
    assert (page.last_started, page.running()) == (2, {2: 20.0})
    page.close()


def test_a_cancel_reaches_only_the_attempt_that_it_names() -> None:
    page = SlotsPage.create(2)
    page.begin(0, 4, 10.0, 1004.0)
    page.begin(1, 5, 10.0, 1005.0)
    page.ask_cancel(5)
    page.ask_cancel(6)
    assert not page.cancel_asked(0, 4)
    assert page.cancel_asked(1, 5)
    page.end(1)
    page.begin(1, 6, 10.0, 1006.0)
    assert not page.cancel_asked(1, 6)
    page.generation = 3
    assert page.generation == 3
    page.close()
