"""A TCP link with faults. One event loop in a thread of its own serves all proxies of a test run.

Faults are set from any thread, at any time, and hold for present and new connections alike:

- `delay`, `jitter`: seconds that each piece of data waits, in both directions;
- `rate`: bytes per second;
- `blackhole_up`, `blackhole_down`: nothing is forwarded from or to the client, and all sockets stay open. TCP keeps
  what was sent: it arrives late when the fault ends, as after a network partition;
- `refuse`: new connections are reset at once;
- `lose_replies`: the next so many pieces of data from the server are dropped and their connections reset: the request
  was delivered, its outcome is unknown to the client;
- `lose_replies_with`: only pieces that hold these bytes are lost like that;
- `reset_part`: the probability that a piece of data is answered by a reset of its connection instead;
- `half_open`: the server is told nothing of clients that leave, and the other way round.

While nothing listens at the target, the proxy refuses connections as the target does; only the first one after the
target's end is accepted and reset, which is how the proxy learns of it.

`reset()` ends all present connections with RST. Random decisions come from `random.Random(seed)`.
"""

import asyncio
import contextlib
import random
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass

_PIECE = 64 * 1024
_LOOK_SECONDS = 0.01
_RESET = struct.pack("ii", 1, 0)


@dataclass(slots=True)
class Faults:
    delay: float = 0.0
    jitter: float = 0.0
    rate: float | None = None
    blackhole_up: bool = False
    blackhole_down: bool = False
    refuse: bool = False
    lose_replies: int = 0
    lose_replies_with: bytes = b""
    reset_part: float = 0.0
    half_open: bool = False


@dataclass(slots=True)
class Counters:
    connections: int = 0
    refused: int = 0
    resets: int = 0
    replies_lost: int = 0
    bytes_up: int = 0
    bytes_down: int = 0


class ProxyLoop:
    """The thread that serves proxies."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="proxies", daemon=True)
        self._thread.start()

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self._end_all(), self.loop).result(5)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(5)
        self.loop.close()

    async def _end_all(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Proxy:
    """One link: listens at `host:port`, dials `target` for each client."""

    def __init__(
        self, proxies: ProxyLoop, *, target: tuple[str, int], host: str = "127.0.0.1", port: int = 0, seed: int = 0
    ) -> None:
        self.faults = Faults()
        self.counters = Counters()
        self._target = target
        self._rng = random.Random(seed)
        self._loop = proxies.loop
        self._connections: set[_Connection] = set()
        self.host = host
        self._server = self._call(lambda: self._listen(port))
        self.port: int = self._server.sockets[0].getsockname()[1]
        self._waiting: asyncio.Task[None] | None = None

    @property
    def open_connections(self) -> int:
        return len(self._connections)

    def heal(self) -> None:
        """No faults from now on."""
        self.faults = Faults()

    def blackhole(self) -> None:
        """Forward nothing in either direction, and accept connections that then hear nothing."""
        self.faults = Faults(blackhole_up=True, blackhole_down=True)

    def reset(self) -> None:
        """End all present connections with RST on both sides."""

        async def end() -> None:
            for connection in list(self._connections):
                connection.reset()

        self._call(end)

    def close(self) -> None:
        async def end() -> None:
            if self._waiting is not None:
                self._waiting.cancel()
            self._server.close()
            for connection in list(self._connections):
                connection.reset()

        self._call(end)

    def _call(self, make: Callable[[], object]) -> "asyncio.Server":
        return asyncio.run_coroutine_threadsafe(make(), self._loop).result(10)  # type: ignore[arg-type]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.counters.connections += 1
        if self.faults.refuse:
            self.counters.refused += 1
            _reset(writer)
            return
        connection = _Connection(self, writer)
        self._connections.add(connection)
        try:
            await connection.run(reader, self._target)
        except (OSError, asyncio.IncompleteReadError):
            connection.reset()
        finally:
            self._connections.discard(connection)

    async def _listen(self, port: int) -> asyncio.Server:
        return await asyncio.start_server(self._serve, self.host, port, backlog=512)

    def target_refuses(self) -> None:
        """Listen no more until the target does."""
        if self._waiting is None or self._waiting.done():
            self._server.close()
            self._waiting = asyncio.create_task(self._wait_for_target())

    async def _wait_for_target(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            with contextlib.suppress(OSError):
                _, probe = await asyncio.open_connection(*self._target)
                probe.close()
                self._server = await self._listen(self.port)
                return

    async def pass_on(self, piece: bytes, *, up: bool) -> bool:
        """Wait as the faults say; False if the connection is to be reset instead of carrying `piece`."""
        faults = self.faults
        if faults.delay or faults.jitter:
            await asyncio.sleep(max(0.0, faults.delay + faults.jitter * self._rng.uniform(-1, 1)))
        if faults.rate:
            await asyncio.sleep(len(piece) / faults.rate)
        await _while(lambda: self.faults.blackhole_up if up else self.faults.blackhole_down)
        if self.faults.reset_part and self._rng.random() < self.faults.reset_part:
            self.counters.resets += 1
            return False
        if not up and self.faults.lose_replies > 0 and self.faults.lose_replies_with in piece:
            self.faults.lose_replies -= 1
            self.counters.replies_lost += 1
            return False
        if up:
            self.counters.bytes_up += len(piece)
        else:
            self.counters.bytes_down += len(piece)
        return True


class _Connection:
    def __init__(self, proxy: Proxy, client: asyncio.StreamWriter) -> None:
        self._proxy = proxy
        self._writers = [client]

    async def run(self, reader: asyncio.StreamReader, target: tuple[str, int]) -> None:
        await _while(lambda: self._proxy.faults.blackhole_up)
        try:
            server_reader, server = await asyncio.open_connection(*target)
        except OSError as error:
            self.reset()
            if isinstance(error, ConnectionRefusedError):
                self._proxy.target_refuses()
            return
        self._writers.append(server)
        client = self._writers[0]
        await asyncio.gather(self._pump(reader, server, up=True), self._pump(server_reader, client, up=False))
        for writer in self._writers:
            writer.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, up: bool) -> None:
        while piece := await reader.read(_PIECE):
            if not await self._proxy.pass_on(piece, up=up):
                self.reset()
                return
            writer.write(piece)
            await writer.drain()
        await _while(lambda: self._proxy.faults.half_open)
        with contextlib.suppress(OSError):
            writer.write_eof()

    def reset(self) -> None:
        for writer in self._writers:
            _reset(writer)


async def _while(condition: Callable[[], bool]) -> None:
    """Wait as long as a fault holds, which is set in another thread."""
    while condition():  # noqa: ASYNC110
        await asyncio.sleep(_LOOK_SECONDS)


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close so that the peer gets RST, not FIN."""
    with contextlib.suppress(OSError):
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()
