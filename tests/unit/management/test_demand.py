"""Demand is a matter of running totals: never counted twice, never leaked."""

from hypothesis import given
from hypothesis import strategies as st

from management_service.domain.demand import Account, by_types, spread
from management_service.domain.questions import AttemptAges, AttemptRow

NOOP = frozenset({"noop"})


def account(granted: int, session_id: int = 1) -> Account:
    return Account(session_id, NOOP, granted=granted)


def test_an_older_total_changes_nothing() -> None:
    demand = account(10)
    assert not demand.grant(7)
    assert demand.grant(12)
    assert demand.open == 12


def test_a_recall_returns_what_is_open_and_keeps_what_is_reserved() -> None:
    demand = account(10)
    demand.reserve(4)
    assert demand.give_back() == 6
    demand.send(3)
    demand.release(1)
    assert (demand.sent, demand.returned, demand.open) == (3, 6, 1)


@given(st.lists(st.integers(0, 50), min_size=1, max_size=6), st.integers(0, 400))
def test_no_account_gets_more_than_its_open_demand_and_no_task_is_left_while_one_is_open(
    granted: list[int], count: int
) -> None:
    accounts = [account(total, session_id) for session_id, total in enumerate(granted)]
    chosen = spread(accounts, count)
    assert len(chosen) == min(count, sum(granted))
    for demand in accounts:
        assert sum(other is demand for other in chosen) <= demand.open


def test_a_single_task_goes_to_the_replica_with_the_most_room() -> None:
    busy, idle = account(2, 1), account(8, 2)
    assert spread([busy, idle], 1) == [idle]


def test_replicas_with_the_same_types_are_served_by_one_claim() -> None:
    both, one, none = account(1), Account(2, frozenset({"other"}), granted=1), account(0, 3)
    assert by_types([both, one, none]) == {NOOP: [both], frozenset({"other"}): [one]}


def test_an_attempt_is_asked_about_once_it_was_seen_in_scans_3_s_apart() -> None:
    ages = AttemptAges()
    old, new = AttemptRow(1, 1, 9, False), AttemptRow(1, 2, 9, False)
    assert ages.scan([old], now=0) == []
    assert ages.scan([old], now=2.9) == []
    assert ages.scan([old], now=3.0) == [old]
    assert ages.scan([new], now=3.5) == []
    ages.forget_all()
    assert ages.scan([new], now=9.0) == []
