"""The state of the registry: who is registered, how their checks stand, and which change was the last one.

Decides alone and waits for nothing: whoever calls passes the time and carries out the checks.
"""

from collections.abc import Callable
from dataclasses import dataclass

from headrace.local.registry.definitions import CheckDefinition, CheckStatus, InvalidRequestError, ServiceDefinition

SERVICES_MAX = 2_000
OUTPUT_LENGTH_MAX = 1_000


@dataclass(slots=True, kw_only=True)
class CheckState:
    """How one check stands. `critical_since` is None while it is not critical."""

    definition: CheckDefinition
    service_id: str
    status: CheckStatus
    output: str = ""
    critical_since: float | None = None


@dataclass(slots=True, kw_only=True)
class ServiceState:
    """One registered instance with the indexes of its first and its last change."""

    definition: ServiceDefinition
    checks: dict[str, CheckState]
    create_index: int
    modify_index: int

    @property
    def is_passing(self) -> bool:
        return all(check.status is CheckStatus.PASSING for check in self.checks.values())


class UnknownServiceError(Exception):
    """No service has this id."""


class UnknownCheckError(Exception):
    """No check has this id."""


class Catalog:
    """Every change raises `index` by one. `on_change` hears the name of the service that changed, after the change."""

    def __init__(self, on_change: Callable[[str], None]) -> None:
        self._on_change = on_change
        self._services: dict[str, ServiceState] = {}
        self._checks: dict[str, CheckState] = {}
        # The last change of each name, also of names that have gone, and of the list of names as a whole.
        self._index_of_name: dict[str, int] = {}
        self.index = 1

    def register(self, definition: ServiceDefinition, *, now: float) -> None:
        """Add or replace a service. A check that it had before keeps its status, as in Consul."""
        known = self._services.get(definition.service_id)
        if known is not None and known.definition == definition:
            return
        if known is None and len(self._services) >= SERVICES_MAX:
            raise InvalidRequestError(f"more than {SERVICES_MAX} services")
        known_checks = {} if known is None else known.checks
        checks = {
            check.check_id: self._new_check(check, definition.service_id, known_checks.get(check.check_id), now)
            for check in definition.checks
        }
        if known is not None:
            self._remove(known)
        index = self._next_index(definition.name)
        created = index if known is None else known.create_index
        self._services[definition.service_id] = ServiceState(
            definition=definition, checks=checks, create_index=created, modify_index=index
        )
        self._checks |= checks
        self._on_change(definition.name)
        if known is not None and known.definition.name != definition.name:
            self._next_index(known.definition.name)
            self._on_change(known.definition.name)

    def deregister(self, service_id: str) -> None:
        """Remove a service with its checks. Raises UnknownServiceError."""
        service = self._services.get(service_id)
        if service is None:
            raise UnknownServiceError(service_id)
        self._remove(service)
        self._next_index(service.definition.name)
        self._on_change(service.definition.name)

    def update_check(self, check_id: str, status: CheckStatus, output: str, *, now: float) -> bool:
        """Note what a check found and tell whether the status changed. Raises UnknownCheckError."""
        check = self.check(check_id)
        check.output = output[:OUTPUT_LENGTH_MAX]
        if check.status is status:
            return False
        check.status = status
        check.critical_since = now if status is CheckStatus.CRITICAL else None
        service = self._services[check.service_id]
        service.modify_index = self._next_index(service.definition.name)
        self._on_change(service.definition.name)
        return True

    def overdue(self, *, now: float) -> list[str]:
        """Return the ids of services that were critical for longer than they want to stay registered."""
        return list(
            {
                check.service_id: None
                for check in self._checks.values()
                if check.critical_since is not None
                and check.definition.deregister_after is not None
                and now - check.critical_since >= check.definition.deregister_after
            }
        )

    def check(self, check_id: str) -> CheckState:
        try:
            return self._checks[check_id]
        except KeyError:
            raise UnknownCheckError(check_id) from None

    def checks_of(self, service_id: str) -> list[CheckState]:
        """Return the checks of a service, none for one that is not registered."""
        service = self._services.get(service_id)
        return [] if service is None else list(service.checks.values())

    def instances(self, name: str, *, passing: bool) -> list[ServiceState]:
        return [
            service
            for service in self._services.values()
            if service.definition.name == name and (service.is_passing or not passing)
        ]

    def services(self) -> list[ServiceState]:
        return list(self._services.values())

    def index_of(self, name: str) -> int:
        """Return the index of the last change of `name`, or of the whole registry if it never knew that name."""
        return self._index_of_name.get(name, self.index)

    def _remove(self, service: ServiceState) -> None:
        del self._services[service.definition.service_id]
        for check_id in service.checks:
            del self._checks[check_id]

    def _new_check(
        self, definition: CheckDefinition, service_id: str, before: CheckState | None, now: float
    ) -> CheckState:
        holder = self._checks.get(definition.check_id)
        if holder is not None and holder.service_id != service_id:
            raise InvalidRequestError(f'Check "{definition.check_id}" belongs to service "{holder.service_id}"')
        status = definition.initial_status if before is None else before.status
        critical_since = now if before is None else before.critical_since
        return CheckState(
            definition=definition,
            service_id=service_id,
            status=status,
            output="" if before is None else before.output,
            critical_since=critical_since if status is CheckStatus.CRITICAL else None,
        )

    def _next_index(self, name: str) -> int:
        self.index += 1
        if name not in self._index_of_name and len(self._index_of_name) >= SERVICES_MAX:
            self._index_of_name.pop(next(iter(self._index_of_name)))
        self._index_of_name[name] = self.index
        return self.index
