"""What the types that ask APIs refuse, and what of the web reaches them. Ids T.. are those of docs/tasks.md."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from execution_service.handlers import BUILTIN_MODULES
from execution_service.workers.environment import worker_environment
from execution_service.workers.outcomes import Finished, Outcome, PoolSize
from headrace.recorded_apis import recorded_apis
from tests.integration.handlers.conftest import Counter
from tests.support.bad_upstream import BadUpstream, bad_upstream
from tests.support.worker_bench import running_bench

pytestmark = pytest.mark.asyncio(loop_scope="session")

_POOLS = {"io": PoolSize(1, 16)}
_WEATHER: Mapping[str, Any] = {"place": "Berlin", "days": 1}
_MONEY: Mapping[str, Any] = {"amount": 1, "from": "EUR", "to": "USD"}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def recorded(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Counter]:
    """A worker that asks the recorded APIs."""
    scratch = tmp_path_factory.mktemp("recorded")
    with recorded_apis() as apis:
        environment = {**worker_environment(), **apis.environment}
        async with running_bench(scratch, _POOLS, BUILTIN_MODULES, environment) as bench:
            yield Counter(bench)


async def _run(
    scratch: Path, upstream: BadUpstream, way: str, *, private: bool, more: Mapping[str, str] | None = None
) -> Sequence[Finished]:
    """Ask one badly behaved API of both types, in a worker of its own."""
    names = ("HEADRACE_GEOCODING_URL", "HEADRACE_WEATHER_URL", "HEADRACE_CURRENCY_URL")
    environment = {
        **worker_environment(),
        **dict.fromkeys(names, upstream.url(way)),
        "HEADRACE_PRIVATE_ADDRESSES": str(private).lower(),
        **(more or {}),
    }
    async with running_bench(scratch / "scratch", _POOLS, BUILTIN_MODULES, environment) as bench:
        counter = Counter(bench)
        return await asyncio.gather(counter.run("weather_data", _WEATHER), counter.run("currency_conversion", _MONEY))


def _endings(finished: Sequence[Finished]) -> list[tuple[str, bool]]:
    """The code of each, and whether it is worth a retry."""
    return [(item.error.code, item.outcome is Outcome.FAILED) for item in finished if item.error is not None]


async def test_the_weather_of_a_place_is_told(recorded: Counter) -> None:
    result = await recorded.result("weather_data", {"place": "Wellington", "days": 2, "hourly": True})
    assert (result["place"]["country"], len(result["daily"]), len(result["hourly"])) == ("New Zealand", 2, 48)
    assert result["current"]["time"] == "2025-04-04T13:45:00+13:00"


async def test_an_amount_is_converted(recorded: Counter) -> None:
    result = await recorded.result("currency_conversion", {**_MONEY, "amount": "149.90", "date": "2024-08-01"})
    assert result["conversions"] == [{"currency": "USD", "rate": "1.0789", "amount": "161.73"}]


async def test_many_tasks_at_once_share_the_worker(recorded: Counter) -> None:
    runs = [recorded.run("weather_data", _WEATHER) for _ in range(30)]
    assert {item.outcome for item in await asyncio.gather(*runs)} == {Outcome.COMPLETED}


_REFUSED: dict[str, tuple[str, Mapping[str, Any], str]] = {
    "T01-weather-nothing": ("weather_data", {}, ""),
    "T01-weather-half-a-position": ("weather_data", {"latitude": 1.5}, ""),
    "T01-weather-place-and-position": ("weather_data", {"place": "Berlin", "latitude": 1, "longitude": 1}, ""),
    "T01-weather-country-of-a-position": ("weather_data", {"latitude": 1, "longitude": 1, "country": "DE"}, ""),
    "T01-weather-kind": ("weather_data", {"place": ["Berlin"]}, "/place"),
    "T02-weather-text-for-number": ("weather_data", {"latitude": "1", "longitude": 1}, "/latitude"),
    "T02-weather-bool-for-number": ("weather_data", {"latitude": 1, "longitude": True}, "/longitude"),
    "T02-weather-float-for-int": ("weather_data", {**_WEATHER, "days": 1.5}, "/days"),
    "T02-weather-int-for-bool": ("weather_data", {**_WEATHER, "hourly": 1}, "/hourly"),
    "T03-weather-unknown-field": ("weather_data", {**_WEATHER, "contry": "DE"}, "/contry"),
    "T03-weather-url": ("weather_data", {**_WEATHER, "url": "http://169.254.169.254/"}, "/url"),
    "T04-weather-days-0": ("weather_data", {**_WEATHER, "days": 0}, "/days"),
    "T04-weather-days-17": ("weather_data", {**_WEATHER, "days": 17}, "/days"),
    "T04-weather-latitude": ("weather_data", {"latitude": 90.1, "longitude": 0}, "/latitude"),
    "T04-weather-longitude": ("weather_data", {"latitude": 0, "longitude": -1e308}, "/longitude"),
    "T05-weather-long-place": ("weather_data", {"place": "x" * 101}, "/place"),
    "T05-weather-only-spaces": ("weather_data", {"place": "   "}, "/place"),
    "T05-weather-short-place": ("weather_data", {"place": "B"}, "/place"),
    "T07-weather-object": ("weather_data", {"place": {"$ref": "#/place"}}, "/place"),
    "T01-currency-nothing": ("currency_conversion", {}, "/amount"),
    "T01-currency-null": ("currency_conversion", {**_MONEY, "amount": None}, "/amount"),
    "T02-currency-bool": ("currency_conversion", {**_MONEY, "amount": True}, "/amount"),
    "T02-currency-words": ("currency_conversion", {**_MONEY, "amount": "ten"}, "/amount"),
    "T03-currency-unknown-field": ("currency_conversion", {**_MONEY, "source": "EUR"}, "/source"),
    "T04-currency-negative": ("currency_conversion", {**_MONEY, "amount": -0.01}, "/amount"),
    "T04-currency-too-much": ("currency_conversion", {**_MONEY, "amount": 10**16}, "/amount"),
    "T04-currency-too-many-digits": ("currency_conversion", {**_MONEY, "amount": "1." + "1" * 9}, "/amount"),
    "T04-currency-exponent": ("currency_conversion", {**_MONEY, "amount": "1e9"}, "/amount"),
    "T04-currency-infinite": ("currency_conversion", {**_MONEY, "amount": "Infinity"}, "/amount"),
    "T05-currency-lower-case": ("currency_conversion", {**_MONEY, "from": "eur"}, "/from"),
    "T05-currency-four-letters": ("currency_conversion", {**_MONEY, "to": "EURO"}, "/to"),
    "T06-currency-no-targets": ("currency_conversion", {**_MONEY, "to": []}, "/to"),
    "T06-currency-11-targets": (
        "currency_conversion",
        {**_MONEY, "to": ["A" + chr(66 + n) + "C" for n in range(11)]},
        "/to",
    ),
    "T06-currency-same-target": ("currency_conversion", {**_MONEY, "to": ["USD", "USD"]}, "/to"),
    "T06-currency-mixed-targets": ("currency_conversion", {**_MONEY, "to": ["USD", 5]}, "/to/1"),
    "T07-currency-path": ("currency_conversion", {**_MONEY, "date": "../latest"}, "/date"),
    "T07-currency-no-date": ("currency_conversion", {**_MONEY, "date": "2024-13-01"}, "/date"),
}


@pytest.mark.parametrize(("type_name", "data", "pointer"), _REFUSED.values(), ids=_REFUSED)
async def test_data_that_do_not_fit_are_refused_at_submit_and_in_the_worker(
    recorded: Counter, type_name: str, data: Mapping[str, Any], pointer: str
) -> None:
    assert pointer in [error.field for error in recorded.refusals(type_name, data)]
    assert await recorded.error_code(type_name, data) == "invalid_data"


@pytest.mark.parametrize("field", ["place", "country", "latitude", "longitude"])
async def test_t01_null_is_no_way_to_leave_out_a_field(recorded: Counter, field: str) -> None:
    whole = {"place": "Berlin"} if field == "country" else {"latitude": 1, "longitude": 1}
    assert recorded.refusals("weather_data", {**whole, field: None})


_FAILING: dict[str, tuple[str, Mapping[str, Any], str]] = {
    "T05-weather-emoji": ("weather_data", {"place": "🏔" * 100}, "place_not_found"),
    "T05-weather-right-to-left": ("weather_data", {"place": "\u202eniltreB\u202c"}, "place_not_found"),
    "T31-weather-line-break": ("weather_data", {"place": "Ber\r\tlin&count=100#x"}, "place_not_found"),
    "T04-currency-unknown": ("currency_conversion", {**_MONEY, "to": "XXX"}, "unknown_currency"),
    "T04-currency-far-future": ("currency_conversion", {**_MONEY, "date": "2999-12-31"}, "date_in_the_future"),
}


@pytest.mark.parametrize(("type_name", "data", "code"), _FAILING.values(), ids=_FAILING)
async def test_what_only_the_worker_can_see_has_its_code(
    recorded: Counter, type_name: str, data: Mapping[str, Any], code: str
) -> None:
    assert recorded.refusals(type_name, data) == []
    assert await recorded.error_code(type_name, data) == code


async def test_t23_a_worker_does_not_call_its_own_machine_by_default(tmp_path: Path) -> None:
    async with bad_upstream() as private:
        finished = await _run(tmp_path, private, "/good", private=False)
        assert private.connections == 0
    assert _endings(finished) == [("unsafe_url", False)] * 2
    assert all("127.0.0.1" not in item.error.message for item in finished if item.error is not None)


async def test_t27_a_worker_follows_no_redirect_to_what_must_not_be_called(tmp_path: Path) -> None:
    async with bad_upstream() as upstream:
        finished = await _run(tmp_path, upstream, "/redirect?to=http://169.254.169.254/", private=True)
        assert len(upstream.heads) == 2
    assert _endings(finished) == [("unsafe_url", False)] * 2


async def test_t32_t33_a_worker_uses_no_proxy_and_tries_again_what_was_asked_too_often(tmp_path: Path) -> None:
    async with bad_upstream() as proxy, bad_upstream() as upstream:
        proxies = dict.fromkeys(("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"), proxy.url(""))
        finished = await _run(tmp_path, upstream, "/status/429", private=True, more=proxies)
        assert (proxy.connections, upstream.connections) == (0, 2)
    assert _endings(finished) == [("rate_limited", True)] * 2
