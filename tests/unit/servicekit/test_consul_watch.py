"""The watch over an agent that restarts, errs and lies; its answers are made up here."""

import asyncio
import itertools
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import httpx
import pytest

from servicekit.consul_client import open_consul
from servicekit.consul_watch import ConsulWatch
from servicekit.errors import Unavailable


class FakeAgent(httpx.AsyncBaseTransport):
    """Gives `answer` to every request and remembers what was asked."""

    def __init__(self) -> None:
        self.answer: httpx.Response | Exception = self.listing(1, [])
        # Where answers differ.
        self.make_answer: Callable[[], httpx.Response] | None = None
        self.asked: list[dict[str, str]] = []
        self.headers: list[httpx.Headers] = []
        self.read_timeouts: list[float] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(dict(request.url.params))
        self.headers.append(request.headers)
        self.read_timeouts.append(request.extensions["timeout"]["read"])
        if self.make_answer is not None:
            return self.make_answer()
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    @staticmethod
    def listing(index: int, entries: list[Any]) -> httpx.Response:
        return httpx.Response(200, json=entries, headers={"X-Consul-Index": str(index)})


def entry(service_id: str, port: int, host: str = "127.0.0.1", **meta: str) -> dict[str, Any]:
    service = {"ID": service_id, "Service": "x", "Address": host, "Port": port, "Meta": meta}
    return {"Node": {"Node": "n", "Address": "10.1.1.1"}, "Service": service, "Checks": []}


@pytest.fixture
def live() -> Iterator[list[socket.socket]]:
    """Sockets that take connections, as live replicas do."""
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(4)]
    yield listeners
    for listener in listeners:
        listener.close()


@pytest.fixture
def agent() -> FakeAgent:
    return FakeAgent()


@pytest.fixture
async def watch(agent: FakeAgent) -> AsyncIterator[ConsulWatch]:
    consul = open_consul("http://127.0.0.1:8500", "the-token", transport=agent)
    yield ConsulWatch(consul, "x")
    await consul.close()


def port_of(listener: socket.socket) -> int:
    port: int = listener.getsockname()[1]
    return port


def ids(watch: ConsulWatch) -> list[str]:
    return [endpoint.service_id for endpoint in watch.endpoints]


def entries(live: list[socket.socket]) -> list[dict[str, Any]]:
    return [entry(f"x-{number}", port_of(listener)) for number, listener in enumerate(live)]


async def test_those_whose_checks_fail_are_followed_as_well_if_that_is_wanted(agent: FakeAgent) -> None:
    consul = open_consul("http://127.0.0.1:8500", "the-token", transport=agent)
    await ConsulWatch(consul, "x", passing=False).follow()
    await consul.close()
    assert "passing" not in agent.asked[0]


async def test_the_passing_replicas_are_followed_by_blocking_queries(watch: ConsulWatch, agent: FakeAgent) -> None:
    agent.answer = agent.listing(7, [entry("x-1", 80, replica="1"), entry("x-0", 81, host="")])
    await watch.follow()
    await watch.follow()

    assert [(end.service_id, end.address, end.meta) for end in watch.endpoints] == [
        ("x-0", "10.1.1.1:81", {}),
        ("x-1", "127.0.0.1:80", {"replica": "1"}),
    ]
    assert [query.get("index") for query in agent.asked] == [None, "7"]
    assert agent.asked[1]["wait"] == "30s"
    assert agent.asked[0]["passing"]
    assert agent.headers[0]["X-Consul-Token"] == "the-token"
    assert agent.read_timeouts == [3.0, 3.0 + 30 * 17 / 16]


async def test_listeners_hear_of_changes_only(watch: ConsulWatch, agent: FakeAgent) -> None:
    heard: list[list[str]] = []
    watch.subscribe(lambda: heard.append(ids(watch)))
    for index, listed in enumerate([["x-1"], ["x-1"], ["x-1", "x-2"]], start=1):
        agent.answer = agent.listing(index, [entry(name, 80 + n) for n, name in enumerate(listed)])
        await watch.follow()
    assert heard == [["x-1"], ["x-1", "x-2"]]


async def test_an_index_that_goes_backwards_is_forgotten(watch: ConsulWatch, agent: FakeAgent) -> None:
    for index in (50, 3, 4, 0):
        agent.answer = agent.listing(index, [])
        await watch.follow()
    assert [query.get("index") for query in agent.asked] == [None, "50", None, "4"]


@pytest.mark.parametrize(
    "answer",
    [
        httpx.ConnectError("refused"),
        httpx.ReadTimeout("frozen"),
        httpx.Response(500, text="No cluster leader"),
        httpx.Response(403, text="ACL not found"),
        # The token has lost its rights: the list is right in form, and lacks what it may not show.
        httpx.Response(200, json=[], headers={"X-Consul-Index": "9", "X-Consul-Results-Filtered-By-ACLs": "true"}),
        httpx.Response(200, html="<html>It works!</html>", headers={"X-Consul-Index": "9"}),
        httpx.Response(200, html="<html>It works!</html>"),
        httpx.Response(200, json={"not": "a list"}, headers={"X-Consul-Index": "9"}),
        httpx.Response(200, json=[], headers={"X-Consul-Index": "many"}),
        httpx.Response(404),
    ],
    ids=str,
)
async def test_while_the_agent_errs_the_last_list_stays(
    watch: ConsulWatch, agent: FakeAgent, answer: httpx.Response | Exception
) -> None:
    agent.answer = agent.listing(9, [entry("x-1", 80)])
    await watch.follow()
    agent.answer = answer
    with pytest.raises(Unavailable) as caught:
        await watch.follow()
    assert caught.value.code == "registry_unavailable"
    assert ids(watch) == ["x-1"]

    agent.answer = agent.listing(2, [entry("x-1", 80)])
    await watch.follow()
    assert "index" not in agent.asked[-1]


