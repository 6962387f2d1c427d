"""A registry in the place of the cluster's own that tells lies about who is there, as long as a test wants it to."""

import asyncio
import itertools
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from http import HTTPStatus
from types import TracebackType
from typing import Any, Self

from headrace.local.registry.agent import Agent
from headrace.local.registry.api import ConsulApi
from headrace.local.registry.http_server import HttpServer, Request, Response, text_response
from tests.faults.harness.stack import Stack
from tests.support.waiting import wait_until

# Makes another list of the list of a service's passing replicas.
Doctor = Callable[[list[dict[str, Any]]], list[dict[str, Any]]]
Nonsense = Callable[[], Response]
IndexDoctor = Callable[[int], int]

_HEALTH = "/v1/health/service/"
_INDEX = "X-Consul-Index"
# Services look every 5 s whether they are still registered.
_REGISTERED_AGAIN_SECONDS = 15.0


class LyingRegistry:
    """Use it as an async context; it takes the cluster's registry away, and waits until all have registered here."""

    def __init__(self, stack: Stack) -> None:
        # What is done to lists, and what answers that are none look like. None: the truth.
        self.doctor: Doctor | None = None
        self.nonsense: Response | None = None
        # What is done to the index of an answer; such answers come at once.
        self.index: IndexDoctor | None = None
        # Questions about a service that came since the last look, by service.
        self.asked: Counter[str] = Counter()
        self._news = asyncio.Event()
        self._stack = stack
        self._agent = Agent()
        self._api = ConsulApi(self._agent)
        self._server = HttpServer(self._answer)

    async def __aenter__(self) -> Self:
        self._stack.kill("consul")
        self._agent.start()
        await self._server.start("127.0.0.1", self._stack.port("consul"))
        names = {name for role in ("gateway", "management", "execution") for name in self._stack.names(role)}

        def are_registered() -> bool:
            services = self._agent.catalog.services()
            return names <= {service.definition.meta.get("replica") for service in services}

        await wait_until(are_registered, timeout=_REGISTERED_AGAIN_SECONDS)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._server.stop()
        await self._agent.stop()

    def wake(self) -> None:
        """Answer all that wait for news, as after a change."""
        self._news.set()
        self._news = asyncio.Event()

    async def _answer(self, request: Request) -> Response:
        if not (request.path.startswith(_HEALTH) and request.query.get("passing")):
            return await self._api.answer(request)
        self.asked[request.path.removeprefix(_HEALTH)] += 1
        if self.doctor is not None or self.nonsense is not None:
            await asyncio.sleep(0.2)
        elif self.index is None and (answer := await self._truth(request)) is not None:
            return answer
        # A liar always has news.
        request = replace(request, query={key: value for key, value in request.query.items() if key != "index"})
        answer = await self._api.answer(request)
        if self.nonsense is not None:
            return self.nonsense
        if self.doctor is not None:
            answer = replace(answer, body=json.dumps(self.doctor(json.loads(answer.body))).encode())
        if self.index is not None:
            index = str(self.index(int(answer.headers[_INDEX])))
            answer = replace(answer, headers={**answer.headers, _INDEX: index})
        return answer

    async def _truth(self, request: Request) -> Response | None:
        """The answer of an honest registry, None if we are woken before it comes."""
        honest = asyncio.ensure_future(self._api.answer(request))
        news = asyncio.create_task(self._news.wait())
        done, pending = await asyncio.wait((honest, news), return_when=asyncio.FIRST_COMPLETED)
        for task in pending:
            task.cancel()
        return honest.result() if honest in done else None


def as_it_is(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return entries


def nothing(_: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return []


def half(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return entries[: len(entries) // 2]


def doubled(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return entries + entries


def with_dead_ones(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Entries of replicas that are not there, before those that are."""
    dead = [_altered(entry, ID=f"dead-{number}", Port=1) for number, entry in enumerate(entries)]
    return dead + entries


def with_wrong_ports(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [_altered(entry, Port=1) for entry in entries]


def server_error() -> Response:
    return text_response("rpc error: No cluster leader", HTTPStatus.INTERNAL_SERVER_ERROR)


def web_page() -> Response:
    return text_response("<html><body>Sign in to continue</body></html>")


def falling() -> IndexDoctor:
    """An index that falls with every answer."""
    numbers = itertools.count(1_000_000, -1)
    return lambda _: next(numbers)


def standing() -> IndexDoctor:
    """An index that stays where it is."""
    return lambda _: 5


def _altered(entry: dict[str, Any], **fields: object) -> dict[str, Any]:
    return {**entry, "Service": {**entry["Service"], **fields}}
