"""Between protobuf and this service."""

from datetime import UTC, datetime

from execution_service.rpc import mapping
from execution_service.workers.outcomes import AttemptError, Finished, Outcome
from headrace.tasks import Backoff, definition_of, task
from headrace.v1 import task_pb2
from tests.unit.execution.factories import assignment, finished


def test_every_outcome_has_its_name_in_the_contract() -> None:
    names = {outcome.name: outcome.value for outcome in Outcome}
    contract = {name.removeprefix("OUTCOME_"): value for name, value in task_pb2.Outcome.items()}
    for on_record_alone in ("UNSPECIFIED", "REFUSED", "REPLICA_LOST"):
        del contract[on_record_alone]
    assert names == contract


def test_every_outcome_can_be_shown_to_watchers() -> None:
    for outcome in Outcome:
        report = mapping.report(finished(1, outcome=outcome))
        shown = mapping.outcome_update(report, "word_count", datetime(2026, 1, 1, tzinfo=UTC))
        assert shown.status != task_pb2.TASK_STATUS_UNSPECIFIED


def test_an_assignment_becomes_an_attempt_of_its_session() -> None:
    ((work, round_base),) = mapping.offers([assignment(5, 3, round_base=2)], 77)
    assert (work.task_id, work.attempt, work.session_id, work.pool, work.timeout) == (5, 3, 77, "cpu", 30.0)
    assert round_base == 2


def test_a_type_tells_its_backoff_and_soft_timeout_where_it_has_them() -> None:
    @task("plain")
    def plain(data: dict[str, int]) -> None:
        """Has neither."""

    @task("patient", soft_timeout=2.5, backoff=Backoff(initial=0.5, factor=1.5, maximum=60))
    def patient(data: dict[str, int]) -> None:
        """Has both."""

    assert not mapping.task_type(definition_of(plain)).HasField("options")
    options = mapping.task_type(definition_of(patient)).options
    assert options.soft_timeout_ms == 2500
    assert (options.backoff.initial_ms, options.backoff.factor, options.backoff.max_ms) == (500, 1.5, 60_000)


def test_error_texts_are_made_storable() -> None:
    cause = AttemptError("handler_error", "a\x00b\ud800" + "x" * 20_000, "Broken\x00")
    report = mapping.report(Finished(1, 1, Outcome.FAILED, None, cause, True, "w", None, None))
    assert report.error.message.startswith("a\N{REPLACEMENT CHARACTER}b?x")
    assert len(report.error.message) == mapping.MESSAGE_CHARACTERS_MAX
    assert "\x00" not in report.error.exception


def test_times_are_those_of_the_worker() -> None:
    report = mapping.report(finished(1))
    assert (report.started_at.seconds, report.executed_at.seconds) == (1, 2)
