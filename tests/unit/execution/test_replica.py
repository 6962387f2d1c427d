"""What a replica does with what its managers say, in virtual time."""

import pytest

from execution_service.rpc.streams import ManagerStream
from execution_service.workers.outcomes import Outcome
from headrace.v1 import execution_pb2, task_pb2
from tests.unit.execution.factories import assignment, finished
from tests.unit.execution.world import World

ACCEPTED, STALE, UNKNOWN = task_pb2.VERDICT_ACCEPTED, task_pb2.VERDICT_STALE, task_pb2.VERDICT_UNKNOWN
HELD, REFUSED = execution_pb2.Answer.STATE_HELD, execution_pb2.Answer.STATE_REFUSED


@pytest.fixture
async def world() -> World:
    return World()


async def test_hello_and_a_heartbeat_come_first_and_demand_follows_the_first_echo(world: World) -> None:
    stream = world.attach(fit=False)
    first = await world.heard(stream)
    assert first.hello.session_id == world.session_id
    assert first.hello.replica == "exec-1"
    assert [(pool.name, pool.slots) for pool in first.hello.pools] == [("cpu", 4)]
    assert first.heartbeat.number == world.replica.session.number
    assert not first.demand
    world.echo(stream)
    assert [grant.granted for grant in (await world.heard(stream)).demand] == [4]


async def test_a_second_stream_of_a_manager_replaces_the_first(world: World) -> None:
    first = world.attach("m1")
    second = world.attach("m1")
    assert first.closed
    assert await first.next(world.clock.monotonic) is None
    assert not second.closed
    assert [grant.granted for grant in (await world.heard(second)).demand] == [4]


async def test_an_echo_lets_attempts_start_for_two_and_a_half_seconds_from_its_heartbeat(world: World) -> None:
    stream = world.attach(fit=False)
    assert not world.may_start()
    number = world.replica.session.number
    world.clock.seconds += 2.0
    world.echo(stream, number)
    assert world.may_start()
    world.clock.seconds += 0.5
    assert not world.may_start()


async def test_an_echo_of_another_session_lets_nothing_start(world: World) -> None:
    stream = world.attach(fit=False)
    world.echo(stream, session_id=world.session_id + 1)
    assert not world.may_start()
    assert not (await world.heard(stream)).demand


async def test_assignments_go_to_the_pool_and_results_are_stored_before_they_are_reported(world: World) -> None:
    stream = world.attach()
    world.assign(stream, assignment(1), assignment(2))
    assert [item.task_id for item in world.workers.submitted] == [1, 2]
    world.replica.outcomes.finished([finished(1), finished(2, outcome=Outcome.FAILED)])
    assert [item.task_id for item in await world.reports(stream)] == [2], "a failure has no result to store"
    await world.replica.outcomes.writer.run_once()
    (report,) = await world.reports(stream)
    assert (report.task_id, report.outcome, report.result) == (1, task_pb2.OUTCOME_COMPLETED, b'{"words":1}')
    assert world.results.rows == {(1, 1): b'{"words":1}'}


async def test_large_results_do_not_travel_with_their_reports(world: World) -> None:
    stream = world.attach()
    world.assign(stream, assignment(1))
    world.replica.outcomes.finished([finished(1, result=b'"' + b"x" * 5000 + b'"')])
    await world.replica.outcomes.writer.run_once()
    (report,) = await world.reports(stream)
    assert not report.HasField("result")


async def test_an_assignment_is_dropped_after_its_attempt_was_refused(world: World) -> None:
    stream = world.attach()
    world.ask(stream, (1, 1))
    assert [answer.state for answer in (await world.heard(stream)).answers] == [REFUSED]
    world.assign(stream, assignment(1))
    assert world.workers.submitted == []


async def test_assignments_of_another_session_or_with_an_old_number_are_dropped(world: World) -> None:
    stream = world.attach()
    old = world.replica.session.number
    world.live(3, stream)
    world.assign(stream, assignment(1), heard=old)
    world.assign(stream, assignment(2), session_id=world.session_id + 1)
    world.assign(stream, assignment(3), heard=world.replica.session.number + 1)
    world.assign(stream, assignment(4))
    assert [item.task_id for item in world.workers.submitted] == [4]
    world.ask(stream, (1, 1), (2, 1), (3, 1), (4, 1))
    assert [item.state for item in (await world.heard(stream)).answers] == [REFUSED, REFUSED, REFUSED, HELD]


