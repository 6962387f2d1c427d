"""Reading URLs strictly: what two readers could read differently is refused, not repaired."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from urllib.parse import quote, urlencode, urljoin

from execution_service.handlers.web.failures import failure
from headrace.tasks import CodedError

URL_CHARACTERS_MAX = 2000
_NAME_CHARACTERS_MAX = 253
_LABEL_CHARACTERS_MAX = 63
_DEFAULT_PORTS = {"http": 80, "https": 443}
# Names that mean something only on this machine or in this network (RFC 6761, 6762, 8375 and ICANN's `internal`).
_LOCAL_ENDINGS = (".localhost", ".local", ".internal", ".home.arpa")

# The characters of RFC 3986, but no `#` (no fragment is ever sent), no user information, and names in ASCII alone.
_PATH = r"[/?][A-Za-z0-9\-._~%!$&'()*+,;=:@/?]*"
_URL = re.compile(
    rf"(?P<scheme>https?)://(?:\[(?P<ipv6>[0-9a-f:.]+)\]|(?P<name>[a-z0-9._-]+))(?::(?P<port>[0-9]{{1,5}}))?(?P<path>{_PATH})?",
    re.ASCII | re.IGNORECASE,
)
_REFERENCE = re.compile(r"[A-Za-z0-9\-._~%!$&'()*+,;=:@/?\[\]]+", re.ASCII)
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")


@dataclass(frozen=True, slots=True)
class Target:
    """A URL that was checked, in the parts that a request is made of."""

    scheme: str
    host: str
    port: int
    path: str

    @property
    def authority(self) -> str:
        """Host and port as the `Host` header has them."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}{self.path}"


def parse_url(text: str, *, private: bool, ports: Collection[int] | None = None) -> Target:
    """Return the parts of an absolute URL. Raises PermanentError `unsafe_url`.

    `private` allows names of the local network. Ports are 80, 443 and `ports`; without `ports`, any is taken.
    """
    match = _URL.fullmatch(text) if len(text) <= URL_CHARACTERS_MAX else None
    if match is None:
        raise _unsafe("It is no plain http or https URL.")
    scheme = match["scheme"].lower()
    port = int(match["port"]) if match["port"] else _DEFAULT_PORTS[scheme]
    if not 1 <= port <= 65535 or (ports is not None and port not in {80, 443, *ports}):
        raise _unsafe("Its port is not allowed.")
    host = _ipv6(match["ipv6"]) if match["ipv6"] else _name(match["name"].lower(), private=private)
    path = match["path"] or "/"
    return Target(scheme, host, port, path if path.startswith("/") else f"/{path}")


def redirected(target: Target, location: str, *, private: bool, ports: Collection[int] | None) -> Target:
    """Return where an answer of `target` leads. Raises PermanentError `unsafe_url`."""
    # Looked at before it is joined: joining drops tabs and line breaks without a word.
    if len(location) > URL_CHARACTERS_MAX or not _REFERENCE.fullmatch(location):
        raise _unsafe("It redirects to something that is no plain URL.")
    found = parse_url(urljoin(str(target), location), private=private, ports=ports)
    if target.scheme == "https" and found.scheme == "http":
        raise _unsafe("It redirects from https to http.")
    return found


def with_query(base: str, path: str = "", query: Mapping[str, str | int] | None = None) -> str:
    """Return a URL below `base`, whose own query is kept: that is where some APIs want their keys."""
    head, _, fixed = base.partition("?")
    # Commas stay as they are: lists are written with them.
    parameters = "&".join(filter(None, (fixed, urlencode(query or {}, quote_via=quote, safe=","))))
    return f"{head.rstrip('/')}{path}{f'?{parameters}' if parameters else ''}"


def _ipv6(text: str) -> str:
    try:
        return str(IPv6Address(text))
    except ValueError:
        raise _unsafe("Its host is no IPv6 address.") from None


def _name(name: str, *, private: bool) -> str:
    labels = name.split(".")
    if len(name) > _NAME_CHARACTERS_MAX or any(not 1 <= len(label) <= _LABEL_CHARACTERS_MAX for label in labels):
        raise _unsafe("Its host is no name.")
    if _NUMBER.fullmatch(labels[-1]):
        # Resolvers take 127.1, 0x7f000001 and 017700000001 for addresses; here they have one form.
        try:
            return str(IPv4Address(name))
        except ValueError:
            raise _unsafe("Its host is a number that is no IPv4 address in the usual form.") from None
    if not private and (len(labels) == 1 or name.endswith(_LOCAL_ENDINGS)):
        raise _unsafe("Its host is not on the public Internet.")
    return name


def _unsafe(reason: str) -> CodedError:
    return failure("unsafe_url", reason)
