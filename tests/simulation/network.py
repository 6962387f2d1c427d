"""Dispatch streams in memory: order is kept within a stream, and nothing else is promised."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextvars import Context
from random import Random
from typing import Protocol, cast

import grpc

from execution_service.rpc.servicer import Context as ServicerContext
from headrace.v1 import execution_pb2 as pb
from servicekit.errors import HeadraceError
from tests.simulation.virtual_time import Process, VirtualLoop

_DELAYED_PART = 0.02


class Servicer(Protocol):
    """What answers at an address."""

    async def Dispatch(self, request_iterator: AsyncIterator[pb.DispatchRequest], context: ServicerContext) -> None: ...


class Network:
    """All streams. A message takes a millisecond or two, and now and then up to `delay_max`."""

    def __init__(self, loop: VirtualLoop, rng: Random) -> None:
        self.loop = loop
        self.delay_max = 0.0
        self.listeners: dict[str, tuple[Process, Servicer]] = {}
        # In the order of their making, unlike a set: a seed plays the same way every time.
        self.streams: dict[Stream, None] = {}
        self._cuts: set[tuple[Process, str]] = set()
        self._rng = rng

    def dial(self, client: Process, address: str) -> "Stream":
        stream = Stream(self, client, address)
        stream.cut = (client, address) in self._cuts
        self.streams[stream] = None
        stream.connect()
        return stream

    def cut(self, client: Process, address: str) -> None:
        """Nothing passes between these two any more, and neither is told."""
        self._cuts.add((client, address))
        for stream in self._between(client, address):
            stream.cut = True

    def heal(self) -> None:
        """What was held up arrives after all."""
        self._cuts.clear()
        for stream in list(self.streams):
            stream.heal()

    def reset(self, client: Process, address: str) -> None:
        """Both sides are told that their streams ended; what was under way is lost."""
        for stream in self._between(client, address):
            stream.reset()

    def process_died(self, process: Process) -> None:
        self.listeners = {address: entry for address, entry in self.listeners.items() if entry[0] is not process}
        for stream in [stream for stream in self.streams if process in (stream.client, stream.server)]:
            stream.reset()

    def hop_seconds(self) -> float:
        extra = self._rng.uniform(0, self.delay_max) if self._rng.random() < _DELAYED_PART else 0.0
        return self._rng.uniform(0.0005, 0.002) + extra

    def _between(self, client: Process, address: str) -> list["Stream"]:
        return [stream for stream in self.streams if stream.client is client and stream.address == address]


class Stream:
    """One call of Dispatch. To the client it is grpc.aio's call, to the servicer its context."""

    def __init__(self, network: Network, client: Process, address: str) -> None:
        self.address = address
        self.client = client
        self.server: Process | None = None
        self.cut = False
        self._network = network
        self._error: str | None = None
        self._ended = False
        self._to_client: asyncio.Queue[pb.DispatchResponse | None] = asyncio.Queue()
        self._to_server: asyncio.Queue[pb.DispatchRequest | None] = asyncio.Queue()
        # When the last message arrives, by direction: the next one does not overtake it.
        self._arrivals = {"server": 0.0, "client": 0.0}
        self._held_up: list[tuple[str, Callable[[], None]]] = []

    def connect(self) -> None:
        self._travel("server", self._accept)

    # The client's side.

    async def read(self) -> object:
        message = await self._to_client.get()
        if message is not None:
            return message
        if self._error:
            raise grpc.aio.AioRpcError(
                grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), grpc.aio.Metadata(), details=self._error
            )
        return grpc.aio.EOF

    async def write(self, message: pb.DispatchRequest | pb.DispatchResponse) -> None:
        """A message of either side: its type says where it goes."""
        await asyncio.sleep(0)
        if isinstance(message, pb.DispatchRequest):
            request = message
            self._travel("server", lambda: self._to_server.put_nowait(request))
        else:
            response = message
            self._travel("client", lambda: self._to_client.put_nowait(response))

    def cancel(self) -> None:
        self._travel("server", self._end)

    # What befalls it.

    def reset(self) -> None:
        self._error = self._error or "connection reset"
        self._to_client.put_nowait(None)
        self._end()

    def heal(self) -> None:
        self.cut, held_up = False, self._held_up
        self._held_up = []
        for side, arrive in held_up:
            self._travel(side, arrive)

    def _accept(self) -> None:
        listener = self._network.listeners.get(self.address)
        if listener is None:
            self._error = "connection refused"
            self._travel("client", self.reset)
            return
        self.server, servicer = listener
        self.server.spawn(self._serve(servicer))

    async def _serve(self, servicer: Servicer) -> None:
        # An error that gRPC would send: the client hears that the stream has ended.
        with contextlib.suppress(HeadraceError):
            await servicer.Dispatch(self._requests(), cast("ServicerContext", self))
        self._travel("client", lambda: self._to_client.put_nowait(None))

    async def _requests(self) -> AsyncIterator[pb.DispatchRequest]:
        while (message := await self._to_server.get()) is not None:
            yield message

    def _end(self) -> None:
        self._ended = True
        self._network.streams.pop(self, None)
        self._to_server.put_nowait(None)

    def _travel(self, side: str, arrive: Callable[[], None]) -> None:
        loop = self._network.loop
        # Later than the one before, since timers of the same time come in any order.
        at = max(self._arrivals[side] + 1e-6, loop.time() + self._network.hop_seconds())
        self._arrivals[side] = at
        loop.call_at(at, self._arrive, side, arrive, context=Context())

    def _arrive(self, side: str, arrive: Callable[[], None]) -> None:
        if self.cut:
            self._held_up.append((side, arrive))
        elif not self._ended:
            arrive()
