"""docs/guarantees.md and the fault tests name the same scenarios, and its numbers are those of the code."""

import re
import subprocess
import sys
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path

import pytest

from execution_service.service import BEAT_SECONDS
from execution_service.settings import ExecutionSettings
from execution_service.workers.lease_page import START_LIMIT_SECONDS
from gateway.redis_gate import SOCKET_SECONDS
from gateway.settings import GatewaySettings
from headrace.tasks import TaskDefinition, definition_of, task
from management_service.domain.backoff import DEFAULT_BACKOFF
from management_service.domain.echoes import DEAF_SECONDS
from management_service.domain.leases import SCAN_SECONDS, SILENCE_SECONDS, SILENCE_WHEN_GONE_SECONDS
from management_service.domain.task import REPLICA_LOSSES_MAX, SOLITARY_LOSSES, WORKER_DEATHS_MAX
from management_service.settings import ManagementSettings
from servicekit.settings import ServiceSettings

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "guarantees.md").read_text()
FAULT_TESTS = ROOT / "tests" / "faults"
MIB = 1024 * 1024

# A program of its own, started by `make chaos`.
SOAK = "F85"
CRASH_ACTIONS = ("kill", "stop", "raise")

_ID = re.compile(r"\b[FC][0-9]{2}\b")
# `test_f10_…` names a scenario; so may the id of a case, as in `test_ambiguous[F21-…]`.
_SCENARIO = re.compile(r"(?<![A-Za-z0-9])[fF]([0-9]{2})(?![0-9])")
_CRASH_CASE = re.compile(r"(?<![A-Za-z0-9])(C[0-9]{2})-([a-z]+)")
_INVARIANT = re.compile(r"\bI(?:[1-9]|1[0-9])\b")


def section(title: str) -> str:
    """The text below a heading, up to the next one."""
    match = re.search(rf"^#+ {re.escape(title)}\n(.*?)(?=^#+ |\Z)", DOCUMENT, re.MULTILINE | re.DOTALL)
    assert match is not None, title
    return match.group(1)


