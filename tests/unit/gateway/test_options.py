import pytest

from gateway.bodies import decode_task
from gateway.options import option_errors, parse_time


def errors(options: str) -> list[tuple[str, str]]:
    body = decode_task(f'{{"type":"noop","data":{{}},{options}}}'.encode())
    return [(error.field, error.rule) for error in option_errors(body, "")]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ('"priority":-1', ("/priority", "minimum")),
        ('"priority":10', ("/priority", "maximum")),
        ('"priority":100000000000000000000', ("/priority", "maximum")),
        ('"timeout":0', ("/timeout", "minimum")),
        ('"timeout":-1', ("/timeout", "minimum")),
        ('"timeout":3601', ("/timeout", "maximum")),
        ('"max_attempts":0', ("/max_attempts", "minimum")),
        ('"max_attempts":21', ("/max_attempts", "maximum")),
        ('"delay":-1', ("/delay", "minimum")),
        ('"delay":1e300', ("/delay", "maximum")),
        ('"run_at":"tomorrow"', ("/run_at", "format")),
        ('"run_at":"2026-02-30T00:00:00Z"', ("/run_at", "format")),
        ('"run_at":"2030-01-01T00:00:00"', ("/run_at", "format")),
        ('"run_at":"99999-01-01T00:00:00Z"', ("/run_at", "format")),
        ('"run_at":"2030-01-01T25:00:00Z"', ("/run_at", "format")),
        ('"run_at":"2030-01-01T00:00:00Z","delay":5', ("/run_at", "exclusive")),
        ('"expires_in":0', ("/expires_in", "exclusive_minimum")),
        ('"expires_in":-0.5', ("/expires_in", "exclusive_minimum")),
        ('"expires_in":31536000.5', ("/expires_in", "maximum")),
        ('"expires_in":1e300', ("/expires_in", "maximum")),
        ('"soft_timeout":0.09', ("/soft_timeout", "minimum")),
        ('"soft_timeout":3601', ("/soft_timeout", "maximum")),
        ('"backoff":{"initial":0}', ("/backoff/initial", "minimum")),
        ('"backoff":{"initial":86401}', ("/backoff/initial", "maximum")),
        ('"backoff":{"factor":0.5}', ("/backoff/factor", "minimum")),
        ('"backoff":{"factor":10.5}', ("/backoff/factor", "maximum")),
        ('"backoff":{"maximum":0.0001}', ("/backoff/maximum", "minimum")),
        ('"backoff":{"maximum":1e9}', ("/backoff/maximum", "maximum")),
    ],
)
def test_options_outside_their_range_are_refused(options: str, expected: tuple[str, str]) -> None:
    assert errors(options) == [expected]


@pytest.mark.parametrize(
    "options",
    [
        '"priority":0',
        '"priority":9',
        '"timeout":1',
        '"timeout":3600',
        '"max_attempts":20',
        '"delay":0',
        '"delay":0.5',
        '"expires_in":0.001',
        '"expires_in":31536000',
        '"soft_timeout":0.1',
        '"soft_timeout":3600',
        '"backoff":{}',
        '"backoff":{"initial":0.001,"factor":1,"maximum":86400}',
        '"backoff":{"initial":86400,"factor":10,"maximum":86400}',
    ],
)
def test_options_at_their_bounds_are_fine(options: str) -> None:
    assert errors(options) == []


def test_every_wrong_option_is_named() -> None:
    assert errors('"priority":10,"timeout":0') == [("/priority", "maximum"), ("/timeout", "minimum")]


def test_times_keep_their_zone_and_fraction() -> None:
    time = parse_time("2030-01-01T02:00:00.25+02:00")
    assert time is not None
    assert time.ToJsonString() == "2030-01-01T00:00:00.250Z"


@pytest.mark.parametrize("text", ["1970-01-01T00:00:00+14:00", "0001-01-01T00:00:00+14:00", "1969-12-31T23:59:59Z"])
def test_times_long_gone_are_due_at_once(text: str) -> None:
    time = parse_time(text)
    assert time is not None
    assert time.seconds == 0


def test_the_last_day_of_the_calendar_is_a_time() -> None:
    assert parse_time("9999-12-31T23:59:59-14:00") is not None