async def test_demand_used_for_dropped_assignments_is_granted_again(world: World) -> None:
    stream = world.attach()
    await world.heard(stream)
    dropped = [assignment(number) for number in range(4)]
    world.assign(stream, *dropped, session_id=world.session_id + 1)
    assert [grant.granted for grant in (await world.heard(stream)).demand] == [8]


async def test_an_unserved_type_is_handed_back(world: World) -> None:
    stream = world.attach()
    world.assign(stream, assignment(1, type_name="nonsense"))
    (report,) = await world.reports(stream)
    assert (report.outcome, report.error.code) == (task_pb2.OUTCOME_HANDED_BACK, "unknown_task_type")
    assert not report.started
    assert world.workers.submitted == []


async def test_a_higher_attempt_ends_the_older_one(world: World) -> None:
    stream = world.attach()
    world.assign(stream, assignment(1, 1))
    world.assign(stream, assignment(1, 2, round_base=1))
    assert world.workers.abandoned == [(1, 1)]
    assert [item.attempt for item in world.workers.submitted] == [1, 2]
    world.replica.outcomes.finished([finished(1, 1, outcome=Outcome.FAILED)])
    assert await world.reports(stream) == []


async def test_a_later_attempt_takes_the_result_that_an_earlier_one_left(world: World) -> None:
    stream = world.attach()
    world.results.rows[1, 1] = b"1"
    world.assign(stream, assignment(1, 2), assignment(2, 2))
    assert world.workers.submitted == []
    await world.replica.earlier.run_once()
    assert [item.task_id for item in world.workers.submitted] == [2]
    (report,) = await world.reports(stream)
    assert (report.task_id, report.attempt, report.outcome) == (1, 2, task_pb2.OUTCOME_COMPLETED)
    assert not report.started
    assert world.results.rows[1, 2] == b"1"


async def test_later_attempts_wait_unstarted_while_the_result_db_is_away(world: World) -> None:
    stream = world.attach()
    world.results.away = True
    world.assign(stream, assignment(1, 2))
    with pytest.raises(Exception, match="away"):
        await world.replica.earlier.run_once()
    world.ask(stream, (1, 2))
    assert [answer.state for answer in (await world.heard(stream)).answers] == [HELD]
    assert world.replica.table.unfinished("cpu") == 1
    world.results.away = False
    await world.replica.earlier.run_once()
    assert [item.task_id for item in world.workers.submitted] == [1]


async def test_reports_are_sent_again_on_another_stream_after_theirs_ended(world: World) -> None:
    first, second = world.attach("m1"), world.attach("m2")
    world.assign(first, assignment(1))
    world.replica.outcomes.finished([finished(1, outcome=Outcome.FAILED)])
    by_stream = {stream: await world.reports(stream) for stream in (first, second)}
    sender = first if by_stream[first] else second
    other = second if sender is first else first
    assert by_stream[other] == []
    world.replica.detach(sender, reason="test")
    assert [item.task_id for item in await world.reports(other)] == [1]


async def test_reports_without_a_verdict_are_sent_again_after_five_seconds(world: World) -> None:
    stream = world.attach()
    world.assign(stream, assignment(1))
    world.replica.outcomes.finished([finished(1, outcome=Outcome.FAILED)])
    assert len(await world.reports(stream)) == 1
    world.live(4.5, stream)
    assert await world.reports(stream) == []
    world.live(1.0, stream)
    assert len(await world.reports(stream)) == 1
    world.judge(stream, ACCEPTED, (1, 1))
    world.live(10.0, stream)
    assert await world.reports(stream) == []


@pytest.mark.parametrize("verdict", [ACCEPTED, UNKNOWN, STALE])
async def test_every_verdict_lets_a_finished_attempt_go(world: World, verdict: task_pb2.Verdict.ValueType) -> None:
    stream = world.attach()
    world.assign(stream, assignment(1))
    world.replica.outcomes.finished([finished(1, outcome=Outcome.FAILED)])
    await world.heard(stream)
    world.judge(stream, verdict, (1, 1))
    assert len(world.replica.table) == 0
    assert world.workers.abandoned == []
    world.ask(stream, (1, 1))
    assert [answer.state for answer in (await world.heard(stream)).answers] == [REFUSED]


