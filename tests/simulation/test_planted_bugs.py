"""The simulation finds the bugs that it is there to find. Each is planted by replacing one function."""

from collections.abc import Iterable, Sequence

import pytest

from execution_service.replica import Replica
from execution_service.rpc.streams import ManagerStream
from execution_service.workers.lease_page import LeasePage
from headrace.v1 import execution_pb2
from management_service.domain.demand import Account
from management_service.publishing import Publisher
from tests.simulation.tables import Params, Rows, Tables, TaskRow, Transaction
from tests.simulation.world import simulate

SEEDS = 200


def assert_found(*signs: str, faults: Sequence[str] = (), first: int = 0) -> None:
    """Some story breaks, in one of the ways that this bug breaks it. `first` is the seed that found it last."""
    for seed in (*range(first, SEEDS), *range(first)):
        if violations := simulate(seed, faults=faults):
            assert any(sign in violations[0] for sign in signs), f"seed {seed}: {violations[0]}"
            return
    pytest.fail(f"not found with {SEEDS} seeds")


def test_a_late_assignment_after_a_requeue(monkeypatch: pytest.MonkeyPatch) -> None:
    take = Replica.take_assignments

    def take_all(
        self: Replica,
        stream: ManagerStream,
        session_id: int,
        _heard: int,
        assigned: Sequence[execution_pb2.Assignment],
    ) -> None:
        """However old the claim is, and refused or not."""
        self.table._refused.clear()
        take(self, stream, session_id, self.session.number, assigned)

    monkeypatch.setattr(Replica, "take_assignments", take_all)
    assert_found("was started, and the row says", faults=("slow_database", "delay_messages"), first=30)


def test_a_claim_for_an_ended_session(monkeypatch: pytest.MonkeyPatch) -> None:
    claim = Tables.claim_tasks

    def claim_for_anybody(self: Tables, params: Params, transaction: Transaction) -> Rows:
        with monkeypatch.context() as patched:
            patched.setattr(Tables, "lives", lambda _self, _session_id: True)
            return claim(self, params, transaction)

    monkeypatch.setattr(Tables, "claim_tasks", claim_for_anybody)
    assert_found("claimed for an ended session", faults=("slow_database", "kill_replica", "freeze_manager"), first=44)


def test_a_start_after_a_thaw(monkeypatch: pytest.MonkeyPatch) -> None:
    may_start = LeasePage.may_start
    # The session alone, however long ago a manager echoed it.
    monkeypatch.setattr(LeasePage, "may_start", lambda self, session_id, _now: may_start(self, session_id, -1e9))
    assert_found("was started, and the row says", "ended while it may start")


def test_a_token_counted_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    def grant(self: Account, total: int) -> bool:
        """As if it were no running total."""
        self.granted += total
        return True

    monkeypatch.setattr(Account, "grant", grant)
    assert_found("holds and asks for")


def test_a_resurrected_row(monkeypatch: pytest.MonkeyPatch) -> None:
    def current(self: Tables, task_id: int, attempt: int) -> TaskRow | None:
        """A report that comes again finds its attempt, though the task has ended by it."""
        row = self.tasks.get(task_id)
        return row if row is not None and row.attempt == attempt else None

    monkeypatch.setattr(Tables, "_current", current)
    assert_found("a final row was moved", "there is no such change")


def test_an_update_lost_between_commit_and_publication(monkeypatch: pytest.MonkeyPatch) -> None:
    put = Publisher.put

    def put_as_published(self: Publisher, updates: Iterable[object], *, outbox_ids: Iterable[int] = ()) -> None:
        """The outbox row goes before the update is out."""
        put(self, updates)  # type: ignore[arg-type]
        self.give_back_cleared(outbox_ids)

    monkeypatch.setattr(Publisher, "put", put_as_published)
    assert_found("were not told", first=37)


def test_an_expiry_without_the_beat_guard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Tables, "end_session", Tables.close_session)
    assert_found("ended while it may start", faults=("slow_database", "freeze_replica"), first=62)


def test_an_adoption_by_name_instead_of_session(monkeypatch: pytest.MonkeyPatch) -> None:
    def is_lost(self: Tables, row: TaskRow) -> bool:
        """As long as a replica of that name lives, its tasks are taken to be with it."""
        owner = self.executors[row.session_id or 0]
        return not any(one.replica == owner.replica for one in self.executors.values() if one.ended_at is None)

    monkeypatch.setattr(Tables, "is_lost", is_lost)
    assert_found("for ever")
