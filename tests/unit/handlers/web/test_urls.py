"""URLs are read strictly, and in one way."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from execution_service.handlers.web.urls import Target, parse_url, redirected, with_query
from headrace.tasks import PermanentError

_REFUSED = {
    "T23-localhost": "http://localhost/",
    "T23-localhost-below": "http://a.localhost/",
    "T23-zero": "http://0/",
    "T23-short": "http://127.1/",
    "T23-decimal": "http://2130706433/",
    "T23-hexadecimal": "http://0x7f000001/",
    "T23-hexadecimal-part": "http://127.0.0.0x1/",
    "T23-octal": "http://0177.0.0.1/",
    "T23-bad-ipv6": "http://[::1::]/",
    "T23-ipv6-with-zone": "http://[fe80::1%25eth0]/",
    "T24-decimal": "http://2852039166/",
    "T24-hexadecimal": "http://0xa9.0xfe.0xa9.0xfe/",
    "T24-octal": "http://0251.0376.0251.0376/",
    "T24-name": "http://metadata.google.internal/computeMetadata/v1/",
    "T25-own-service": "http://gateway/",
    "T25-printer": "http://printer.local/",
    "T28-file": "file:///etc/passwd",
    "T28-ftp": "ftp://api.example.org/",
    "T28-gopher": "gopher://api.example.org/",
    "T28-dict": "dict://api.example.org:11211/",
    "T28-data": "data:text/plain,hello",
    "T28-javascript": "javascript:alert(1)",
    "T28-no-scheme": "api.example.org/v1",
    "T28-relative-scheme": "//api.example.org/v1",
    "T28-no-host": "http:///v1",
    "T28-opaque": "http:api.example.org",
    "T28-empty": "",
    "T29-user": "http://user:pass@api.example.org/",
    "T29-two-users": "http://a@b@api.example.org/",
    "T29-fragment": "http://api.example.org#@evil.example.org/",
    "T29-backslash": "http://api.example.org\\@evil.example.org/",
    "T29-backslash-path": "http://api.example.org/\\evil",
    "T29-tab": "http://api.exam\tple.org/",
    "T29-newline": "http://api.example.org/\nHost: evil",
    "T29-newline-at-the-end": "http://api.example.org/\n",
    "T29-nul": "http://api.example.org/\0",
    "T29-space": "http://api.example.org/a b",
    "T29-leading-space": " http://api.example.org/",
    "T29-idn": "http://bücher.example.org/",
    "T29-full-width": "http://ａｐｉ.example.org/",
    "T29-kelvin-sign": "http://api.example.or\u212a/",
    "T29-10-kb": "http://api.example.org/" + "a" * 10_000,
    "T29-port-0": "http://api.example.org:0/",
    "T29-port-22": "http://api.example.org:22/",
    "T29-port-6379": "http://api.example.org:6379/",
    "T29-port-99999": "http://api.example.org:99999/",
    "T29-no-port": "http://api.example.org:/",
    "T29-other-digits": "http://api.example.org:８０/",
    "T29-empty-label": "http://api..example.org/",
    "T29-final-point": "http://api.example.org./",
    "T29-long-label": f"http://{'a' * 64}.example.org/",
    "T29-long-name": f"http://{'a.' * 130}org/",
}


@pytest.mark.parametrize("url", _REFUSED.values(), ids=_REFUSED)
def test_a_url_that_is_not_plain_and_public_is_refused(url: str) -> None:
    with pytest.raises(PermanentError) as refused:
        parse_url(url, private=False, ports=())
    assert refused.value.code == "unsafe_url"
    assert not url or url not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("https://api.example.org/v1?a=1,2", Target("https", "api.example.org", 443, "/v1?a=1,2")),
        ("HTTP://API.Example.ORG", Target("http", "api.example.org", 80, "/")),
        ("https://api.example.org?a=b", Target("https", "api.example.org", 443, "/?a=b")),
        ("https://xn--bcher-kva.example.org/", Target("https", "xn--bcher-kva.example.org", 443, "/")),
        ("http://1.1.1.1:80/", Target("http", "1.1.1.1", 80, "/")),
        ("https://[2606:4700:4700:0:0:0:0:1111]/", Target("https", "2606:4700:4700::1111", 443, "/")),
    ],
)
def test_a_plain_url_is_taken_apart(url: str, target: Target) -> None:
    assert parse_url(url, private=False, ports=()) == target
    assert parse_url(str(target), private=False, ports=()) == target


def test_names_and_ports_of_the_local_network_need_a_setting() -> None:
    assert parse_url("http://gateway:8080/", private=True) == Target("http", "gateway", 8080, "/")
    assert parse_url("http://localhost/", private=True).host == "localhost"


@pytest.mark.parametrize("url", ["http://127.1/", "http://0x7f000001/", "http://u@localhost/", "file:///x"])
def test_no_setting_makes_odd_urls_good(url: str) -> None:
    with pytest.raises(PermanentError, match="must not be called"):
        parse_url(url, private=True)


def test_a_port_that_was_configured_may_be_called() -> None:
    assert parse_url("https://api.example.org:8443/", private=False, ports=(8443,)).port == 8443
    assert parse_url("https://api.example.org:8443/", private=False).port == 8443


@pytest.mark.parametrize(
    ("target", "header"),
    [
        (Target("https", "api.example.org", 443, "/"), "api.example.org"),
        (Target("http", "api.example.org", 443, "/"), "api.example.org:443"),
        (Target("http", "::1", 80, "/"), "[::1]"),
        (Target("http", "::1", 8080, "/"), "[::1]:8080"),
    ],
)
def test_the_host_header_has_the_port_unless_it_goes_without_saying(target: Target, header: str) -> None:
    assert target.authority == header


_START = Target("https", "api.example.org", 443, "/v1/latest?base=EUR")


@pytest.mark.parametrize(
    ("location", "url"),
    [
        ("https://other.example.org/v2", "https://other.example.org/v2"),
        ("/v2/latest", "https://api.example.org/v2/latest"),
        ("newest", "https://api.example.org/v1/newest"),
        ("../x", "https://api.example.org/x"),
        ("?base=USD", "https://api.example.org/v1/latest?base=USD"),
        ("//other.example.org/v2", "https://other.example.org/v2"),
    ],
)
def test_a_redirect_may_be_relative(location: str, url: str) -> None:
    assert str(redirected(_START, location, private=False, ports=())) == url


_BAD_REDIRECTS = {
    "T27-private-name": "https://localhost/",
    "T27-odd-number": "https://2130706433/",
    "T27-file": "file:///etc/passwd",
    "T27-data": "data:text/plain,hello",
    "T27-downgrade": "http://api.example.org/v1/latest",
    "T27-port": "https://api.example.org:6379/",
    "T27-user": "https://user@api.example.org/",
    "T27-fragment": "/v1#part",
    "T27-empty": "",
    "T27-tab-in-scheme": "ht\ttps://api.example.org/",
    "T27-newline": "/v1\r\nX: y",
    "T27-backslash": "\\\\evil.example.org",
    "T27-not-ascii": "/Zürich",
    "T27-long": "/" + "a" * 2000,
}


@pytest.mark.parametrize("location", _BAD_REDIRECTS.values(), ids=_BAD_REDIRECTS)
def test_each_hop_is_judged(location: str) -> None:
    with pytest.raises(PermanentError) as refused:
        redirected(_START, location, private=False, ports=())
    assert refused.value.code == "unsafe_url"


def test_a_query_is_added_to_that_of_the_setting() -> None:
    assert with_query("https://h.org/v1", "/latest", {"base": "EUR"}) == "https://h.org/v1/latest?base=EUR"
    assert with_query("https://h.org/v1/?apikey=k", "/latest") == "https://h.org/v1/latest?apikey=k"
    assert with_query("https://h.org/f?apikey=k", query={"a": "x,y", "b": 1}) == "https://h.org/f?apikey=k&a=x,y&b=1"


@given(st.text(max_size=50))
def test_any_text_can_be_put_into_a_query(text: str) -> None:
    encodable = text.encode("utf-8", "replace").decode()
    url = with_query("https://api.example.org/v1", query={"name": encodable})
    assert parse_url(url, private=False, ports=()).host == "api.example.org"


@given(st.text(alphabet="htps:/@[]#?\\.%0x127aA\t\n ", max_size=40))
def test_whatever_is_taken_is_read_the_same_way_again(text: str) -> None:
    try:
        target = parse_url(f"http://{text}", private=True)
    except PermanentError:
        return
    assert parse_url(str(target), private=True) == target