async def test_a_stale_verdict_stops_an_attempt_that_still_runs(world: World) -> None:
    stream = world.attach()
    world.assign(stream, assignment(1))
    world.judge(stream, STALE, (1, 1))
    assert world.workers.abandoned == [(1, 1)]
    assert len(world.replica.table) == 0


async def test_a_cancel_is_passed_on_once(world: World) -> None:
    stream = world.attach()
    world.assign(stream, assignment(1))
    for _ in range(3):
        world.replica.take_cancels(world.session_id, [(1, 1), (9, 1)])
    world.replica.take_cancels(world.session_id + 1, [(1, 1)])
    assert world.workers.cancelled == [(1, 1)]


async def test_a_silent_stream_is_ended_and_its_demand_goes_to_others(world: World) -> None:
    silent, alive = world.attach("m1"), world.attach("m2")
    world.live(2.25, alive)
    assert not silent.closed
    world.live(0.5, alive)
    assert silent.closed
    assert world.replica.demand.open("cpu") == world.replica.demand.line(alive.number, "cpu").open == 4


async def test_demand_of_a_manager_whose_database_is_away_is_asked_back(world: World) -> None:
    stream = world.attach()
    await world.heard(stream)
    for _ in range(12):
        world.clock.seconds += 0.25
        stream.heard_at = world.clock.seconds
        world.replica.tick()
    assert not stream.closed
    assert [(grant.granted, grant.recall) for grant in (await world.heard(stream)).demand] == [(4, True)]
    world.replica.take_demand_use(stream, [execution_pb2.DemandUse(pool="cpu", sent=0, returned=4)])
    world.replica.beat()
    world.echo(stream)
    assert [grant.granted for grant in (await world.heard(stream)).demand] == [8]


async def test_an_ended_session_is_killed_and_a_new_one_opened_once_all_reports_have_verdicts(world: World) -> None:
    stream = world.attach()
    world.assign(stream, assignment(1), assignment(2), assignment(3))
    world.replica.outcomes.finished([finished(1)])
    ended = world.session_id
    world.replica.take_end(ended)
    world.replica.settle()
    assert world.workers.killed_sessions == [ended]
    assert not world.may_start()
    world.replica.outcomes.finished([finished(2)])
    await world.replica.outcomes.writer.run_once()
    assert [item.task_id for item in await world.reports(stream)] == [1, 2]
    world.live(2.0, stream)
    assert world.session_id == ended
    world.judge(stream, STALE, (1, 1), (2, 1))
    world.live(0.25, stream)
    assert world.session_id != ended
    message = await world.heard(stream)
    assert message.hello.session_id == message.heartbeat.session_id == world.session_id
    assert world.replica.session.number == 1
    world.ask(stream, (3, 1))
    assert [answer.state for answer in (await world.heard(stream)).answers] == [REFUSED]


async def test_a_new_session_is_opened_after_ten_seconds_even_without_verdicts(world: World) -> None:
    stream = world.attach()
    world.assign(stream, assignment(1))
    world.replica.outcomes.finished([finished(1, outcome=Outcome.FAILED)])
    ended = world.session_id
    world.replica.take_end(ended)
    world.live(9.5, stream)
    assert world.session_id == ended
    world.live(1.0, stream)
    assert world.session_id != ended
    assert len(world.replica.table) == 1, "its report is still owed"


async def test_the_end_of_an_older_session_changes_nothing(world: World) -> None:
    stream = world.attach()
    world.assign(stream, assignment(1))
    world.replica.take_end(world.session_id + 1)
    assert world.workers.killed_sessions == []
    assert len(world.replica.table) == 1


async def test_an_ended_session_takes_no_assignments_and_all_demand_is_asked_back(world: World) -> None:
    stream = world.attach()
    await world.heard(stream)
    world.replica.take_end(world.session_id)
    world.replica.settle()
    assert [grant.recall for grant in (await world.heard(stream)).demand] == [True]
    world.assign(stream, assignment(1))
    assert world.workers.submitted == []


