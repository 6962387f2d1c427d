"""Addresses, and the list that only its owner changes."""

import pytest

from servicekit.discovery import ServiceWatch, StaticWatch, address_of


@pytest.mark.parametrize(
    ("host", "address"), [("127.0.0.1", "127.0.0.1:80"), ("web-1", "web-1:80"), ("::1", "[::1]:80")]
)
def test_an_address_can_be_dialled(host: str, address: str) -> None:
    assert address_of(host, 80) == address


async def test_a_static_list_tells_its_listeners_when_it_is_replaced() -> None:
    static = StaticWatch(["a:1"])
    watch: ServiceWatch = static
    heard: list[int] = []
    watch.subscribe(lambda: heard.append(len(watch.endpoints)))
    await watch.start()
    static.replace(["a:1", "b:2"])
    await watch.stop()
    assert heard == [2]
    assert [endpoint.address for endpoint in watch.endpoints] == ["a:1", "b:2"]
