"""What a service says about itself when it registers, read from the JSON that Consul clients send."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

CHECKS_MAX = 8
NAME_LENGTH_MAX = 256
META_MAX = 64
# Consul's own floors: a shorter time is raised to them without a word.
DEREGISTER_SECONDS_MIN = 60.0
INTERVAL_SECONDS_MIN = 1.0
TIMEOUT_SECONDS = 10.0

_DURATION_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ms|h|m|s)")
_UNIT_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


class InvalidRequestError(Exception):
    """The request cannot be understood; the message goes back to the client with status 400."""


class CheckStatus(StrEnum):
    PASSING = "passing"
    WARNING = "warning"
    CRITICAL = "critical"


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckDefinition:
    """One check: exactly one of `grpc`, `http` (we ask every `interval`) and `ttl` (the service tells us) is set."""

    check_id: str
    name: str
    grpc: str = ""
    http: str = ""
    ttl: float = 0.0
    interval: float = INTERVAL_SECONDS_MIN
    timeout: float = TIMEOUT_SECONDS
    deregister_after: float | None = None
    initial_status: CheckStatus = CheckStatus.CRITICAL

    @property
    def kind(self) -> str:
        return "grpc" if self.grpc else "http" if self.http else "ttl"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceDefinition:
    """One instance of a service. `service_id` is unique in the registry, `name` is what others look for."""

    service_id: str
    name: str
    address: str
    port: int
    tags: tuple[str, ...] = ()
    meta: Mapping[str, str] = field(default_factory=dict)
    checks: tuple[CheckDefinition, ...] = ()


def parse_service(body: object) -> ServiceDefinition:
    """Read the body of a registration. Raises InvalidRequestError."""
    fields = _Fields(body)
    name = fields.text("name")
    if not name:
        raise InvalidRequestError("Missing service name")
    service_id = fields.text("id") or name
    checks = [check for check in (fields.value("check"), *fields.items("checks")) if check]
    if len(checks) > CHECKS_MAX:
        raise InvalidRequestError(f"A service has at most {CHECKS_MAX} checks")
    return ServiceDefinition(
        service_id=service_id,
        name=name,
        address=fields.text("address"),
        port=fields.port("port"),
        tags=tuple(_text("tags", tag) for tag in fields.items("tags")),
        meta=fields.mapping("meta"),
        checks=tuple(
            _parse_check(check, name=name, default_id=_check_id(service_id, number, len(checks)))
            for number, check in enumerate(checks, start=1)
        ),
    )


def parse_duration(text: str) -> float:
    """Return the seconds in a duration as Go writes it: `10s`, `1m30s`, `500ms`. Raises InvalidRequestError."""
    parts = _DURATION_PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise InvalidRequestError(f'Invalid duration "{text[:NAME_LENGTH_MAX]}"')
    return sum(float(number) * _UNIT_SECONDS[unit] for number, unit in parts)


def _check_id(service_id: str, number: int, total: int) -> str:
    return f"service:{service_id}" if total == 1 else f"service:{service_id}:{number}"


def _parse_check(body: object, *, name: str, default_id: str) -> CheckDefinition:
    fields = _Fields(body)
    deregister_after = fields.duration("deregistercriticalserviceafter")
    definition = CheckDefinition(
        check_id=fields.text("checkid") or default_id,
        name=fields.text("name") or f"Service '{name}' check",
        grpc=fields.text("grpc"),
        http=fields.text("http"),
        ttl=fields.duration("ttl") or 0.0,
        interval=max(fields.duration("interval") or 0.0, INTERVAL_SECONDS_MIN),
        timeout=fields.duration("timeout") or TIMEOUT_SECONDS,
        deregister_after=None if deregister_after is None else max(deregister_after, DEREGISTER_SECONDS_MIN),
        initial_status=_parse_status(fields.text("status") or CheckStatus.CRITICAL),
    )
    if [bool(definition.grpc), bool(definition.http), bool(definition.ttl)].count(True) != 1:
        raise InvalidRequestError("A check has exactly one of GRPC, HTTP and TTL")
    if not definition.ttl and not fields.text("interval"):
        raise InvalidRequestError("A check that is not a TTL needs an Interval")
    return definition


def _parse_status(text: str) -> CheckStatus:
    try:
        return CheckStatus(text)
    except ValueError:
        raise InvalidRequestError(f'Invalid check status "{text}"') from None


class _Fields:
    """A JSON object with the tolerance of Consul: case and underscores in names do not matter."""

    def __init__(self, body: object) -> None:
        if not isinstance(body, dict):
            raise InvalidRequestError("A JSON object is expected")
        self._values = {str(key).lower().replace("_", ""): value for key, value in body.items()}

    def value(self, name: str) -> object:
        return self._values.get(name)

    def text(self, name: str) -> str:
        return _text(name, self._values.get(name) or "")

    def items(self, name: str) -> list[object]:
        value = self._values.get(name) or []
        if not isinstance(value, list) or len(value) > META_MAX:
            raise InvalidRequestError(f"{name} is not a list of at most {META_MAX}")
        return value

    def mapping(self, name: str) -> dict[str, str]:
        value = self._values.get(name) or {}
        if not isinstance(value, dict) or len(value) > META_MAX:
            raise InvalidRequestError(f"{name} is not an object of at most {META_MAX}")
        return {_text(name, key): _text(name, item) for key, item in value.items()}

    def port(self, name: str) -> int:
        value = self._values.get(name) or 0
        if not isinstance(value, int) or not 0 <= value <= 65535:
            raise InvalidRequestError(f"{name} is not a port number")
        return value

    def duration(self, name: str) -> float | None:
        text = self.text(name)
        return parse_duration(text) if text else None


def _text(name: str, value: object) -> str:
    if not isinstance(value, str) or len(value) > NAME_LENGTH_MAX:
        raise InvalidRequestError(f"{name} is not a string of at most {NAME_LENGTH_MAX} characters")
    return value
