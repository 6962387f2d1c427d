"""The registry at work: the catalog, the checks that run beside it, and those who wait for a change."""

import asyncio
import logging
import random
import time

from headrace.local.registry.catalog import Catalog
from headrace.local.registry.definitions import CheckDefinition, CheckStatus, ServiceDefinition
from headrace.local.registry.probes import Probe

REAP_SECONDS = 5.0
ALL_SERVICES = ""

log = logging.getLogger(__name__)


class NotATtlCheckError(Exception):
    """A service reports on a check that the registry carries out itself."""


class Agent:
    """Everything the HTTP API offers. Belongs to one event loop; `start` and `stop` frame its life."""

    def __init__(self) -> None:
        self.catalog = Catalog(self._announce)
        self._probes: dict[str, asyncio.Task[None]] = {}
        self._ttl_timers: dict[str, asyncio.TimerHandle] = {}
        self._waiting: dict[str, set[asyncio.Future[None]]] = {}
        self._reaper: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._reaper = asyncio.create_task(self._reap_forever())

    async def stop(self) -> None:
        tasks = [*self._probes.values(), *([self._reaper] if self._reaper else [])]
        for task in tasks:
            task.cancel()
        for timer in self._ttl_timers.values():
            timer.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def register(self, definition: ServiceDefinition) -> None:
        """Add or replace a service and begin to check it. A check that is defined as before just goes on."""
        before = {check.definition for check in self.catalog.checks_of(definition.service_id)}
        self.catalog.register(definition, now=time.monotonic())
        after = {check.definition for check in self.catalog.checks_of(definition.service_id)}
        for gone in before - after:
            self._stop_check(gone.check_id)
        for new in after - before:
            self._start_check(new)
        if before != after or not before:
            log.info("service_registered", extra={"service_id": definition.service_id, "port": definition.port})

    def deregister(self, service_id: str) -> None:
        """Remove a service. Raises UnknownServiceError."""
        checks = [check.definition.check_id for check in self.catalog.checks_of(service_id)]
        self.catalog.deregister(service_id)
        for check_id in checks:
            self._stop_check(check_id)
        log.info("service_deregistered", extra={"service_id": service_id})

    def report(self, check_id: str, status: CheckStatus, output: str) -> None:
        """Note what a service says about its own TTL check. Raises UnknownCheckError and NotATtlCheckError."""
        definition = self.catalog.check(check_id).definition
        if not definition.ttl:
            raise NotATtlCheckError(check_id)
        self._update(check_id, status, output)
        self._start_ttl(definition)

    @property
    def probing(self) -> int:
        """How many checks are carried out here."""
        return len(self._probes)

    @property
    def waiting(self) -> int:
        """How many clients wait for a change."""
        return sum(len(waiting) for waiting in self._waiting.values())

    def index_of(self, name: str) -> int:
        return self.catalog.index if name == ALL_SERVICES else self.catalog.index_of(name)

    async def wait_for_change(self, name: str, *, index: int, timeout: float) -> None:
        """Return when `name` has changed after `index`, or after `timeout` seconds without a change.

        Like Consul, it waits the whole time for an index that lies in the future, as one from before a restart does.
        """
        deadline = time.monotonic() + timeout
        while self.index_of(name) <= index and (left := deadline - time.monotonic()) > 0:
            changed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            waiting = self._waiting.setdefault(name, set())
            waiting.add(changed)
            try:
                await asyncio.wait([changed], timeout=left)
            finally:
                waiting.discard(changed)
                if not waiting and self._waiting.get(name) is waiting:
                    del self._waiting[name]

    def _announce(self, name: str) -> None:
        for changed in (*self._waiting.get(name, ()), *self._waiting.get(ALL_SERVICES, ())):
            if not changed.done():
                changed.set_result(None)

    def _start_check(self, definition: CheckDefinition) -> None:
        if definition.ttl:
            self._start_ttl(definition)
        else:
            self._probes[definition.check_id] = asyncio.create_task(self._probe_forever(definition))

    def _stop_check(self, check_id: str) -> None:
        if timer := self._ttl_timers.pop(check_id, None):
            timer.cancel()
        if probe := self._probes.pop(check_id, None):
            probe.cancel()

    def _start_ttl(self, definition: CheckDefinition) -> None:
        if timer := self._ttl_timers.pop(definition.check_id, None):
            timer.cancel()
        self._ttl_timers[definition.check_id] = asyncio.get_running_loop().call_later(
            definition.ttl, self._update, definition.check_id, CheckStatus.CRITICAL, "TTL expired"
        )

    async def _probe_forever(self, definition: CheckDefinition) -> None:
        probe = Probe(definition)
        try:
            # As in Consul: spreads the checks, and leaves a service that calls itself passing the time to get there.
            await asyncio.sleep(random.random() * definition.interval)
            while True:
                status, output = await probe.run()
                self._update(definition.check_id, status, output)
                await asyncio.sleep(definition.interval)
        finally:
            await probe.close()

    def _update(self, check_id: str, status: CheckStatus, output: str) -> None:
        if self.catalog.update_check(check_id, status, output, now=time.monotonic()):
            log.info("check_changed", extra={"check_id": check_id, "status": status.value, "output": output})

    async def _reap_forever(self) -> None:
        while True:
            await asyncio.sleep(REAP_SECONDS)
            for service_id in self.catalog.overdue(now=time.monotonic()):
                log.info("service_was_critical_for_too_long", extra={"service_id": service_id})
                self.deregister(service_id)
