"""A TCP link with faults. One event loop in a thread of its own serves all proxies of a test run.

Faults are set from any thread, at any time, and hold for present and new connections alike:

- `delay`, `jitter`: seconds that each piece of data is under way, in both directions; others follow it meanwhile;
- `rate`: bytes per second;
- `blackhole_up`, `blackhole_down`: nothing is forwarded from or to the client, and all sockets stay open. TCP keeps
  what was sent: it arrives late when the fault ends, as after a network partition;
- `refuse`: new connections are reset at once;
- `lose_replies`: the next so many pieces of data from the server are dropped and their connections reset: the request
  was delivered, its outcome is unknown to the client;
- `lose_replies_with`: only pieces that hold these bytes are lost like that;
- `lose_replies_part`: the probability that a piece of data from the server is lost like that;
- `reset_part`: the probability that a piece of data is answered by a reset of its connection instead;
- `half_open`: the server is told nothing of clients that leave, and the other way round.

While nothing listens at the target, the proxy refuses connections as the target does; only the first one after the
target's end is accepted and reset, which is how the proxy learns of it.

`reset()` ends all present connections with RST. `Proxy.connection(port)` is one of the present connections, with faults
of its own beside those of the link: what is dialled after it works. Random decisions come from `random.Random(seed)`.
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
# So many pieces may be under way on a connection; then its sender has to wait.
_UNDER_WAY_MAX = 1024
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
    lose_replies_part: float = 0.0
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
        # What was aborted is closed by the loop in its next round.
        await asyncio.sleep(0)


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
        self._connections: set[Connection] = set()
        self.host = host
        self._server = self._call(lambda: self._listen(port))
        self.port: int = self._server.sockets[0].getsockname()[1]
        self._waiting: asyncio.Task[None] | None = None

    @property
    def open_connections(self) -> int:
        return len(self._connections)

    def connection(self, port: int) -> "Connection | None":
        """The present connection whose client dialled from `port`, or whose server sees `port` as its client's."""
        return next((connection for connection in list(self._connections) if port in connection.ports), None)

    def heal(self) -> None:
        """No faults from now on."""
        self.faults = Faults()
        for connection in list(self._connections):
            connection.faults = Faults()

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
        connection = Connection(self, writer)
        self._connections.add(connection)
        try:
            await connection.run(reader, self._target)
        except (OSError, asyncio.IncompleteReadError):
            connection.reset()
        except BaseException:  # cancelled: the way to the server may have opened after everything was reset
            connection.reset()
            raise
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

    def latency(self) -> float:
        """How long a piece of data that comes now is under way."""
        faults = self.faults
        if not faults.delay and not faults.jitter:
            return 0.0
        return max(0.0, faults.delay + faults.jitter * self._rng.uniform(-1, 1))

    async def pass_on(self, piece: bytes, connection: "Connection", *, up: bool) -> bool:
        """Wait as the faults say; False if the connection is to be reset instead of carrying `piece`."""
        if self.faults.rate:
            await asyncio.sleep(len(piece) / self.faults.rate)
        await _while(lambda: self._swallows(connection, up=up))
        if self.faults.reset_part and self._rng.random() < self.faults.reset_part:
            self.counters.resets += 1
            return False
        if not up and self._loses(piece, connection):
            self.counters.replies_lost += 1
            return False
        if up:
            self.counters.bytes_up += len(piece)
        else:
            self.counters.bytes_down += len(piece)
        return True

    def _loses(self, piece: bytes, connection: "Connection") -> bool:
        for faults in (self.faults, connection.faults):
            if faults.lose_replies > 0 and faults.lose_replies_with in piece:
                faults.lose_replies -= 1
                return True
        return self.faults.lose_replies_part > 0 and self._rng.random() < self.faults.lose_replies_part

    def _swallows(self, connection: "Connection", *, up: bool) -> bool:
        both = (self.faults, connection.faults)
        return any(faults.blackhole_up if up else faults.blackhole_down for faults in both)


class Connection:
    """One client and its way to the server."""

    def __init__(self, proxy: Proxy, client: asyncio.StreamWriter) -> None:
        self.faults = Faults()
        self._proxy = proxy
        self._writers = [client]
        self.ports = {client.get_extra_info("peername")[1]}

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
        self.ports.add(server.get_extra_info("sockname")[1])
        client = self._writers[0]
        await asyncio.gather(self._pump(reader, server, up=True), self._pump(server_reader, client, up=False))
        for writer in self._writers:
            writer.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, up: bool) -> None:
        under_way: asyncio.Queue[tuple[float, bytes] | None] = asyncio.Queue(_UNDER_WAY_MAX)
        delivery = asyncio.create_task(self._deliver(under_way, writer, up=up))
        now = asyncio.get_running_loop().time
        try:
            while piece := await reader.read(_PIECE):
                await under_way.put((now() + self._proxy.latency(), piece))
        except OSError:
            self.reset()
        except asyncio.CancelledError:
            delivery.cancel()
            raise
        await under_way.put(None)
        await delivery

    async def _deliver(
        self, under_way: "asyncio.Queue[tuple[float, bytes] | None]", writer: asyncio.StreamWriter, *, up: bool
    ) -> None:
        """Write what comes until None; what comes after a reset is dropped."""
        now = asyncio.get_running_loop().time
        whole = True
        while (item := await under_way.get()) is not None:
            due, piece = item
            if (wait := due - now()) > 0:
                await asyncio.sleep(wait)
            try:
                whole = whole and await self._proxy.pass_on(piece, self, up=up)
                if whole:
                    writer.write(piece)
                    await writer.drain()
            except OSError:
                whole = False
            if not whole:
                self.reset()
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
