"""Where the replicas of a service are, as those see it who call them. Says nothing of how that is found out."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

Listener = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One replica of a service."""

    service_id: str
    # host:port
    address: str
    meta: Mapping[str, str] = field(default_factory=dict, hash=False)


def address_of(host: str, port: int) -> str:
    """host:port, as it is dialled."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class ServiceWatch(Protocol):
    """The replicas of one service, kept up to date."""

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """The replicas known now, in the order of their ids."""
        ...

    def subscribe(self, listener: Listener) -> None:
        """Call `listener` after each change of `endpoints`; it must not wait."""
        ...

    async def start(self) -> None:
        """Begin to follow. Returns with a first list where the registry answers at once, else without one."""
        ...

    async def stop(self) -> None: ...


class StaticWatch:
    """A list that only its owner changes: for tests, and where no registry is wanted."""

    def __init__(self, addresses: Sequence[str] = ()) -> None:
        self._endpoints = _endpoints(addresses)
        self._listeners: list[Listener] = []

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        return self._endpoints

    def subscribe(self, listener: Listener) -> None:
        self._listeners.append(listener)

    async def start(self) -> None:
        """Nothing to do: the list is there."""

    async def stop(self) -> None:
        """Nothing to do: nobody follows anything."""

    def replace(self, addresses: Sequence[str]) -> None:
        self._endpoints = _endpoints(addresses)
        for listener in self._listeners:
            listener()


def _endpoints(addresses: Sequence[str]) -> tuple[Endpoint, ...]:
    return tuple(Endpoint(service_id=address, address=address) for address in addresses)
