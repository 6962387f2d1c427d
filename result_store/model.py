"""What goes into the result store and what comes out. Named tuples: thousands of them are made in a second."""

from datetime import datetime
from typing import NamedTuple


class ResultKey(NamedTuple):
    task_id: int
    attempt: int


class NewResult(NamedTuple):
    task_id: int
    attempt: int
    # JSON, UTF-8.
    result: bytes


class StoredResult(NamedTuple):
    task_id: int
    attempt: int
    result: bytes
    # By the clock of the database.
    stored_at: datetime


class NewLog(NamedTuple):
    task_id: int
    attempt: int
    # Without NUL and lone surrogates.
    log: str


class StoredLog(NamedTuple):
    attempt: int
    log: str
    # By the clock of the database.
    stored_at: datetime


class CopyRequest(NamedTuple):
    """Asks for a result of the attempts between `round_base` and `attempt`, both left out."""

    task_id: int
    round_base: int
    attempt: int


class Copied(NamedTuple):
    """The result of `from_attempt` is now that of `attempt` too."""

    task_id: int
    attempt: int
    from_attempt: int
