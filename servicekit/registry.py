"""Consul as the place where services register and find each other. Nothing here fails while Consul is away."""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx
import structlog
from consul import ConsulException

from servicekit.consul_client import AsyncConsul, open_consul
from servicekit.consul_watch import ConsulWatch
from servicekit.discovery import address_of
from servicekit.errors import Unavailable
from servicekit.loops import BackgroundLoop
from servicekit.settings import SettingsError, variable

log = structlog.stdlib.get_logger(__name__)

_LOOK_SECONDS = 5.0
# Longer than the interval and the timeout of a check together.
_NAME_SECONDS = 3.0
_NAME_PAUSE_SECONDS = 0.2
# Consul's own, and those of what is read from its answers, or of our address.
_FAILURES = (ConsulException, httpx.HTTPError, KeyError, TypeError, ValueError)
# Consul takes nothing below a minute.
_FORGET_AFTER = "1m"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceRegistration:
    """One replica as it is announced. Consul checks it by the gRPC health service, or by an HTTP path.

    `host` is asked for whenever that is said or held against the list, since it may change; it raises ValueError while
    there is none.
    """

    name: str
    service_id: str
    host: Callable[[], str]
    port: int
    grpc_check: bool = False
    http_check: str | None = None
    meta: Mapping[str, str] = field(default_factory=dict)

    @property
    def address(self) -> str:
        return address_of(self.host(), self.port)


class ConsulRegistry:
    """The registry at `url`. Must be made inside the running event loop; `close` ends what it holds."""

    def __init__(
        self, url: str, token: str | None = None, *, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        self._consul = open_consul(url, token, transport=transport)
        self._registrations: list[ServiceRegistration] = []
        self._keeper = BackgroundLoop("registration", self.keep_registered, interval=_LOOK_SECONDS)

    async def register(self, registration: ServiceRegistration) -> None:
        """Announce the replica, and again whenever the agent has lost it, until `deregister`. Call it when the
        replica serves: it counts as healthy from now on. Returns also while Consul is away.

        Raises SettingsError if another replica of this name serves elsewhere.
        """
        try:
            await self._refuse_a_second(registration)
            self._registrations.append(registration)
            await _register(self._consul, registration)
        except _FAILURES as error:
            log.warning("registration_delayed", service_id=registration.service_id, reason=_reason(error))
            if registration not in self._registrations:
                self._registrations.append(registration)
        self._keeper.start()

    async def deregister(self) -> None:
        """Take all registrations back. While Consul is away they end by their checks instead."""
        await self._keeper.stop(grace=0)
        for registration in self._registrations:
            try:
                await self._consul.agent.service.deregister(registration.service_id)
            except (ConsulException, httpx.HTTPError) as error:
                log.warning("deregistration_failed", service_id=registration.service_id, reason=_reason(error))
        self._registrations.clear()

    def watch(self, name: str, *, passing: bool = True) -> ConsulWatch:
        """The replicas of the service `name`; start it to have it kept up to date.

        Without `passing` also those whose checks fail, until they deregister or are forgotten.
        """
        return ConsulWatch(self._consul, name, passing=passing)

    async def close(self) -> None:
        await self.deregister()
        await self._consul.close()

    async def _refuse_a_second(self, registration: ServiceRegistration) -> None:
        """Raise SettingsError while a replica of this name passes its check at another address.

        One that died a moment ago still passes; it is given the time to fail.
        """
        deadline = time.monotonic() + _NAME_SECONDS
        while address := await self._other_address(registration):
            if time.monotonic() >= deadline:
                name = registration.service_id
                raise SettingsError(f"{variable('replica')}: a replica named {name} serves at {address} already")
            await asyncio.sleep(_NAME_PAUSE_SECONDS)

    async def _other_address(self, registration: ServiceRegistration) -> str | None:
        """Where a replica of this name passes its check, if not here.

        An address that another name has registered too was given to that one after the death of ours.
        """
        _, listed = await self._consul.health.service(registration.name, passing=True)
        here = registration.address
        ids: dict[str, set[str]] = {}
        for service in (entry["Service"] for entry in listed):
            ids.setdefault(address_of(service["Address"], service["Port"]), set()).add(service["ID"])
        return next((a for a, found in ids.items() if a != here and found == {registration.service_id}), None)

    async def keep_registered(self) -> None:
        """Register again what the registry does not list any more, or elsewhere."""
        for registration in self._registrations:
            try:
                _, listed = await self._consul.health.service(registration.name)
                found = {entry["Service"]["ID"]: entry["Service"] for entry in listed}.get(registration.service_id)
                if found is None or address_of(found["Address"], found["Port"]) != registration.address:
                    await _register(self._consul, registration)
            except _FAILURES as error:
                raise Unavailable(_reason(error), code="registry_unavailable") from error


async def _register(consul: AsyncConsul, registration: ServiceRegistration) -> None:
    await consul.agent.service.register(
        registration.name,
        service_id=registration.service_id,
        address=registration.host(),
        port=registration.port,
        meta=dict(registration.meta),
        check=_check(registration),
    )
    log.info("registered", service_id=registration.service_id, address=registration.address)


def _check(registration: ServiceRegistration) -> dict[str, Any] | None:
    if registration.grpc_check:
        target = {"grpc": registration.address}
    elif registration.http_check is not None:
        target = {"http": f"http://{registration.address}{registration.http_check}"}
    else:
        return None
    return {
        **target,
        "interval": "1s",
        "timeout": "1s",
        "status": "passing",
        "DeregisterCriticalServiceAfter": _FORGET_AFTER,
    }


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error)[:200]}"