async def test_a_draining_replica_hands_back_what_still_arrives(world: World) -> None:
    stream = world.attach()
    await world.heard(stream)
    world.assign(stream, assignment(1, 2))
    world.replica.start_draining()
    world.assign(stream, assignment(2), assignment(3, 2))
    message = await world.heard(stream)
    assert {report.task_id for report in message.reports} == {1, 2, 3}
    assert {report.outcome for report in message.reports} == {task_pb2.OUTCOME_HANDED_BACK}
    assert [grant.recall for grant in message.demand] == [True]
    assert world.workers.submitted == []
    assert not world.replica.is_empty
    world.judge(stream, ACCEPTED, (1, 2), (2, 1), (3, 2))
    world.replica.take_demand_use(stream, [execution_pb2.DemandUse(pool="cpu", sent=3, returned=1)])
    assert world.replica.is_empty
    world.replica.say_bye()
    assert (await world.heard(stream)).bye
    assert await stream.next(world.clock.monotonic) is None


async def test_nothing_is_asked_for_before_the_result_db_has_its_tables(world: World) -> None:
    world.replica.can_store = False
    stream = world.attach()
    assert not (await world.heard(stream)).demand
    world.replica.can_store = True
    world.replica.settle()
    assert (await world.heard(stream)).demand


async def test_results_wait_in_the_spool_while_the_result_db_is_away_and_demand_ends_when_it_is_full() -> None:
    world = World(spool_bytes_max=3_000)
    stream = world.attach()
    world.results.away = True
    world.assign(stream, assignment(1), assignment(2))
    world.replica.outcomes.finished([finished(1, result=b"1" * 1_000)])
    with pytest.raises(Exception, match="away"):
        await world.replica.outcomes.writer.run_once()
    assert not any(grant.recall for grant in (await world.heard(stream)).demand)
    world.replica.outcomes.finished([finished(2, result=b"1" * 2_000)])
    assert [grant.recall for grant in (await world.heard(stream)).demand] == [True]
    world.results.away = False
    await world.replica.outcomes.writer.run_once()
    assert [report.task_id for report in await world.reports(stream)] == [1, 2]
    assert set(world.results.rows) == {(1, 1), (2, 1)}


async def test_one_result_that_cannot_be_stored_fails_alone() -> None:
    world = World()
    stream = world.attach()
    world.workers.slots_now = 100
    world.results.refused_tasks = {37}
    tasks = range(1, 101)
    world.assign(stream, *map(assignment, tasks))
    world.replica.outcomes.finished([finished(task_id) for task_id in tasks])
    await world.replica.outcomes.writer.run_once()
    reports = {report.task_id: report for report in await world.reports(stream)}
    assert len(reports) == 100
    failed = [task_id for task_id, report in reports.items() if report.outcome != task_pb2.OUTCOME_COMPLETED]
    assert failed == [37]
    assert reports[37].outcome == task_pb2.OUTCOME_FAILED_FOR_GOOD
    assert reports[37].error.code == "unstorable_result"
    assert not reports[37].HasField("result")
    assert len(world.results.rows) == 99


async def granted(world: World, stream: ManagerStream) -> int:
    """How much is asked for in all, as of now."""
    await world.heard(stream)
    return world.replica.table.unfinished("cpu") + world.replica.demand.open("cpu")


def give_back(world: World, stream: ManagerStream) -> None:
    """The manager answers a recall."""
    line = world.replica.demand.line(stream.number, "cpu")
    used = execution_pb2.DemandUse(pool="cpu", sent=line.sent, returned=line.granted - line.sent)
    world.replica.take_demand_use(stream, [used])
    world.replica.settle()


async def test_short_tasks_are_asked_for_ahead_and_no_more_after_a_pause(world: World) -> None:
    world.workers.means["word_count"] = 0.001
    stream = world.attach()
    assert await granted(world, stream) == 4
    world.assign(stream, assignment(1))
    assert await granted(world, stream) == 4 + 200
    world.live(1.5, stream)
    assert (await world.heard(stream)).demand[-1].recall
    give_back(world, stream)
    assert await granted(world, stream) == 4


async def test_nothing_is_asked_for_ahead_where_long_or_stuck_tasks_have_the_slots(world: World) -> None:
    stream = world.attach()
    world.assign(stream, *(assignment(number) for number in (1, 2, 3)))
    assert await granted(world, stream) == 4, "the type was never measured"
    world.workers.means["word_count"] = 30.0
    world.replica.settle()
    assert await granted(world, stream) == 4
    world.workers.means["word_count"] = 0.001
    world.replica.settle()
    assert await granted(world, stream) == 4 + 200
    world.workers.stuck_now = 3
    world.replica.settle()
    assert (await world.heard(stream)).demand[-1].recall
    give_back(world, stream)
    assert await granted(world, stream) == 4 + 50