def rows(title: str) -> list[list[str]]:
    """The cells of the table in a section, without its head."""
    lines = [line for line in section(title).splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def first_cells(title: str) -> list[str]:
    return [cells[0] for cells in rows(title)]


def scenarios_in(test_names: Iterable[str]) -> set[str]:
    return {f"F{number}" for name in test_names for number in _SCENARIO.findall(name)}


def crash_cases_in(test_names: Iterable[str]) -> set[tuple[str, str]]:
    return {(point, action) for name in test_names for point, action in _CRASH_CASE.findall(name)}


@pytest.fixture(scope="module")
def fault_test_names() -> list[str]:
    """The names of all fault tests, also of those that `make test` leaves out, without their paths."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-o", "addopts=", "-p", "no:cacheprovider"]
    found = subprocess.run(
        [*command, str(FAULT_TESTS)], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert found.returncode == 0, found.stdout + found.stderr
    return [line.partition("::")[2] for line in found.stdout.splitlines() if "::" in line]


def test_the_scenarios_of_the_document_are_those_that_are_tested(fault_test_names: list[str]) -> None:
    documented = first_cells("Fault scenarios")

    assert len(documented) == len(set(documented))
    assert scenarios_in(fault_test_names) - {SOAK} == set(documented)


def test_each_crash_point_is_tested_in_three_ways(fault_test_names: list[str]) -> None:
    documented = first_cells("Crash points")

    assert documented == [f"C{number:02}" for number in range(1, 19)]
    assert crash_cases_in(fault_test_names) == {(point, action) for point in documented for action in CRASH_ACTIONS}


def test_the_soak_can_be_started() -> None:
    assert SOAK in section("How it is tested")
    assert re.search(r"^chaos:", (ROOT / "Makefile").read_text(), re.MULTILINE)


def test_ids_are_found_in_names_of_tests() -> None:
    names = ["test_f10_one_manager_is_killed", "test_lost_answers[F21-claim]", "test_f15_f16_cut_off", "test_of1099"]

    assert scenarios_in(names) == {"F10", "F15", "F16", "F21"}
    assert crash_cases_in(["test_crash_point[C08-kill]", "test_crash_point[C13-raise-2]"]) == {
        ("C08", "kill"),
        ("C13", "raise"),
    }


def test_every_promise_is_shown_by_tests_that_the_document_defines() -> None:
    defined = {*first_cells("Fault scenarios"), *first_cells("Crash points")}

    assert first_cells("Promises") == [f"P{number}" for number in range(1, 21)]
    for promise, _, _, shown_by, _ in rows("Promises"):
        ids = shown_by.split(", ")
        assert ids, promise
        assert set(ids) <= defined, promise
        assert ids == sorted(set(ids), key=lambda id_: (id_[0] == "C", id_)), promise


def test_every_scenario_and_crash_point_is_used() -> None:
    used = set(_ID.findall(section("Promises"))) | set(_ID.findall(section("What is not promised")))

    assert {*first_cells("Fault scenarios"), *first_cells("Crash points")} <= used


def test_invariants_that_the_fault_tests_speak_of_are_defined() -> None:
    documented = first_cells("Invariants")
    spoken_of = {id_ for path in FAULT_TESTS.rglob("*.py") for id_ in _INVARIANT.findall(path.read_text())}

    assert documented == [f"I{number}" for number in range(1, 17)]
    assert spoken_of <= set(documented)


def seconds(value: float | timedelta) -> str:
    number = value.total_seconds() if isinstance(value, timedelta) else value
    return f"{number:g} s"


def default(settings: type[ServiceSettings], name: str) -> object:
    return settings.model_fields[name].default


def default_seconds(settings: type[ServiceSettings], name: str) -> str:
    value = default(settings, name)
    assert isinstance(value, timedelta)
    return seconds(value)


def default_mib(settings: type[ServiceSettings], name: str) -> str:
    value = default(settings, name)
    assert isinstance(value, int)
    return f"{value // MIB:,} MiB"


def a_task_type() -> TaskDefinition:
    @task("guaranteed")
    def guaranteed(data: dict[str, int]) -> dict[str, int]:
        return data

    return definition_of(guaranteed)


def test_the_numbers_are_those_of_the_code() -> None:
    retention = default(ManagementSettings, "retention")
    assert retention == default(ExecutionSettings, "retention") == timedelta(days=7)
    assert default(ManagementSettings, "grace") == default(ExecutionSettings, "grace")
    backoff = DEFAULT_BACKOFF

    assert {what: value for what, value, _ in rows("The numbers behind them")} == {
        "failures and worker deaths after which a task has failed": str(a_task_type().max_attempts),
        "back-off after failure *n*, drawn evenly from 0 to": (
            f"{seconds(backoff.initial)} × {backoff.factor:g}^(n-1), at most {seconds(backoff.maximum)}"
        ),
        "worker deaths after which a task has failed, whatever `max_attempts` says": str(WORKER_DEATHS_MAX),
        "losses with a replica after which a task has failed": str(REPLICA_LOSSES_MAX),
        "losses after which a task is started with nothing beside it": str(SOLITARY_LOSSES),
        "heartbeat between managers and replicas": seconds(BEAT_SECONDS),
        "a replica starts nothing once its last confirmed heartbeat is older than": seconds(START_LIMIT_SECONDS),
        "a silent session is ended after": seconds(SILENCE_SECONDS),
        "a session whose address refuses, or answers for another session, is ended after": seconds(
            SILENCE_WHEN_GONE_SECONDS
        ),
        "heartbeats of a replica that reads nothing count no more after": seconds(DEAF_SECONDS),
        "managers look for lost work every": seconds(SCAN_SECONDS),
        "Redis is given up, until it answers again, after": seconds(SOCKET_SECONDS),
        "accepted tasks that may wait in Redis": (
            f"{default(GatewaySettings, 'backlog_tasks_max'):,} tasks or "
            f"{default_mib(GatewaySettings, 'backlog_bytes_max')}"
        ),
        "results that a replica holds while the result database is away": default_mib(ExecutionSettings, "spool_bytes"),
        "grace time of managers and replicas": default_seconds(ManagementSettings, "grace"),
        "grace time of the gateway": default_seconds(GatewaySettings, "grace"),
        "finished tasks and their results are kept for": "7 days",
    }


def test_settings_that_the_document_names_exist() -> None:
    named = set(re.findall(r"HEADRACE_([A-Z_]+)", section("The numbers behind them")))
    fields = {
        name.upper()
        for settings in (GatewaySettings, ManagementSettings, ExecutionSettings)
        for name in settings.model_fields
    }

    assert named
    assert named <= fields


def test_links_lead_somewhere() -> None:
    targets = re.findall(r"\]\(([^)]+)\)", DOCUMENT)
    headings = re.findall(r"^#+ (.+)$", DOCUMENT, re.MULTILINE)
    anchors = {f"#{heading.lower().replace(' ', '-')}" for heading in headings}

    for target in targets:
        if target.startswith("#"):
            assert target in anchors
        elif not target.startswith("https://"):
            assert (ROOT / "docs" / target).exists(), target


def test_every_page_that_the_comparison_names_is_listed() -> None:
    table, _, sources = section("Beside others").partition("Checked in")
    cited = {letter for group in re.findall(r"\[([a-z](?:, [a-z])*)\]", table) for letter in group.split(", ")}
    listed = re.findall(r"\[([a-z])\]\s+\[", sources)

    assert len(listed) == len(set(listed))
    assert cited == set(listed)