async def test_an_empty_list_drops_nobody_who_takes_connections(
    watch: ConsulWatch, agent: FakeAgent, live: list[socket.socket]
) -> None:
    agent.answer = agent.listing(1, entries(live))
    await watch.follow()
    for index in (2, 3):
        agent.answer = agent.listing(index, [])
        await watch.follow()
    assert ids(watch) == ["x-0", "x-1", "x-2", "x-3"]
    assert agent.asked[-1]["wait"] == "2s"


async def test_wrong_addresses_drop_nobody_who_takes_connections(
    watch: ConsulWatch, agent: FakeAgent, live: list[socket.socket]
) -> None:
    agent.answer = agent.listing(1, entries(live[:2]))
    await watch.follow()
    agent.answer = agent.listing(2, [entry("x-0", 1), entry("x-1", 1)])
    await watch.follow()
    addresses = {endpoint.address for endpoint in watch.endpoints}
    assert {f"127.0.0.1:{port_of(listener)}" for listener in live[:2]} <= addresses


async def test_a_replica_that_moved_is_known_at_its_new_address_alone(
    watch: ConsulWatch, agent: FakeAgent, live: list[socket.socket]
) -> None:
    agent.answer = agent.listing(1, entries(live[:1]))
    await watch.follow()
    live[0].close()
    agent.answer = agent.listing(2, [entry("x-0", port_of(live[1]))])
    await watch.follow()
    assert [endpoint.address for endpoint in watch.endpoints] == [f"127.0.0.1:{port_of(live[1])}"]


@pytest.mark.parametrize("step", [0, -1], ids=["stays", "falls"])
async def test_an_agent_that_answers_at_once_without_news_is_not_asked_in_a_circle(
    watch: ConsulWatch, agent: FakeAgent, step: int
) -> None:
    indexes = iter(range(1000, 0, -1) if step else itertools.repeat(7))
    agent.make_answer = lambda: agent.listing(next(indexes), [entry("x-1", 80)])
    await watch.start()
    await asyncio.sleep(1.5)  # what is tested is that little happens meanwhile
    await watch.stop()
    assert len(agent.asked) <= 4


async def test_half_a_list_drops_only_those_who_are_gone(
    watch: ConsulWatch, agent: FakeAgent, live: list[socket.socket]
) -> None:
    listed = entries(live)
    agent.answer = agent.listing(1, listed)
    await watch.follow()
    live[3].close()
    agent.answer = agent.listing(2, listed[:2])
    await watch.follow()
    assert ids(watch) == ["x-0", "x-1", "x-2"]

    live[2].close()
    await watch.follow()
    assert ids(watch) == ["x-0", "x-1"]


async def test_a_list_that_lacks_a_few_is_believed(
    watch: ConsulWatch, agent: FakeAgent, live: list[socket.socket]
) -> None:
    listed = entries(live)
    agent.answer = agent.listing(1, listed)
    await watch.follow()
    agent.answer = agent.listing(2, listed[1:])
    await watch.follow()
    assert ids(watch) == ["x-1", "x-2", "x-3"]


async def test_who_is_listed_again_is_in_doubt_no_more(
    watch: ConsulWatch, agent: FakeAgent, live: list[socket.socket]
) -> None:
    for index, listed in enumerate([entries(live), [], entries(live)], start=1):
        agent.answer = agent.listing(index, listed)
        await watch.follow()
    agent.answer = agent.listing(4, entries(live)[1:])
    await watch.follow()
    assert ids(watch) == ["x-1", "x-2", "x-3"]


async def test_of_two_at_one_address_the_listed_one_counts(
    watch: ConsulWatch, agent: FakeAgent, live: list[socket.socket]
) -> None:
    agent.answer = agent.listing(1, [entry("x-old", port_of(live[0]))])
    await watch.follow()
    agent.answer = agent.listing(2, [entry("x-new", port_of(live[0]))])
    await watch.follow()
    assert ids(watch) == ["x-new"]


@pytest.mark.parametrize(
    "bad",
    [entry("x-9", 0), entry("x-9", 70000), {"Service": None}, {}, "text", None, {"Service": {"ID": "x-9", "Port": 1}}],
    ids=str,
)
async def test_entries_that_cannot_be_dialled_are_left_out(watch: ConsulWatch, agent: FakeAgent, bad: Any) -> None:
    agent.answer = agent.listing(1, [bad, entry("x-1", 80), entry("x-1", 80)])
    await watch.follow()
    assert ids(watch) == ["x-1"]


async def test_starting_without_an_agent_returns_and_goes_on_trying(watch: ConsulWatch, agent: FakeAgent) -> None:
    agent.answer = httpx.ConnectError("refused")
    changed = asyncio.Event()
    watch.subscribe(changed.set)
    await watch.start()
    assert watch.endpoints == ()
    agent.answer = agent.listing(1, [entry("x-1", 80)])
    await asyncio.wait_for(changed.wait(), 5)
    await watch.stop()
    assert ids(watch) == ["x-1"]
