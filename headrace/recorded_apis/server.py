"""The server: one port for all APIs, on a thread of its own, so that it serves programs with and without a loop."""

import asyncio
import json
import math
import threading
import unicodedata
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from http import HTTPStatus
from importlib.resources import files
from typing import Any, TypeAlias

from headrace.local.registry.http_server import HttpServer, Request, Response
from headrace.recorded_apis.weather import BadParameterError, forecast

HOST = "127.0.0.1"
# What a place has of the clock on the day of the weather.
_OFFSET_HOURS = {
    "America/New_York": -4,
    "Africa/Nairobi": 3,
    "Asia/Tokyo": 9,
    "Europe/Berlin": 2,
    "Pacific/Auckland": 13,
}
_NEAR_DEGREES = 0.5

Query: TypeAlias = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class RecordedApis:
    """Where the stand-in is reached."""

    port: int

    @property
    def environment(self) -> Mapping[str, str]:
        """The settings with which workers ask the stand-in, and not the public APIs."""
        url = f"http://{HOST}:{self.port}/v1"
        return {
            "HEADRACE_GEOCODING_URL": f"{url}/search",
            "HEADRACE_WEATHER_URL": f"{url}/forecast",
            "HEADRACE_CURRENCY_URL": url,
            "HEADRACE_PRIVATE_ADDRESSES": "true",
        }


@contextmanager
def recorded_apis() -> Iterator[RecordedApis]:
    """Serve the APIs on a free port of loopback until the block ends."""
    started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event, int]] = Future()
    thread = threading.Thread(target=lambda: asyncio.run(_serve(started)), name="recorded-apis", daemon=True)
    thread.start()
    loop, stopping, port = started.result()
    try:
        yield RecordedApis(port)
    finally:
        loop.call_soon_threadsafe(stopping.set)
        thread.join()


async def _serve(started: "Future[tuple[asyncio.AbstractEventLoop, asyncio.Event, int]]") -> None:
    server = HttpServer(_answer)
    stopping = asyncio.Event()
    try:
        started.set_result((asyncio.get_running_loop(), stopping, await server.start(HOST, 0)))
    except OSError as error:
        started.set_exception(error)
    else:
        await stopping.wait()
    await server.stop()


async def _answer(request: Request) -> Response:
    status, content = answer(request.path, request.query)
    return Response(body=json.dumps(content).encode(), content_type="application/json; charset=utf-8", status=status)


def answer(path: str, query: Query) -> tuple[HTTPStatus, Any]:
    """Return what the API at the path answers."""
    match path.split("/"):
        case ["", "v1", "search"]:
            return HTTPStatus.OK, search(query)
        case ["", "v1", "forecast"]:
            try:
                return HTTPStatus.OK, _forecast(query)
            except BadParameterError as error:
                return HTTPStatus.BAD_REQUEST, {"error": True, "reason": str(error)}
        case ["", "v1", day]:
            return rates(day)
    return HTTPStatus.NOT_FOUND, {"error": True, "reason": "Not Found"}


def search(query: Query) -> Any:
    """Return the places whose names begin with the text; two characters have to be the whole name, fewer find none."""
    wanted, country = _folded(query.get("name", "")), query.get("countryCode")
    found = [
        place
        for place in _data("places.json")
        if country in (None, place["country_code"])
        and len(wanted) > 1
        and (_folded(place["name"]).startswith(wanted) if len(wanted) > 2 else _folded(place["name"]) == wanted)
    ][: int(query.get("count", "10"))]
    return {**({"results": found} if found else {}), "generationtime_ms": 0.42}


def rates(day: str) -> tuple[HTTPStatus, Any]:
    """Return the rates of the last recorded day up to the one asked for."""
    table = _data("rates.json")
    known = [date for date in sorted(table) if day == "latest" or date <= day]
    if not known:
        return HTTPStatus.NOT_FOUND, {"message": "not found"}
    return HTTPStatus.OK, {"amount": 1.0, "base": "EUR", "date": known[-1], "rates": table[known[-1]]}


def _forecast(query: Query) -> Any:
    for place in _data("places.json"):
        if math.dist(_position(query), (place["latitude"], place["longitude"])) < _NEAR_DEGREES:
            offset = 3600 * _OFFSET_HOURS.get(place["timezone"], 0)
            return forecast(query, timezone=place["timezone"], offset_seconds=offset, elevation=place["elevation"])
    return forecast(query, timezone="GMT", offset_seconds=0, elevation=0.0)


def _position(query: Query) -> tuple[float, float]:
    return float(query.get("latitude", "nan")), float(query.get("longitude", "nan"))


def _folded(text: str) -> str:
    return "".join(c for c in unicodedata.normalize("NFKD", text.casefold()) if not unicodedata.combining(c))


@cache
def _data(name: str) -> Any:
    return json.loads((files("headrace.recorded_apis") / name).read_text("utf-8"))
