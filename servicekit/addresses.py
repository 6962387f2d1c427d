"""Where this machine is to be found."""

import contextlib
import ipaddress
import socket

_WILDCARD_HOSTS = ("0.0.0.0", "::", "")  # noqa: S104 - compared with, not bound to


def reachable_host(host: str) -> str:
    """Where others reach a server that listens on `host`: this machine's address where it listens on all of them."""
    if host not in _WILDCARD_HOSTS:
        return host
    try:
        return socket.gethostbyname(socket.gethostname())
    except OSError:
        return socket.gethostname()


def current_host(name: str) -> str:
    """`name`, or this machine's address in it where it is a network, such as 10.1.0.0/16.

    Raises ValueError where it has none there, or what has a slash is no network.
    """
    if "/" not in name:
        return name
    network = ipaddress.ip_network(name)
    family = socket.AF_INET6 if network.version == 6 else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe, contextlib.suppress(OSError):
        # Sends nothing: the kernel chooses the address that it would send from.
        probe.connect((str(network.network_address + 1), 9))
        address: str = probe.getsockname()[0]
        if ipaddress.ip_address(address) in network:
            return address
    raise ValueError(f"this machine has no address in {network}")
