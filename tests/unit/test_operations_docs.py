"""What docs/operations.md says of settings, limits, logs and health is what the code and the compose files say."""

import re
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr, TypeAdapter
from pydantic.fields import FieldInfo

from execution_service.handlers.settings import HandlerSettings
from execution_service.settings import ExecutionSettings
from gateway.settings import GatewaySettings
from management_service.settings import ManagementSettings
from servicekit.settings import ServiceSettings, variable
from tests.unit.deploy.compose_files import BASE, DEPLOY, OVERLAYS, load, variables

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "operations.md").read_text()
SERVICES: dict[str, type[ServiceSettings]] = {
    "Gateway": GatewaySettings,
    "Management": ManagementSettings,
    "Execution": ExecutionSettings,
}
SOURCES = "".join(
    path.read_text()
    for folder in ("gateway", "management_service", "execution_service", "servicekit")
    for path in sorted((ROOT / folder).rglob("*.py"))
)
_BOUNDS = re.compile(
    r"(?:above (?P<gt>[\d.]+) and at most|at least (?P<least>[\d.]+)|(?P<ge>[\d.]+) to) ?(?P<le>[\d.]+)?"
)


def section(title: str) -> str:
    """What stands below a heading, up to the next of its level or above."""
    found = re.search(rf"^(#+) {re.escape(title)}\n(.*?)(?=^#{{1,2}} |\Z)", TEXT, re.MULTILINE | re.DOTALL)
    assert found, title
    text: str = found[2]
    return text if found[1] == "##" else text.split("\n### ")[0]


def rows(text: str) -> list[list[str]]:
    """The cells of the tables in a text, without their heads."""
    lines = re.findall(r"^\| (.*) \|$", text, re.MULTILINE)
    return [[cell.strip() for cell in line.split(" | ")] for line in lines if not line.startswith("variable |")]


def settings_table(title: str) -> dict[str, list[str]]:
    """Names, values, default and description by the variable's name."""
    return {re.findall(r"`(\w+)`", row[0])[0]: row for row in rows(section(title))}


def documented(title: str) -> dict[str, list[str]]:
    """The variables of a service: what it has of its own wins over what all have."""
    return settings_table("Every service") | settings_table(title)


FIELDS = [
    *((title, documented, name, field) for title, cls in SERVICES.items() for name, field in cls.model_fields.items()),
    *(("Built-in task types", settings_table, name, field) for name, field in HandlerSettings.model_fields.items()),
]


@pytest.mark.parametrize("title", SERVICES)
def test_every_setting_of_a_service_is_told_and_no_other(title: str) -> None:
    assert documented(title).keys() == {variable(name) for name in SERVICES[title].model_fields}


def test_every_setting_of_the_handlers_is_told_and_no_other() -> None:
    assert settings_table("Built-in task types").keys() == {variable(name) for name in HandlerSettings.model_fields}


@pytest.mark.parametrize(
    ("title", "table", "name", "field"), FIELDS, ids=lambda value: value if isinstance(value, str) else ""
)
def test_a_setting_has_the_default_and_the_bounds_that_are_told(
    title: str, table: Any, name: str, field: FieldInfo
) -> None:
    names, value, default, description = table(title)[variable(name)]
    assert description == field.description
    assert told_default(default, field) == actual_default(field)
    assert told_bounds(value) == actual_bounds(field)
    is_secret = field.annotation in (SecretStr, SecretStr | None)
    assert (f"`{variable(name)}_FILE`" in names) == is_secret == value.startswith("secret")


def told_default(cell: str, field: FieldInfo) -> object:
    """The default that a cell means, read as the service reads its environment."""
    if not cell.startswith("`"):
        return cell
    text = cell.strip("`")
    number = float(text) if field.annotation is timedelta else text
    assert field.annotation is not None
    adapter: TypeAdapter[object] = TypeAdapter(field.annotation)
    return adapter.validate_python(number)


def actual_default(field: FieldInfo) -> object:
    if field.is_required():
        return "required"
    return "–" if field.default_factory is not None or field.default in (None, ()) else field.default


def told_bounds(cell: str) -> dict[str, float]:
    found = _BOUNDS.search(cell)
    limits = {key: float(limit) for key, limit in found.groupdict().items() if limit} if found else {}
    if "least" in limits:
        limits["ge"] = limits.pop("least")
    return limits


