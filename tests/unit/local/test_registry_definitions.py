"""What the registry understands of a registration."""

import pytest

from headrace.local.registry.definitions import (
    CheckStatus,
    InvalidRequestError,
    parse_duration,
    parse_service,
)


def test_names_of_fields_are_read_in_any_spelling() -> None:
    check = {"GRPC": "127.0.0.1:1/x", "Interval": "2s", "deregister_critical_service_after": "90m"}
    service = parse_service({"Name": "a", "ID": "a-1", "Address": "127.0.0.1", "port": 7, "Check": check})
    assert (service.service_id, service.name, service.address, service.port) == ("a-1", "a", "127.0.0.1", 7)
    assert service.checks[0].grpc == "127.0.0.1:1/x"
    assert service.checks[0].interval == 2.0
    assert service.checks[0].deregister_after == 5400.0


def test_a_service_is_not_removed_before_a_minute() -> None:
    service = parse_service({"name": "a", "check": {"ttl": "1s", "DeregisterCriticalServiceAfter": "5s"}})
    assert service.checks[0].deregister_after == 60.0


def test_a_service_without_an_id_has_its_name_as_id() -> None:
    assert parse_service({"name": "a"}).service_id == "a"


def test_a_check_starts_as_critical() -> None:
    service = parse_service({"name": "a", "checks": [{"ttl": "1s"}, {"ttl": "1s", "status": "passing"}]})
    assert [check.initial_status for check in service.checks] == [CheckStatus.CRITICAL, CheckStatus.PASSING]


@pytest.mark.parametrize(
    ("text", "seconds"), [("10s", 10.0), ("1m30s", 90.0), ("500ms", 0.5), ("1.5h", 5400.0), ("0s", 0.0)]
)
def test_durations_are_read_as_go_writes_them(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "10", "s", "10 s", "-1s", "10x", "1s!"])
def test_other_durations_are_refused(text: str) -> None:
    with pytest.raises(InvalidRequestError):
        parse_duration(text)


@pytest.mark.parametrize(
    "body",
    [
        None,
        [],
        {"name": ""},
        {"name": 7},
        {"name": "a", "port": -1},
        {"name": "a", "port": "80"},
        {"name": "a", "tags": "blue"},
        {"name": "a", "meta": {"x": 1}},
        {"name": "a", "check": {}, "checks": [{"interval": "1s"}]},
        {"name": "a", "check": {"grpc": "x", "ttl": "1s", "interval": "1s"}},
        {"name": "a", "check": {"ttl": "1s", "status": "splendid"}},
        {"name": "a", "check": {"grpc": "x"}},
        {"name": "a", "checks": [{"ttl": "1s"}] * 9},
        {"name": "a" * 257},
    ],
)
def test_bad_registrations_are_refused(body: object) -> None:
    with pytest.raises(InvalidRequestError):
        parse_service(body)
