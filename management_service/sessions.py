"""Sessions of execution replicas as this manager hears them: rows opened, heartbeats written, echoes given.

A number is echoed only after its write has committed, and never if the write found the session ended.
"""

import asyncio
import time
from typing import Protocol

import structlog

from management_service.domain.echoes import UnprovenEchoes
from management_service.storage.executors import ExecutorRepository
from management_service.storage.records import Session
from servicekit.errors import HeadraceError

log = structlog.stdlib.get_logger(__name__)

_PAUSE_AFTER_FAILURE_SECONDS = 0.25


class Listener(Protocol):
    """What a stream does with what became of its session's writes."""

    def session_opened(self, session_id: int) -> None: ...

    def session_ended(self, session_id: int) -> None: ...

    def echo(self, session_id: int, number: int) -> None: ...


class SessionKeeper:
    """Writes the Hellos and heartbeats that gathered while the previous write was on its way."""

    def __init__(self, executors: ExecutorRepository) -> None:
        self._executors = executors
        self._byes: set[int] = set()
        self._hellos: dict[int, tuple[Session, Listener]] = {}
        self._beats: dict[int, tuple[int, Listener]] = {}
        self._known: dict[int, Session] = {}
        self._echoes = UnprovenEchoes()
        self._wake = asyncio.Event()

    def hello(self, session: Session, listener: Listener) -> None:
        """Have the session's row made; `session_opened` or `session_ended` follows."""
        self._hellos[session.session_id] = (session, listener)
        self._known[session.session_id] = session
        self._wake.set()

    def heartbeat(self, session_id: int, number: int, listener: Listener) -> None:
        """Have a heartbeat written; its `echo`, or `session_ended`, follows."""
        self._beats[session_id] = (number, listener)
        self._wake.set()

    def take_proof(self, session_id: int, echoed: int | None) -> None:
        """Take the newest echo that a session has read; None from a replica that does not tell."""
        self._echoes.proven(session_id, echoed)

    def is_deaf(self, session_id: int) -> bool:
        """Whether the session takes none of our echoes: then its heartbeats count for nothing."""
        return self._echoes.is_deaf(session_id, now=time.monotonic())

    def unproven_echo(self, session_id: int) -> int:
        """The echo that a deaf session is sent again, so that it can prove that it reads; its write has committed."""
        return self._echoes.unproven(session_id)

    def bye(self, session_id: int) -> None:
        """Have the session ended: it holds nothing any more."""
        self._byes.add(session_id)
        self._wake.set()

    def forget(self, session_id: int) -> None:
        """The stream of this session is gone: nobody waits for its echoes."""
        self._hellos.pop(session_id, None)
        self._beats.pop(session_id, None)
        self._known.pop(session_id, None)

    async def run(self) -> None:
        """Write until cancelled. While the database is away the newest numbers wait and nothing is echoed."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                await self._open_sessions()
                await self._raise_beats()
                await self._close_sessions()
            except HeadraceError as error:
                log.info("heartbeats_not_written", code=error.code, reason=error.message)
                await asyncio.sleep(_PAUSE_AFTER_FAILURE_SECONDS)
                self._wake.set()
            except Exception as error:
                log.error("heartbeats_failed", exc_info=error)
                await asyncio.sleep(_PAUSE_AFTER_FAILURE_SECONDS)
                self._wake.set()

    async def _open_sessions(self) -> None:
        for session_id, (session, listener) in list(self._hellos.items()):
            lives = await self._executors.open_session(session)
            if self._hellos.get(session_id) == (session, listener):
                del self._hellos[session_id]
            if lives:
                log.info("session_opened", session_id=session_id, executor=session.replica, address=session.address)
                listener.session_opened(session_id)
            else:
                listener.session_ended(session_id)

    async def _raise_beats(self) -> None:
        if not self._beats:
            return
        beats = dict(self._beats)
        written = await self._executors.raise_beats({session_id: number for session_id, (number, _) in beats.items()})
        for session_id, (number, listener) in beats.items():
            if self._beats.get(session_id) == (number, listener):
                del self._beats[session_id]
            if session_id in written:
                self._echoes.sent(session_id, number, now=time.monotonic())
                listener.echo(session_id, number)
            elif (session := self._known.get(session_id)) and session_id not in self._hellos:
                # Ended, or lost with a restored database: opening it again tells which.
                self._hellos[session_id] = (session, listener)
                self._wake.set()

    async def _close_sessions(self) -> None:
        for session_id in list(self._byes):
            if await self._executors.close_session(session_id):
                log.info("session_closed", session_id=session_id)
            self._byes.discard(session_id)