def actual_bounds(field: FieldInfo) -> dict[str, float]:
    names = {"gt": "gt", "ge": "ge", "le": "le", "min_length": "ge", "max_length": "le"}
    found = {
        told: getattr(rule, name) for rule in field.metadata for name, told in names.items() if hasattr(rule, name)
    }
    return {
        name: float(limit.total_seconds() if isinstance(limit, timedelta) else limit) for name, limit in found.items()
    }


def test_every_choice_is_told() -> None:
    for title in SERVICES:
        for name, field in SERVICES[title].model_fields.items():
            if choices := getattr(field.annotation, "__args__", ()):
                told = documented(title)[variable(name)][1]
                assert all(f"`{choice}`" in told for choice in choices if isinstance(choice, str)), name


def test_all_variables_of_the_compose_files_are_told_with_their_defaults() -> None:
    used = {name: default for path in (*OVERLAYS, BASE) for name, default in variables(path).items()}
    told = {row[0].strip("`"): row[1].strip("`") for row in rows(section("Start"))}
    assert told.pop("COMPOSE_FILE") == BASE.name
    assert told == {name: default for name, default in used.items() if default is not None}
    required = {name for name, default in used.items() if default is None}
    assert required <= set(re.findall(r"`([A-Z_]+)`", section("Start")))


def test_the_limits_are_those_of_the_compose_file() -> None:
    told = {row[0].strip("`"): row[1:] for row in rows(section("Sizing"))[1:]}
    assert told == {name: limits(service) for name, service in load(BASE)["services"].items()}


def limits(service: Mapping[str, Any]) -> list[str]:
    deploy = service["deploy"]
    limits = deploy["resources"]["limits"]
    return [str(deploy.get("replicas", 1)), limits["cpus"], limits["memory"], str(limits["pids"])]


def test_containers_reach_those_that_are_told() -> None:
    services = load(BASE)["services"]
    told = {row[0].strip("`"): set(re.findall(r"`([a-z-]+)`", row[3])) for row in rows(section("What is what"))[1:]}
    assert told.keys() == services.keys()
    for name, reached in told.items():
        for other in reached:
            assert set(services[name]["networks"]) & set(services[other]["networks"]), (name, other)


def test_events_and_codes_are_those_of_the_code() -> None:
    words = {
        word
        for title in ("Where to look", "Failures", "Upgrades")
        for word in re.findall(r"`([a-z]+(?:_[a-z]+)+)`", section(title))
    }
    assert len(words) > 30
    said = SOURCES + (DEPLOY / "nginx" / "nginx.conf").read_text()
    assert not {word for word in words if f'"{word}"' not in said}


def test_everything_that_keeps_a_service_from_being_ready_is_told() -> None:
    told = {name for row in rows(section("Where to look")) if len(row) == 3 for name in re.findall(r"`(\w+)`", row[1])}
    checks = set(re.findall(r'readiness\.add(?:_flag)?\(\s*"(\w+)"', SOURCES))
    loops = set(re.findall(r'\("(\w+)", manager\.\w+\)', SOURCES))
    assert len(loops) == 4
    assert told == checks | loops


def test_the_metrics_are_those_of_the_gateway() -> None:
    told = set(re.findall(r"`(headrace_\w+)`", section("Where to look")))
    assert told
    assert not {name for name in told if f'"{name}"' not in SOURCES}


def test_as_many_replicas_fit_the_databases_as_is_told() -> None:
    management = int(re.findall(r"_DATABASE_CONNECTIONS = (\d+)", SOURCES)[0])
    execution = int(re.findall(r'name="results", max_size=(\d+)', SOURCES)[0])
    most = int(re.findall(r"(?m)^max_connections = (\d+)", (DEPLOY / "postgres" / "postgresql.conf").read_text())[0])
    # One more migrates; three are kept for the superuser.
    fitting = [(most - 3) // (connections + 1) for connections in (management, execution)]
    text = " ".join(section("Sizing").split())
    assert f"each server takes {most}." in text
    assert f"up to {management} to the task database" in text
    assert f"an execution replica {execution} and one" in text
    assert f"{fitting[0]} and {fitting[1]} replicas fit" in text


def test_the_list_of_contents_leads_to_every_section() -> None:
    anchors = re.findall(r"^- \[(.*)\]\(#(.*)\)$", TEXT, re.MULTILINE)
    assert [title for title, _ in anchors] == re.findall(r"^## (.*)$", TEXT, re.MULTILINE)
    assert all(anchor == title.lower().replace(" ", "-") for title, anchor in anchors)
