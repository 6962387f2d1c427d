"""The client against real servers on loopback that do everything wrong, and one that does it right."""

import asyncio
import socket
import ssl
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from pathlib import Path
from urllib.parse import quote

import httpcore
import pytest
from pydantic import BaseModel

from execution_service.handlers.web import client as client_module
from execution_service.handlers.web.client import REDIRECTS_MAX, SPARE_SECONDS, WebClient, web_client
from headrace.tasks import CodedError, TransientError
from tests.support.bad_upstream import CERTIFICATE, HOST, NAME, WAYS, BadUpstream, bad_upstream
from tests.support.waiting import wait_until

_SHORT_SECONDS = 0.3


class _Ok(BaseModel):
    ok: bool


async def _resolve_to_loopback(host: str, port: int) -> Sequence[str]:
    return [HOST]


@pytest.fixture
async def upstream() -> AsyncIterator[BadUpstream]:
    async with bad_upstream() as server:
        yield server


@pytest.fixture
async def client() -> AsyncIterator[WebClient]:
    """A client that may call the servers of the tests."""
    client = WebClient(private_addresses=True, resolve=_resolve_to_loopback)
    yield client
    await client.close()


@pytest.fixture
async def public_client() -> AsyncIterator[WebClient]:
    """A client as it is by default, for which every name leads to this machine."""
    client = WebClient(resolve=_resolve_to_loopback)
    yield client
    await client.close()


async def _error(client: WebClient, url: str, *, seconds: float = 5) -> CodedError:
    began = time.monotonic()
    with pytest.raises(CodedError) as failed:
        await client.get(url, _Ok, deadline=began + seconds + SPARE_SECONDS)
    assert time.monotonic() - began < seconds + 1
    assert HOST not in str(failed.value)
    return failed.value


@pytest.mark.parametrize("path", ["/good", "/gzip", "/redirects/1", f"/redirects/{REDIRECTS_MAX}"])
async def test_a_good_answer_is_returned(client: WebClient, upstream: BadUpstream, path: str) -> None:
    assert (await client.get(upstream.url(path), _Ok)).ok


async def test_one_connection_serves_several_calls_and_a_request_says_only_what_it_must(
    client: WebClient, upstream: BadUpstream
) -> None:
    for _ in range(3):
        await client.get(upstream.url("/good?a=b"), _Ok)
    assert upstream.connections == 1
    line, *headers = upstream.heads[0].strip().split("\r\n")
    assert line == "GET /good?a=b HTTP/1.1"
    names = [header.split(":")[0].lower() for header in headers]
    assert sorted(names) == ["accept", "accept-encoding", "host", "user-agent"]
    assert f"Host: {HOST}:{upstream.port}" in headers
    assert any(header.startswith("User-Agent: headrace/") for header in headers)


_BODIES = {
    "T30-endless": ("endless", "response_too_large"),
    "T30-1-gb": ("huge", "response_too_large"),
    "T30-large": ("large", "response_too_large"),
    "T30-gzip-bomb": ("bomb", "response_too_large"),
    "T30-gzip-bomb-in-gzip": ("double-bomb", "malformed_response"),
    "T30-half-a-gzip": ("half-gzip", "malformed_response"),
    "T30-no-gzip": ("no-gzip", "malformed_response"),
    "T30-more-than-a-gzip": ("tail-gzip", "malformed_response"),
    "T30-brotli": ("brotli", "malformed_response"),
    "T30-no-head": ("no-head", "malformed_response"),
    "T30-other-protocol": ("banner", "malformed_response"),
    "T30-10000-headers": ("headers", "malformed_response"),
    "T30-too-long-a-length": ("long", "malformed_response"),
    "T30-too-short-a-length": ("short", "malformed_response"),
    "T30-negative-length": ("negative", "malformed_response"),
    "T30-invalid-chunk": ("chunks", "malformed_response"),
    "T30-closed": ("close", "malformed_response"),
    "T30-invalid-charset": ("latin-1", "malformed_response"),
    "T30-utf-16": ("utf-16", "malformed_response"),
    "T30-html": ("html", "malformed_response"),
    "T30-deep": ("deep", "malformed_response"),
    "T30-nan": ("nan", "malformed_response"),
    "T30-10000-digits": ("digits", "malformed_response"),
    "T30-endless-exponent": ("exponent", "malformed_response"),
    "T30-list": ("list", "malformed_response"),
    "T30-other-content": ("other", "malformed_response"),
}
_SLOW = {
    "T30-1-byte-at-a-time": "drip",
    "T30-head-1-byte-at-a-time": "drip-head",
    "T30-silent": "silent",
    "T30-endless-interim-answers": "endless-interim",
}


