"""The proxy breaks links as it says: what it delays comes late and in order, and is not slowed down."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from tests.faults.harness.proxy import Faults, Proxy, ProxyLoop
from tests.support.waiting import wait_until

pytestmark = pytest.mark.quick


@pytest.fixture
def proxies() -> Iterator[ProxyLoop]:
    loop = ProxyLoop()
    yield loop
    loop.close()


@pytest_asyncio.fixture
async def link(proxies: ProxyLoop) -> AsyncIterator[Proxy]:
    """A link to a server that sends back what it gets."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
            writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    proxy = Proxy(proxies, target=("127.0.0.1", server.sockets[0].getsockname()[1]), seed=1)
    yield proxy
    proxy.close()
    server.close()


async def dial(link: Proxy) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection(link.host, link.port)


async def test_it_passes_everything_on(link: Proxy) -> None:
    reader, writer = await dial(link)
    data = bytes(range(256)) * 4096
    writer.write(data)
    writer.write_eof()
    assert await reader.read() == data
    assert link.counters.bytes_up == link.counters.bytes_down == len(data)
    writer.close()


async def test_a_delay_is_latency_and_no_limit_to_the_rate(link: Proxy) -> None:
    link.faults = Faults(delay=0.1, jitter=0.05)
    reader, writer = await dial(link)
    began = time.monotonic()
    for number in range(50):
        writer.write(b"%04d" % number)
        await writer.drain()
        await asyncio.sleep(0.01)  # so that each is a piece of its own
    assert await reader.readexactly(200) == b"".join(b"%04d" % number for number in range(50))
    taken = time.monotonic() - began
    assert 0.1 < taken < 3, "one after the other they would have taken 10 s"
    writer.close()


async def test_what_a_blackhole_holds_back_comes_when_it_ends(link: Proxy) -> None:
    reader, writer = await dial(link)
    link.blackhole()
    writer.write(b"late")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(reader.readexactly(4), 0.2)
    link.heal()
    assert await asyncio.wait_for(reader.readexactly(4), 5) == b"late"
    writer.close()


async def test_a_lost_reply_is_a_reset_after_the_request_has_arrived(link: Proxy) -> None:
    reader, writer = await dial(link)
    link.faults = Faults(lose_replies=1)
    writer.write(b"request")
    with pytest.raises(ConnectionResetError):
        await asyncio.wait_for(reader.readexactly(1), 5)
    assert (link.counters.bytes_up, link.counters.replies_lost) == (7, 1)
    writer.close()


async def test_reset_ends_what_is_open_and_lets_in_what_is_new(link: Proxy) -> None:
    reader, writer = await dial(link)
    writer.write(b"x")
    await reader.readexactly(1)
    link.reset()
    with pytest.raises(ConnectionResetError):
        await asyncio.wait_for(reader.readexactly(1), 5)
    await wait_until(lambda: link.open_connections == 0)
    again, other = await dial(link)
    other.write(b"y")
    assert await asyncio.wait_for(again.readexactly(1), 5) == b"y"
    writer.close()
    other.close()


async def test_a_fault_of_one_connection_leaves_the_others_alone(link: Proxy) -> None:
    reader, writer = await dial(link)
    others = [await dial(link)]
    writer.write(b"x")
    await reader.readexactly(1)
    connection = link.connection(writer.get_extra_info("sockname")[1])
    assert connection is not None
    connection.faults.blackhole_down = True
    writer.write(b"late")
    others.append(await dial(link))
    for other_reader, other in others:
        other.write(b"y")
        assert await asyncio.wait_for(other_reader.readexactly(1), 5) == b"y"
        other.close()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(reader.readexactly(1), 0.2)
    link.heal()
    assert await asyncio.wait_for(reader.readexactly(4), 5) == b"late"
    connection.faults.lose_replies = 1
    writer.write(b"lost")
    with pytest.raises(ConnectionResetError):
        await asyncio.wait_for(reader.readexactly(1), 5)
    writer.close()
