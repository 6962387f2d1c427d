"""Attempts, outcomes and messages with everything filled in that a test does not care for."""

import msgspec

from execution_service.workers.outcomes import Attempt, AttemptError, Finished, Outcome
from headrace.v1 import execution_pb2, task_pb2


def work(
    task_id: int, attempt: int = 1, *, session_id: int = 1, type_name: str = "word_count", pool: str = "cpu"
) -> Attempt:
    return Attempt(task_id, attempt, session_id, type_name, b"{}", pool, 30.0, False, 3)


def solitary(task_id: int, attempt: int = 1) -> Attempt:
    return msgspec.structs.replace(work(task_id, attempt), isolated=True, solitary=True)


def finished(
    task_id: int, attempt: int = 1, *, outcome: Outcome = Outcome.COMPLETED, result: bytes = b'{"words":1}'
) -> Finished:
    done = outcome is Outcome.COMPLETED
    error = None if done else AttemptError("handler_error", "no")
    return Finished(task_id, attempt, outcome, result if done else None, error, True, "worker-1", 1.0, 2.0)


def assignment(
    task_id: int,
    attempt: int = 1,
    *,
    round_base: int = 0,
    type_name: str = "word_count",
    pool: str = "cpu",
    solitary: bool = False,
) -> execution_pb2.Assignment:
    return execution_pb2.Assignment(
        task_id=task_id,
        attempt=attempt,
        type=type_name,
        data=b"{}",
        pool=pool,
        timeout_ms=30_000,
        round_base=round_base,
        max_attempts=3,
        solitary=solitary,
    )


def report(task_id: int, attempt: int = 1) -> task_pb2.Report:
    return task_pb2.Report(task_id=task_id, attempt=attempt, outcome=task_pb2.OUTCOME_COMPLETED)