def test_every_way_to_misbehave_is_tested() -> None:
    assert {"good", "gzip", "reset", *_SLOW.values(), *(way for way, _ in _BODIES.values())} == WAYS


@pytest.mark.parametrize(("way", "code"), _BODIES.values(), ids=_BODIES)
async def test_a_bad_answer_has_its_code(client: WebClient, upstream: BadUpstream, way: str, code: str) -> None:
    error = await _error(client, upstream.url(f"/{way}"))
    assert error.code == code
    assert isinstance(error, TransientError) == (code == "malformed_response")
    # The client is none the worse for it.
    assert (await client.get(upstream.url(), _Ok)).ok


@pytest.mark.parametrize("way", _SLOW.values(), ids=_SLOW)
async def test_a_slow_answer_ends_at_the_deadline(client: WebClient, upstream: BadUpstream, way: str) -> None:
    error = await _error(client, upstream.url(f"/{way}"), seconds=_SHORT_SECONDS)
    assert (error.code, isinstance(error, TransientError)) == ("upstream_timeout", True)
    assert (await client.get(upstream.url(), _Ok)).ok


async def test_silence_ends_a_call_long_before_the_deadline(
    client: WebClient, upstream: BadUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "SILENCE_SECONDS_MAX", 0.1)
    assert (await _error(client, upstream.url("/silent"))).code == "upstream_timeout"


async def test_a_call_has_a_limit_of_its_own(
    client: WebClient, upstream: BadUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "CALL_SECONDS_MAX", 0.2)
    for deadline in (None, time.monotonic() + 3600):
        with pytest.raises(TransientError, match="did not answer in time"):
            await client.get(upstream.url("/drip"), _Ok, deadline=deadline)


async def test_without_time_left_nothing_is_asked(client: WebClient, upstream: BadUpstream) -> None:
    assert (await _error(client, upstream.url(), seconds=0)).code == "upstream_timeout"
    assert upstream.heads == []


_STATUSES = {
    "T32-204": (204, "malformed_response"),
    "T32-304": (304, "malformed_response"),
    "T32-302-without-location": (302, "malformed_response"),
    "T32-400": (400, "upstream_refused"),
    "T32-429": (429, "rate_limited"),
    "T32-500": (500, "upstream_error"),
    "T32-503": (503, "upstream_error"),
}


@pytest.mark.parametrize(("status", "code"), _STATUSES.values(), ids=_STATUSES)
async def test_a_status_has_its_code(client: WebClient, upstream: BadUpstream, status: int, code: str) -> None:
    error = await _error(client, upstream.url(f"/status/{status}"))
    assert error.code == code
    assert ("It is Monday" in str(error)) == (400 <= status < 500)


async def test_t32_a_reset_is_unreachable(client: WebClient, upstream: BadUpstream) -> None:
    error = await _error(client, upstream.url("/reset"))
    assert (error.code, isinstance(error, TransientError)) == ("upstream_unreachable", True)


async def test_t32_a_refused_connection_is_unreachable(client: WebClient) -> None:
    with socket.socket() as taken:
        taken.bind((HOST, 0))  # bound, and nobody listens
        error = await _error(client, f"http://{HOST}:{taken.getsockname()[1]}/")
    assert (error.code, isinstance(error, TransientError)) == ("upstream_unreachable", True)


async def test_t32_a_name_that_is_not_known_is_unreachable() -> None:
    async def unknown(host: str, port: int) -> Sequence[str]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    client = WebClient(resolve=unknown)
    error = await _error(client, "https://api.example.org/")
    assert (error.code, isinstance(error, TransientError)) == ("upstream_unreachable", True)
    await client.close()


