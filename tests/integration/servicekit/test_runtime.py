"""How a service starts, stops and fails, in a process of its own."""

import json
import os
import signal
import subprocess
import sys
from typing import Any

import pytest

_HEAD = """
import asyncio
from servicekit.logs import configure_logging
from servicekit.runtime import run_service

configure_logging("test", "test-1", "info", "json")
"""


def start(main: str) -> subprocess.Popen[str]:
    code = _HEAD + main + "\nrun_service(main)\n"
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def events(process: subprocess.Popen[str]) -> list[dict[str, Any]]:
    output, errors = process.communicate(timeout=20)
    assert errors == ""
    return [json.loads(line) for line in output.splitlines() if line.startswith("{")]


def wait_for_line(process: subprocess.Popen[str], line: str) -> None:
    assert process.stdout is not None
    while process.stdout.readline().strip() != line:
        assert process.poll() is None


def test_a_main_that_returns_ends_with_0() -> None:
    process = start("async def main(stop): print(type(asyncio.get_running_loop()).__module__)")
    assert [event["event"] for event in events(process)] == ["service_stopped"]
    assert process.returncode == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_asks_main_to_drain(number: signal.Signals) -> None:
    process = start("""
async def main(stop):
    print("running", flush=True)
    await stop.wait()
    print("drained", flush=True)
""")
    wait_for_line(process, "running")
    process.send_signal(number)
    assert [event["event"] for event in events(process)] == ["stopping", "service_stopped"]
    assert process.returncode == 0


def test_a_second_signal_ends_the_process_at_once() -> None:
    process = start("""
async def main(stop):
    print("running", flush=True)
    await stop.wait()
    print("draining", flush=True)
    await asyncio.sleep(3600)
""")
    wait_for_line(process, "running")
    process.send_signal(signal.SIGTERM)
    wait_for_line(process, "draining")
    process.send_signal(signal.SIGTERM)
    assert [event["event"] for event in events(process)] == ["stopped_at_once"]
    assert process.returncode == 1


def test_a_missing_setting_is_named_in_one_line_without_a_traceback() -> None:
    process = start("""
from pydantic import SecretStr
from servicekit.settings import ServiceSettings, load_settings

class Settings(ServiceSettings):
    never_set_dsn: SecretStr

async def main(stop): load_settings(Settings)
""")
    (event,) = events(process)
    assert (event["event"], event["level"]) == ("service_failed", "critical")
    assert event["reason"] == "HEADRACE_NEVER_SET_DSN: Field required"
    assert "exception" not in event
    assert process.returncode == os.EX_CONFIG


def test_an_unexpected_error_comes_with_its_traceback() -> None:
    process = start("async def main(stop): {}['x']")
    (event,) = events(process)
    assert event["reason"] == "KeyError: 'x'"
    assert "Traceback" in event["exception"]
    assert process.returncode == 1