async def test_managers_that_count_the_same_waiting_tasks_are_not_added_up(world: World) -> None:
    assert world.replica.waiting("cpu") == 0
    first, second = world.attach("m1"), world.attach("m2")
    first.waiting["cpu"], second.waiting["cpu"] = 30, 28
    assert (world.replica.waiting("cpu"), world.replica.waiting("io")) == (30, 0)
    world.replica.detach(first, reason="test")
    assert world.replica.waiting("cpu") == 28


async def test_a_solitary_task_is_alone_from_its_coming_to_its_end(world: World) -> None:
    stream = world.attach()
    world.assign(stream, assignment(1))
    await world.heard(stream)
    world.assign(stream, assignment(2, 3, solitary=True))
    message = await world.heard(stream)
    assert [grant.recall for grant in message.demand] == [True]
    await world.replica.earlier.run_once()
    assert [item.task_id for item in world.workers.submitted] == [1], "it waits for what runs"
    world.assign(stream, assignment(3))
    (crowded,) = await world.reports(stream)
    assert (crowded.task_id, crowded.outcome, crowded.error.code) == (3, task_pb2.OUTCOME_HANDED_BACK, "solitary")
    assert not crowded.started
    world.replica.outcomes.finished([finished(1)])
    assert [item.task_id for item in world.workers.submitted] == [1, 2]
    assert (world.workers.submitted[1].isolated, world.workers.submitted[1].solitary) == (True, True)
    world.replica.take_demand_use(stream, [execution_pb2.DemandUse(pool="cpu", sent=3, returned=1)])
    await _live_and_read(world, stream, seconds=30)
    assert world.replica.demand.open("cpu") == 0
    world.replica.outcomes.finished([finished(2, 3, outcome=Outcome.FAILED)])
    assert world.replica.demand.open("cpu") == 4


async def test_a_solitary_task_starts_after_a_minute_beside_what_still_runs(world: World) -> None:
    stream = world.attach()
    world.assign(stream, assignment(1), assignment(2, solitary=True))
    world.replica.take_demand_use(stream, [execution_pb2.DemandUse(pool="cpu", sent=2, returned=2)])
    await _live_and_read(world, stream, seconds=59)
    assert [item.task_id for item in world.workers.submitted] == [1]
    world.live(1, stream)
    assert [item.task_id for item in world.workers.submitted] == [1, 2]


async def test_what_was_still_being_checked_is_handed_back_once_a_solitary_task_runs(world: World) -> None:
    stream = world.attach()
    world.assign(stream, assignment(1, 2), assignment(2, solitary=True))
    world.replica.take_demand_use(stream, [execution_pb2.DemandUse(pool="cpu", sent=2, returned=2)])
    await _live_and_read(world, stream, seconds=61)
    assert [item.task_id for item in world.workers.submitted] == [2]
    await world.replica.earlier.run_once()
    assert [item.task_id for item in world.workers.submitted] == [2]
    (report,) = await world.reports(stream)
    assert (report.task_id, report.outcome, report.started) == (1, task_pb2.OUTCOME_HANDED_BACK, False)


async def test_a_solitary_task_that_waits_is_cancelled_at_once_or_handed_back_by_a_drain(world: World) -> None:
    stream = world.attach()
    world.assign(stream, assignment(1), assignment(2, solitary=True))
    world.replica.take_cancels(world.session_id, [(2, 1)])
    world.replica.settle()
    (report,) = await world.reports(stream)
    assert (report.outcome, report.error.code) == (task_pb2.OUTCOME_CANCELLED, "cancelled")
    assert report.error.receipt.ended_by == task_pb2.CancelReceipt.ENDED_BY_NOT_STARTED
    assert report.error.receipt.processes_gone
    world.assign(stream, assignment(3, solitary=True))
    world.replica.start_draining()
    (report,) = await world.reports(stream)
    assert (report.task_id, report.outcome) == (3, task_pb2.OUTCOME_HANDED_BACK)
    world.assign(stream, assignment(4, solitary=True), assignment(5))
    assert {report.task_id for report in await world.reports(stream)} == {4, 5}
    assert [item.task_id for item in world.workers.submitted] == [1]


async def _live_and_read(world: World, stream: ManagerStream, *, seconds: float) -> None:
    for _ in range(round(seconds)):
        world.live(seconds / round(seconds), stream)
        await world.heard(stream)