async def test_a_look_up_that_takes_too_long_is_a_timeout() -> None:
    async def never(host: str, port: int) -> Sequence[str]:
        await asyncio.Event().wait()
        return []

    client = WebClient(resolve=never)
    assert (await _error(client, "https://api.example.org/", seconds=0.1)).code == "upstream_timeout"
    await client.close()


_PRIVATE_HOSTS = {
    "T23-127.0.0.1": HOST,
    "T23-localhost": "localhost",
    "T23-ipv6": "[::1]",
    "T23-unspecified": "0.0.0.0",
    "T23-zero": "0",
    "T23-short": "127.1",
    "T23-decimal": "2130706433",
    "T23-hexadecimal": "0x7f000001",
    "T23-octal": "0177.0.0.1",
    "T23-a-name-of-loopback": "127.0.0.1.nip.example",
    "T23-mapped": "[::ffff:127.0.0.1]",
    "T23-nat64": "[64:ff9b::7f00:1]",
}


@pytest.mark.parametrize("host", _PRIVATE_HOSTS.values(), ids=_PRIVATE_HOSTS)
async def test_this_machine_is_not_called_by_default(
    public_client: WebClient, upstream: BadUpstream, host: str
) -> None:
    assert (await _error(public_client, upstream.url(host=host))).code == "unsafe_url"
    assert upstream.connections == 0


async def test_t26_a_name_that_becomes_forbidden_is_refused_at_the_next_connection(upstream: BadUpstream) -> None:
    answers = iter([[HOST], ["169.254.169.254"]])

    async def rebinding(host: str, port: int) -> Sequence[str]:
        return next(answers)

    client = WebClient(private_addresses=True, resolve=rebinding)
    assert (await client.get(upstream.url("/gzip", host=NAME), _Ok)).ok  # this way closes its connection
    assert (await _error(client, upstream.url("/gzip", host=NAME))).code == "unsafe_url"
    assert upstream.connections == 1
    await client.close()


_HOPS = {
    "T27-metadata": "http://169.254.169.254/latest/meta-data/",
    "T27-multicast": "http://224.0.0.1/",
    "T27-odd-number": "http://2852039166/",
    "T27-file": "file:///etc/passwd",
    "T27-user": "http://user@api.example.org/",
}


@pytest.mark.parametrize("location", _HOPS.values(), ids=_HOPS)
async def test_a_redirect_to_what_must_not_be_called_is_refused(
    client: WebClient, upstream: BadUpstream, location: str
) -> None:
    error = await _error(client, upstream.url(f"/redirect?to={quote(location, safe='')}"))
    assert error.code == "unsafe_url"
    assert location not in str(error)


@pytest.mark.parametrize("count", [REDIRECTS_MAX + 1, 21])
async def test_t27_too_many_redirects_are_not_followed(client: WebClient, upstream: BadUpstream, count: int) -> None:
    error = await _error(client, upstream.url(f"/redirects/{count}"))
    assert (error.code, isinstance(error, TransientError)) == ("too_many_redirects", False)
    assert len(upstream.heads) == REDIRECTS_MAX + 1


class _SmallInternet(httpcore.AsyncNetworkBackend):
    """Takes connections to one public address to loopback, and every other one where it is meant to go."""

    def __init__(self) -> None:
        self._real = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        return await self._real.connect_tcp(HOST if host == "1.1.1.1" else host, port, timeout)


@pytest.mark.parametrize("inner", ["127.0.0.2", "inner.example.org"])
async def test_t27_from_the_internet_no_redirect_leads_to_a_private_server(upstream: BadUpstream, inner: str) -> None:
    async def names(host: str, port: int) -> Sequence[str]:
        return ["1.1.1.1" if host == NAME else "127.0.0.2"]

    async with bad_upstream(host="127.0.0.2", port=upstream.port) as private:
        client = WebClient(resolve=names, network=_SmallInternet())
        assert (await client.get(upstream.url("/redirects/2", host=NAME), _Ok)).ok
        location = quote(private.url(host=inner), safe="")
        assert (await _error(client, upstream.url(f"/redirect?to={location}", host=NAME))).code == "unsafe_url"
        assert (len(upstream.heads), private.connections) == (4, 0)
        await client.close()


