"""Which addresses handlers may call: those of the public Internet, private ones where a setting says so, some never.

The ranges are those of IANA's registries of special-purpose addresses (RFC 6890 and its updates). They are listed here,
since what `ipaddress` calls global differs between versions of Python. Of IPv6 only the global unicast range 2000::/3
is called; what carries an IPv4 address inside (mapped, translated by NAT64, 6to4, Teredo) is not, whatever it carries.
"""

from ipaddress import IPv4Address, IPv6Address, ip_network
from typing import TypeAlias

Address: TypeAlias = IPv4Address | IPv6Address

_PRIVATE = tuple(
    map(
        ip_network,
        (
            "10.0.0.0/8",
            "100.64.0.0/10",  # shared by the customers of a provider
            "127.0.0.0/8",
            "172.16.0.0/12",
            "192.168.0.0/16",
            "::1/128",
            "fc00::/7",
        ),
    )
)
_NEVER = tuple(
    map(
        ip_network,
        (
            "0.0.0.0/8",
            "100.100.100.200/32",  # metadata of virtual machines, here and below: they hold credentials
            "168.63.129.16/32",
            "169.254.0.0/16",
            "192.0.0.0/24",
            "192.0.2.0/24",
            "192.88.99.0/24",
            "198.18.0.0/15",
            "198.51.100.0/24",
            "203.0.113.0/24",
            "224.0.0.0/4",
            "240.0.0.0/4",
            "2001::/23",
            "2001:db8::/32",
            "2002::/16",
            "3fff::/20",
            "fd00:ec2::254/128",
        ),
    )
)
_GLOBAL_IPV6 = ip_network("2000::/3")


def may_be_called(address: Address, *, private: bool) -> bool:
    """Return whether handlers may connect to the address; `private` allows this machine and private networks."""
    if any(address in network for network in _NEVER):
        return False
    if any(address in network for network in _PRIVATE):
        return private
    return address.version == 4 or address in _GLOBAL_IPV6
