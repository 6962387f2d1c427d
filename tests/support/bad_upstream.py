"""A server on loopback that answers as no API should: each path is one way to misbehave."""

import asyncio
import contextlib
import gzip
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

HOST = "127.0.0.1"
NAME = "api.example.org"
CERTIFICATE = Path(__file__).with_name(f"{NAME}.pem")

GOOD = b'{"ok": true}'
BOMB_BYTES = 64 * 1024 * 1024
_BOMB = gzip.compress(bytes(BOMB_BYTES), mtime=0)
_DRIP_SECONDS = 0.02

Writer = asyncio.StreamWriter
Misbehaviour = Callable[[Writer], Awaitable[None]]


class BadUpstream:
    """The server, with what it saw: how many connections, and the heads of the requests."""

    def __init__(self, *, tls: bool, host: str, port: int) -> None:
        self.connections = 0
        self.heads: list[str] = []
        self.server_names: list[str | None] = []
        self.host = host
        self.port = port
        self._scheme = "https" if tls else "http"
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def connections_open(self) -> int:
        """How many connections have not ended."""
        return len(self._tasks)

    def url(self, path: str = "/good", *, host: str = "") -> str:
        """Return the URL of one way to misbehave; `host` is another name of this machine."""
        return f"{self._scheme}://{host or self.host}:{self.port}{path}"

    async def start(self) -> None:
        """Begin to serve, on a free port unless one was given."""
        context = None
        if self._scheme == "https":
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.load_cert_chain(CERTIFICATE)
            context.sni_callback = lambda _socket, name, _context: self.server_names.append(name)
        self._server = await asyncio.start_server(self._serve, self.host, self.port, ssl=context)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """End every connection, whatever it is about to do."""
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: Writer) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        # Whoever talks to this server may hang up at any time, and the test may end.
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                self.heads.append(head)
                path = head.split(" ")[1]
                await _misbehave(path, writer)
                if not path.startswith(("/good", "/redirect")):
                    break
        writer.close()
        with contextlib.suppress(OSError, asyncio.CancelledError):
            await writer.wait_closed()


@contextlib.asynccontextmanager
async def bad_upstream(*, tls: bool = False, host: str = HOST, port: int = 0) -> AsyncIterator[BadUpstream]:
    """Run a server for one block; with `tls` it has a certificate of NAME that nobody trusts."""
    server = BadUpstream(tls=tls, host=host, port=port)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


async def _misbehave(path: str, writer: Writer) -> None:
    url = urlsplit(path)
    match url.path.strip("/").split("/"):
        case ["redirect", *_]:
            _answer(writer, b"", status="302 Found", headers=f"Location: {unquote(parse_qs(url.query)['to'][0])}\r\n")
        case ["redirects", count]:
            where = f"/redirects/{int(count) - 1}" if count != "1" else "/good"
            _answer(writer, b"", status="307 Temporary Redirect", headers=f"Location: {where}\r\n")
        case ["status", code, *_]:
            _answer(writer, b'{"error":true,"reason":"It is Monday."}', status=f"{code} Whatever")
        case [name]:
            await _WAYS[name](writer)
    await writer.drain()


def _answer(
    writer: Writer, body: bytes, *, status: str = "200 OK", headers: str = "", length: int | None = None
) -> None:
    size = len(body) if length is None else length
    writer.write(f"HTTP/1.1 {status}\r\nContent-Length: {size}\r\n{headers}\r\n".encode("latin-1") + body)


def _always(body: bytes, *, headers: str = "", length: int | None = None) -> Misbehaviour:
    async def answer(writer: Writer) -> None:
        _answer(writer, body, headers=headers, length=length)

    return answer


def _raw(content: bytes) -> Misbehaviour:
    async def answer(writer: Writer) -> None:
        writer.write(content)

    return answer


def _gzipped(body: bytes, coding: str = "gzip") -> Misbehaviour:
    return _always(body, headers=f"Content-Encoding: {coding}\r\n")


async def _endless(writer: Writer) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        writer.write(b"10000\r\n" + b" " * 0x10000 + b"\r\n")
        await writer.drain()


async def _endless_interim(writer: Writer) -> None:
    while True:
        writer.write(b"HTTP/1.1 103 Early Hints\r\n\r\n")
        await writer.drain()
        await asyncio.sleep(0)


async def _silent(writer: Writer) -> None:
    await asyncio.Event().wait()


async def _drip(writer: Writer) -> None:
    _answer(writer, b"", length=1000)
    await _drop_by_drop(writer)


async def _drip_head(writer: Writer) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    await _drop_by_drop(writer)


async def _drop_by_drop(writer: Writer) -> None:
    while True:
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(_DRIP_SECONDS)


async def _reset(writer: Writer) -> None:
    # Closing with a linger time of zero sends RST.
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def _nothing(writer: Writer) -> None:
    """Close without a word."""


_WAYS: dict[str, Misbehaviour] = {
    "good": _always(GOOD),
    "gzip": _gzipped(gzip.compress(GOOD, mtime=0)),
    "bomb": _gzipped(_BOMB),
    "double-bomb": _gzipped(gzip.compress(_BOMB, mtime=0), "gzip, gzip"),
    "half-gzip": _gzipped(gzip.compress(GOOD, mtime=0)[:-9]),
    "no-gzip": _gzipped(GOOD),
    "tail-gzip": _gzipped(gzip.compress(GOOD, mtime=0) + b"more"),
    "brotli": _gzipped(GOOD, "br"),
    "endless": _endless,
    "endless-interim": _endless_interim,
    "huge": _always(GOOD, length=10**9),
    "large": _always(b" " * (2 * 1024 * 1024) + GOOD),
    "long": _always(GOOD, length=len(GOOD) + 1),
    "short": _always(GOOD, length=len(GOOD) - 1),
    "negative": _raw(b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n" + GOOD),
    "chunks": _raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n"),
    "headers": _raw(b"HTTP/1.1 200 OK\r\n" + b"X-Many: 0123456789\r\n" * 10_000 + b"\r\n"),
    "no-head": _raw(GOOD),
    "banner": _raw(b"SSH-2.0-OpenSSH_9.9\r\n"),
    "silent": _silent,
    "drip": _drip,
    "drip-head": _drip_head,
    "reset": _reset,
    "close": _nothing,
    "html": _always(b"<html>maintenance</html>", headers="Content-Type: text/html\r\n"),
    "latin-1": _always('{"ok": true, "name": "Zürich"}'.encode("latin-1")),
    "utf-16": _always('{"ok": true}'.encode("utf-16")),
    "deep": _always(b"[" * 200_000),
    "nan": _always(b'{"ok": NaN}'),
    "digits": _always(b'{"ok": ' + b"9" * 10_000 + b"}"),
    "exponent": _always(b'{"ok": 1e99999999999999999999}'),
    "list": _always(b"[]"),
    "other": _always(b'{"ok": "perhaps"}'),
}

WAYS = frozenset(_WAYS)