async def test_t27_from_the_internet_a_redirect_leads_to_ordinary_ports_alone(upstream: BadUpstream) -> None:
    async def names(host: str, port: int) -> Sequence[str]:
        return ["1.1.1.1"]

    async with bad_upstream() as other:
        client = WebClient(resolve=names, network=_SmallInternet())
        location = quote(other.url(host=NAME), safe="")
        assert (await _error(client, upstream.url(f"/redirect?to={location}", host=NAME))).code == "unsafe_url"
        assert other.connections == 0
        await client.close()


async def test_tls_speaks_of_the_name_while_the_connection_goes_to_the_address() -> None:
    trusting = ssl.create_default_context(cafile=CERTIFICATE)
    async with bad_upstream(tls=True) as upstream:
        client = WebClient(private_addresses=True, resolve=_resolve_to_loopback, ssl_context=trusting)
        assert (await client.get(upstream.url(host=NAME), _Ok)).ok
        assert upstream.server_names == [NAME]
        assert f"Host: {NAME}:{upstream.port}\r\n" in upstream.heads[0]
        error = await _error(client, upstream.url(host="other.example.org"))
        assert error.code == "invalid_certificate"
        await client.close()


async def test_t30_a_certificate_that_nobody_vouches_for_is_refused(client: WebClient) -> None:
    async with bad_upstream(tls=True) as upstream:
        error = await _error(client, upstream.url(host=NAME))
    assert (error.code, isinstance(error, TransientError)) == ("invalid_certificate", False)
    assert upstream.heads == []


async def test_a_server_that_says_nothing_when_asked_for_tls_is_left_at_the_deadline(
    client: WebClient, upstream: BadUpstream
) -> None:
    error = await _error(client, upstream.url(host=NAME).replace("http:", "https:"), seconds=_SHORT_SECONDS)
    assert error.code == "upstream_timeout"
    # The connection does not stay open: the server sees its end.
    await wait_until(lambda: upstream.connections_open == 0)


async def test_t27_https_does_not_lead_to_http(upstream: BadUpstream) -> None:
    trusting = ssl.create_default_context(cafile=CERTIFICATE)
    async with bad_upstream(tls=True) as secure:
        client = WebClient(private_addresses=True, resolve=_resolve_to_loopback, ssl_context=trusting)
        error = await _error(client, secure.url(f"/redirect?to={quote(upstream.url(), safe='')}", host=NAME))
        await client.close()
    assert error.code == "unsafe_url"
    assert upstream.connections == 0


async def test_t33_neither_proxies_nor_passwords_come_from_the_environment(
    upstream: BadUpstream, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text(f"machine {HOST} login user password secret\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    async with bad_upstream() as proxy:
        for name in ("http_proxy", "https_proxy", "all_proxy"):
            monkeypatch.setenv(name, proxy.url(""))
            monkeypatch.setenv(name.upper(), proxy.url(""))
        monkeypatch.delenv("NO_PROXY", raising=False)
        client = WebClient(private_addresses=True)
        assert (await client.get(upstream.url(), _Ok)).ok
        assert (proxy.connections, upstream.connections) == (0, 1)
        assert "authorization" not in upstream.heads[0].lower()
        await client.close()


async def test_many_calls_share_a_bounded_number_of_connections(client: WebClient, upstream: BadUpstream) -> None:
    answers = await asyncio.gather(*(client.get(upstream.url(), _Ok) for _ in range(40)))
    assert all(answer.ok for answer in answers)
    assert upstream.connections <= client_module.CONNECTIONS_MAX


async def test_a_call_can_be_cancelled_and_the_client_used_on(client: WebClient, upstream: BadUpstream) -> None:
    call = asyncio.create_task(client.get(upstream.url("/silent"), _Ok))
    await wait_until(lambda: upstream.heads)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert (await client.get(upstream.url(), _Ok)).ok


def test_each_loop_has_one_client_which_ends_with_it() -> None:
    async def twice() -> WebClient:
        first, second = await web_client(), await web_client()
        assert first is second
        async with bad_upstream() as upstream:
            assert (await first.get(upstream.url(), _Ok)).ok
        return first

    # Connections that stayed open would be warned of, and warnings are errors here.
    assert asyncio.run(twice()) is not asyncio.run(twice())
    assert not client_module._held
