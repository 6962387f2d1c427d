"""Calls to a service with many replicas: balanced, and repeated on another replica when one does not answer."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeVar

import grpc
import structlog

from servicekit.discovery import ServiceWatch
from servicekit.errors import HeadraceError, Unavailable, error_from_rpc
from servicekit.grpc_channel import DEFAULT_MESSAGE_BYTES, open_channel

log = structlog.stdlib.get_logger(__name__)

Stub = TypeVar("Stub")

_AVOID_SECONDS_MIN, _AVOID_SECONDS_MAX = 0.2, 5.0
_ROUND_PAUSE_SECONDS = 0.1
# Calls in progress on a replica that left may end by themselves.
_CLOSE_GRACE_SECONDS = 30.0
_TRY_ANOTHER = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)


class _Replica(Generic[Stub]):
    def __init__(self, address: str, channel: grpc.aio.Channel, stub: Stub) -> None:
        self.address = address
        self.channel = channel
        self.stub = stub
        self.calls = 0
        self.failures = 0
        self.avoided_until = 0.0

    def note_success(self) -> None:
        self.failures = 0
        self.avoided_until = 0.0

    def note_failure(self) -> None:
        self.failures += 1
        pause = min(_AVOID_SECONDS_MIN * 2.0 ** min(self.failures - 1, 16), _AVOID_SECONDS_MAX)
        self.avoided_until = time.monotonic() + pause * random.uniform(0.5, 1.0)


class ReplicaPool(Generic[Stub]):
    """One channel for each replica that `watch` knows. Must be made inside the running event loop."""

    def __init__(
        self,
        watch: ServiceWatch,
        stub_factory: Callable[[grpc.aio.Channel], Stub],
        *,
        max_message_bytes: int = DEFAULT_MESSAGE_BYTES,
    ) -> None:
        self._watch = watch
        self._stub_factory = stub_factory
        self._max_message_bytes = max_message_bytes
        self._replicas: dict[str, _Replica[Stub]] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._closed = False
        watch.subscribe(self._follow_watch)
        self._follow_watch()

    @property
    def addresses(self) -> tuple[str, ...]:
        return tuple(self._replicas)

    def stub_for(self, address: str) -> Stub:
        """The stub of one replica, for calls that only it can answer. Unavailable when it is not known (any more)."""
        replica = self._replicas.get(address)
        if replica is None:
            raise Unavailable(f"no replica at {address}", code="no_replica")
        return replica.stub

    async def call(
        self,
        method: Callable[[Stub], Callable[..., Awaitable[Any]]],
        request: Any,
        timeout: float = 2.0,
        *,
        once: bool = False,
    ) -> Any:
        """Call `method` of some replica, for example `call(lambda stub: stub.GetTask, request)`.

        The call must be idempotent: a replica that is away, or lets more than half of the time pass, is left for
        another one, and may have done it all the same. With `once` it is not repeated. Raises the HeadraceError that the replica answered with,
        Unavailable when there is no replica that answers, DeadlineExceeded after `timeout` seconds.
        """
        deadline = time.monotonic() + timeout
        tried: set[str] = set()
        while True:
            replica = self._pick(tried)
            try:
                share = timeout if once else self._share_of_time(deadline, tried)
                return await self._try(replica, method, request, share)
            except grpc.aio.AioRpcError as rpc_error:
                error = error_from_rpc(rpc_error)
                if once or rpc_error.code() not in _TRY_ANOTHER:
                    raise error from rpc_error
                log.debug("replica_failed", address=replica.address, code=error.code, reason=error.message)
            if not self._untried(tried):
                await self._pause_before_next_round(deadline, error)
                tried.clear()
            elif time.monotonic() >= deadline:
                raise error

    async def close(self) -> None:
        """Close all channels; calls in progress fail."""
        self._closed = True
        for replica in self._replicas.values():
            await replica.channel.close()
        self._replicas.clear()
        for task in self._closing:
            task.cancel()
        await asyncio.gather(*self._closing, return_exceptions=True)

    async def _try(
        self,
        replica: _Replica[Stub],
        method: Callable[[Stub], Callable[..., Awaitable[Any]]],
        request: Any,
        timeout: float,
    ) -> Any:
        replica.calls += 1
        try:
            response = await method(replica.stub)(request, timeout=timeout)
        except grpc.aio.AioRpcError as error:
            if error.code() in _TRY_ANOTHER:
                replica.note_failure()
            else:
                replica.note_success()
            raise
        finally:
            replica.calls -= 1
        replica.note_success()
        return response

    def _pick(self, tried: set[str]) -> _Replica[Stub]:
        """The replica with the fewest calls in progress; one that failed lately only when there is no other."""
        untried = self._untried(tried)
        if not untried:
            raise Unavailable("no replica is known", code="no_replica", retry_after=1.0)
        now = time.monotonic()
        replica = min(untried, key=lambda r: (max(r.avoided_until - now, 0.0), r.calls, random.random()))
        tried.add(replica.address)
        return replica

    def _untried(self, tried: set[str]) -> list[_Replica[Stub]]:
        return [replica for address, replica in self._replicas.items() if address not in tried]

    def _share_of_time(self, deadline: float, tried: set[str]) -> float:
        """Half of what is left while others could answer instead: a frozen replica must not use up all of it."""
        left = max(deadline - time.monotonic(), 0.001)
        return left / 2 if self._untried(tried) else left

    async def _pause_before_next_round(self, deadline: float, error: HeadraceError) -> None:
        """Raises `error` when a further round has no time, or no sense: a replica said itself what is wrong."""
        pause = _ROUND_PAUSE_SECONDS * random.uniform(0.5, 1.0)
        said_by_replica = error.code != error.default_code
        if said_by_replica or time.monotonic() + pause >= deadline:
            raise error
        await asyncio.sleep(pause)

    def _follow_watch(self) -> None:
        if self._closed:
            return
        known = {endpoint.address for endpoint in self._watch.endpoints}
        for address in known - self._replicas.keys():
            channel = open_channel(address, max_message_bytes=self._max_message_bytes)
            self._replicas[address] = _Replica(address, channel, self._stub_factory(channel))
        for address in self._replicas.keys() - known:
            task = asyncio.create_task(self._replicas.pop(address).channel.close(_CLOSE_GRACE_SECONDS))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
