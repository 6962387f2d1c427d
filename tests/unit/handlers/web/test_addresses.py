"""Only addresses of the public Internet are called, whatever notation or envelope another one comes in."""

from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from execution_service.handlers.web.addresses import may_be_called

_ON_THIS_MACHINE_OR_NETWORK = {
    "T23-loopback": "127.0.0.1",
    "T23-loopback-end": "127.255.255.254",
    "T23-loopback-6": "::1",
    "T25-10": "10.0.0.0",
    "T25-10-end": "10.255.255.255",
    "T25-172.16": "172.16.0.0",
    "T25-172.16-end": "172.31.255.255",
    "T25-192.168": "192.168.0.1",
    "T25-100.64": "100.64.0.1",
    "T25-100.64-end": "100.127.255.255",
    "T25-unique-local": "fc00::1",
    "T25-unique-local-end": "fdff:ffff::1",
}
_NEVER = {
    "T23-unspecified": "0.0.0.0",
    "T23-unspecified-6": "::",
    "T23-mapped": "::ffff:127.0.0.1",
    "T23-compatible": "::127.0.0.1",
    "T23-nat64": "64:ff9b::7f00:1",
    "T23-nat64-local": "64:ff9b:1::7f00:1",
    "T23-6to4": "2002:7f00:1::1",
    "T23-teredo": "2001:0:4136:e378:8000:63bf:80ff:fffe",
    "T24-metadata": "169.254.169.254",
    "T24-metadata-mapped": "::ffff:169.254.169.254",
    "T24-metadata-nat64": "64:ff9b::a9fe:a9fe",
    "T24-metadata-6": "fd00:ec2::254",
    "T24-metadata-shared": "100.100.100.200",
    "T24-platform": "168.63.129.16",
    "T25-link-local": "169.254.0.1",
    "T25-link-local-6": "fe80::1",
    "T25-link-local-zone": "fe80::1%1",
    "T25-site-local": "fec0::1",
    "T25-multicast": "224.0.0.1",
    "T25-multicast-6": "ff02::1",
    "T25-broadcast": "255.255.255.255",
    "T25-reserved": "240.0.0.1",
    "T25-documentation": "192.0.2.1",
    "T25-documentation-6": "2001:db8::1",
    "T25-benchmark": "198.18.0.1",
    "T25-discard": "100::1",
}
_PUBLIC = ("1.1.1.1", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "172.15.255.255", "172.32.0.0")
_PUBLIC_6 = ("2606:4700:4700::1111", "2001:200::1", "2a00:1450::1", "3ffe::1")


@pytest.mark.parametrize("text", _ON_THIS_MACHINE_OR_NETWORK.values(), ids=_ON_THIS_MACHINE_OR_NETWORK)
def test_this_machine_and_private_networks_need_a_setting(text: str) -> None:
    assert not may_be_called(ip_address(text), private=False)
    assert may_be_called(ip_address(text), private=True)


@pytest.mark.parametrize("text", _NEVER.values(), ids=_NEVER)
def test_some_addresses_are_never_called(text: str) -> None:
    assert not may_be_called(ip_address(text), private=False)
    assert not may_be_called(ip_address(text), private=True)


@pytest.mark.parametrize("text", [*_PUBLIC, *_PUBLIC_6])
def test_the_neighbours_of_all_ranges_are_called(text: str) -> None:
    assert may_be_called(ip_address(text), private=False)


@given(st.ip_addresses(v=4))
def test_no_ipv4_address_gets_through_inside_an_ipv6_address(address: IPv4Address) -> None:
    envelopes = ("::ffff:0:0", "::", "64:ff9b::", "64:ff9b:1::")
    for envelope in envelopes:
        assert not may_be_called(IPv6Address(int(IPv6Address(envelope)) | int(address)), private=True)
    assert not may_be_called(IPv6Address(0x2002 << 112 | int(address) << 80), private=True)


@given(st.ip_addresses())
def test_what_is_public_to_some_is_public_to_python_too(address: IPv4Address | IPv6Address) -> None:
    if may_be_called(address, private=False):
        assert address.is_global
        assert may_be_called(address, private=True)
