"""Logs are JSON lines on stdout, ours and those of libraries."""

import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from servicekit.logs import configure_logging


@pytest.fixture(autouse=True)
def restored_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers, root.level = handlers, level
    structlog.reset_defaults()


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_an_event_is_one_line_with_its_fields(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("gateway", "gateway-1", "info", "json")
    with structlog.contextvars.bound_contextvars(task_id=7):
        structlog.stdlib.get_logger("some.module").info("task_accepted", name="naïve\nname", tags={1})
    (line,) = lines(capsys)
    assert line.pop("timestamp")
    assert line == {
        "event": "task_accepted",
        "level": "info",
        "logger": "some.module",
        "service": "gateway",
        "replica": "gateway-1",
        "task_id": 7,
        "name": "naïve\nname",
        "tags": "{1}",
    }


def test_libraries_write_the_same_lines(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("gateway", "gateway-1", "info", "json")
    logging.getLogger("library").warning("%s is slow", "disk", extra={"seconds": 3})
    (line,) = lines(capsys)
    assert (line["event"], line["logger"], line["replica"], line["seconds"]) == (
        "disk is slow",
        "library",
        "gateway-1",
        3,
    )


def test_a_traceback_stays_in_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("gateway", "gateway-1", "info", "json")
    try:
        raise KeyError("missing")
    except KeyError as error:
        structlog.stdlib.get_logger("x").error("failed", exc_info=error)
        logging.getLogger("library").exception("failed too")
    first, second = lines(capsys)
    assert "KeyError: 'missing'" in str(first["exception"])
    assert "Traceback" in str(second["exception"])


def test_what_is_below_the_level_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("gateway", "gateway-1", "info", "json")
    structlog.stdlib.get_logger("x").debug("detail")
    logging.getLogger("httpx").info("HTTP Request: GET …")
    assert lines(capsys) == []


def test_people_get_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("gateway", "gateway-1", "debug", "console")
    structlog.stdlib.get_logger("x").debug("task_accepted", count=3)
    assert "task_accepted" in capsys.readouterr().out
