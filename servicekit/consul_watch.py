"""The replicas of one service as Consul lists them, with doubt: an agent that restarts or errs must not cut us off."""

import asyncio
import contextlib
import time
from collections.abc import Mapping
from typing import Any

import httpx
import structlog
from consul import ConsulException

from servicekit.consul_client import AsyncConsul
from servicekit.discovery import Endpoint, Listener, address_of
from servicekit.errors import Unavailable
from servicekit.loops import BackgroundLoop

log = structlog.stdlib.get_logger(__name__)

_WAIT = "30s"
# While replicas are in doubt they are looked at this often.
_WAIT_IN_DOUBT = "2s"
_PAUSE_SECONDS = 0.05
# An agent that answers at once although nothing is new is asked no more often.
_NO_NEWS_PAUSE_SECONDS = 1.0
_PROBE_SECONDS = 1.0


class ConsulWatch:
    """Follows the replicas of one service by blocking queries, the passing ones unless all are wanted. Implements
    discovery.ServiceWatch.

    A list that lacks half or more of the known replicas, or has them at other addresses, is in doubt: those it lacks
    are kept for as long as they take connections. While Consul is away the last list stays.
    """

    def __init__(self, consul: AsyncConsul, name: str, *, passing: bool = True) -> None:
        self._consul = consul
        self._name = name
        self._passing = passing
        self._listed: dict[str, Endpoint] = {}
        # Not listed any more, by address.
        self._in_doubt: dict[str, Endpoint] = {}
        self._index: int | None = None
        self._listeners: list[Listener] = []
        self._endpoints: tuple[Endpoint, ...] = ()
        self._loop = BackgroundLoop(f"watch {name}", self._follow_in_time, interval=_PAUSE_SECONDS)

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        return self._endpoints

    def subscribe(self, listener: Listener) -> None:
        self._listeners.append(listener)

    async def start(self) -> None:
        """Begin to follow. Returns with a first list where Consul answers at once, without one where it does not."""
        with contextlib.suppress(Unavailable):
            await self.follow()
        self._loop.start()

    async def stop(self) -> None:
        await self._loop.stop(grace=0)

    async def _follow_in_time(self) -> None:
        """Follow, but not in a circle: the index of an agent that errs may stay or fall, and no query waits then."""
        began, listed = time.monotonic(), self._listed
        await self.follow()
        if self._listed == listed and time.monotonic() - began < _NO_NEWS_PAUSE_SECONDS:
            await asyncio.sleep(_NO_NEWS_PAUSE_SECONDS)

    async def follow(self) -> None:
        """Wait for the next list and take it over."""
        index, listed = await self._query()
        # After a restart the agent counts from the start, and would let a query with the old index wait.
        self._index = index if index > 0 and index >= (self._index or 0) else None
        await self._take_over(listed)

    async def _query(self) -> tuple[int, dict[str, Endpoint]]:
        wait = _WAIT_IN_DOUBT if self._in_doubt else _WAIT
        try:
            index, entries = await self._consul.health.service(
                self._name, passing=self._passing, index=self._index, wait=wait
            )
            return int(index), _endpoints(entries)
        except (ConsulException, httpx.HTTPError, ValueError, TypeError) as error:
            self._index = None
            raise Unavailable(f"{type(error).__name__}: {str(error)[:200]}", code="registry_unavailable") from error

    async def _take_over(self, listed: dict[str, Endpoint]) -> None:
        addresses = {endpoint.address for endpoint in listed.values()}
        missing = {key: endpoint for key, endpoint in self._listed.items() if endpoint.address not in addresses}
        if missing and 2 * len(missing) >= len(self._listed):
            log.warning("registry_list_in_doubt", service=self._name, listed=len(listed), missing=sorted(missing))
            self._in_doubt |= {endpoint.address: endpoint for endpoint in missing.values()}
        self._in_doubt = await _alive({key: end for key, end in self._in_doubt.items() if key not in addresses})
        self._listed = listed
        self._publish()

    def _publish(self) -> None:
        # The listed ones come first: of two at the same address they are the newer.
        by_address = {end.address: end for end in (*self._in_doubt.values(), *self._listed.values())}
        endpoints = tuple(sorted(by_address.values(), key=lambda endpoint: endpoint.service_id))
        if endpoints == self._endpoints:
            return
        self._endpoints = endpoints
        log.info("replicas_changed", service=self._name, replicas=[endpoint.service_id for endpoint in endpoints])
        for listener in self._listeners:
            listener()


def _endpoints(entries: Any) -> dict[str, Endpoint]:
    """The usable entries of a list by service id; what cannot be dialled is left out."""
    if not isinstance(entries, list):
        raise TypeError("not a list of services")
    found = (_endpoint(entry) for entry in entries)
    return {endpoint.service_id: endpoint for endpoint in found if endpoint is not None}


def _endpoint(entry: Mapping[str, Any]) -> Endpoint | None:
    try:
        service = entry["Service"]
        host, port = service["Address"] or entry["Node"]["Address"], int(service["Port"])
        meta = {str(key): str(value) for key, value in (service.get("Meta") or {}).items()}
        service_id = str(service["ID"])
    except (KeyError, TypeError, ValueError, AttributeError):
        return None
    if not host or not 0 < port < 65536:
        return None
    return Endpoint(service_id, address_of(host, port), meta)


async def _alive(endpoints: Mapping[str, Endpoint]) -> dict[str, Endpoint]:
    """Those that take a connection."""
    answers = await asyncio.gather(*(_takes_connections(endpoint.address) for endpoint in endpoints.values()))
    return {key: endpoint for (key, endpoint), alive in zip(endpoints.items(), answers, strict=True) if alive}


async def _takes_connections(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        async with asyncio.timeout(_PROBE_SECONDS):
            _, writer = await asyncio.open_connection(host.strip("[]"), int(port))
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True
