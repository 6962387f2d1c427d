"""What was judged is what is connected to: names are looked up once, and every address of theirs counts."""

from collections.abc import Iterable, Iterator, Sequence

import httpcore
import pytest

from execution_service.handlers.web.connecting import ADDRESSES_MAX, JudgingBackend, resolve
from headrace.tasks import PermanentError

_PUBLIC, _OTHER_PUBLIC = "1.1.1.1", "2606:4700:4700::1111"


class _Network(httpcore.AsyncNetworkBackend):
    """Connects to nothing, and remembers where it should have."""

    def __init__(self, *, refusing: Sequence[str] = ()) -> None:
        self.asked: list[str] = []
        self._refusing = refusing

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        self.asked.append(host)
        if host in self._refusing:
            raise httpcore.ConnectError("refused")
        return httpcore.AsyncMockStream([])


class _Names:
    """Answers one look-up after another."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self._answers: Iterator[Sequence[str]] = iter(answers)

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        return next(self._answers)


async def _refusal(backend: JudgingBackend, host: str = "api.example.org") -> str:
    with pytest.raises(PermanentError) as refused:
        await backend.connect_tcp(host, 443)
    assert host not in str(refused.value)
    return refused.value.code


async def test_the_connection_goes_to_the_address_and_not_to_the_name() -> None:
    network = _Network()
    await JudgingBackend(_Names([_PUBLIC]), private=False, network=network).connect_tcp("api.example.org", 443)
    assert network.asked == [_PUBLIC]


async def test_t26_a_name_that_becomes_private_is_refused_and_was_looked_up_once_each_time() -> None:
    network = _Network()
    backend = JudgingBackend(_Names([_PUBLIC], ["127.0.0.1"]), private=False, network=network)
    await backend.connect_tcp("api.example.org", 443)
    assert await _refusal(backend) == "unsafe_url"
    assert network.asked == [_PUBLIC]


@pytest.mark.parametrize("bad", ["127.0.0.1", "169.254.169.254", "10.0.0.1", "::1", "::ffff:10.0.0.1", "fe80::1%eth0"])
@pytest.mark.parametrize("first", [True, False])
async def test_t26_one_bad_address_among_good_ones_is_enough(bad: str, first: bool) -> None:
    network = _Network()
    addresses = [bad, _PUBLIC, _OTHER_PUBLIC] if first else [_PUBLIC, _OTHER_PUBLIC, *[_PUBLIC] * ADDRESSES_MAX, bad]
    assert await _refusal(JudgingBackend(_Names(addresses), private=False, network=network)) == "unsafe_url"
    assert network.asked == []


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "169.254.169.254", "64:ff9b::7f00:1", "::ffff:127.0.0.1"])
async def test_t23_an_address_in_place_of_a_name_is_judged_as_well(address: str) -> None:
    network = _Network()
    assert await _refusal(JudgingBackend(_Names(), private=False, network=network), address) == "unsafe_url"
    assert network.asked == []


async def test_the_next_address_is_tried_when_one_does_not_answer() -> None:
    network = _Network(refusing=[_PUBLIC])
    await JudgingBackend(_Names([_PUBLIC, _OTHER_PUBLIC]), private=False, network=network).connect_tcp("h.example", 443)
    assert network.asked == [_PUBLIC, _OTHER_PUBLIC]


async def test_of_many_addresses_only_some_are_tried() -> None:
    network = _Network(refusing=[_PUBLIC])
    backend = JudgingBackend(_Names([_PUBLIC] * 50), private=False, network=network)
    with pytest.raises(httpcore.ConnectError):
        await backend.connect_tcp("api.example.org", 443)
    assert len(network.asked) == ADDRESSES_MAX


async def test_the_system_resolves_names_of_this_machine() -> None:
    assert set(await resolve("localhost", 80)) & {"127.0.0.1", "::1"}
