"""Assignments for the sample task types."""

import json

from headrace.v1 import execution_pb2


def assignment(
    task_id: int, attempt: int = 1, *, type_name: str = "double", data: object = None, round_base: int = 0
) -> execution_pb2.Assignment:
    return execution_pb2.Assignment(
        task_id=task_id,
        attempt=attempt,
        type=type_name,
        data=json.dumps({"value": task_id} if data is None else data).encode(),
        pool="io" if type_name == "nap_async" else "cpu",
        timeout_ms=30_000,
        round_base=round_base,
        max_attempts=3,
    )
