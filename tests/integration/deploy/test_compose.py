"""Calls of `docker compose`, with a program in its place that answers as it does."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.compose import PROJECT_FOLDER, Compose
from deploy.errors import DeployError
from tests.support.waiting import wait_until


class FakeDocker:
    """Writes the `docker` that is found on the PATH."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def does(self, script: str) -> None:
        program = self._folder / "docker"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)

    def lists(self, *containers: dict[str, str], array: bool = False) -> None:
        lines = [json.dumps(containers)] if array else [json.dumps(container) for container in containers]
        (self._folder / "answer").write_text("\n".join(lines) + "\n")
        self.does(f"cat {self._folder / 'answer'}")


def container(service: str, number: int, *, state: str = "running", health: str = "healthy") -> dict[str, str]:
    name = f"headrace-{service}-{number}"
    return {"ID": f"id-of-{name}", "Name": name, "Service": service, "State": state, "Health": health}


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeDocker:
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.defpath}")
    return FakeDocker(tmp_path)


def test_a_call_runs_in_the_folder_of_the_project(
    docker: FakeDocker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COMPOSE_FILE", "my.yml")
    docker.does('echo "$PWD $COMPOSE_FILE $*"')

    assert Compose(tmp_path).run("ps", "--all") == f"{tmp_path} my.yml compose ps --all\n"


def test_a_failure_is_one_line(docker: FakeDocker) -> None:
    docker.does("echo; echo 'service \"gate\" is not running' >&2; echo >&2; exit 3")

    with pytest.raises(DeployError) as raised:
        Compose().run("exec", "-T", "gate", "true")

    assert str(raised.value) == '`docker compose exec -T gate true` failed: service "gate" is not running'


def test_a_tool_that_fails_says_why_and_exits_with_1(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "deploy.restore_check", str(tmp_path)],
        cwd=PROJECT_FOLDER,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr == f"error: {tmp_path} is no backup, or was not finished: it has no manifest.json\n"


async def test_a_call_that_hangs_is_ended_with_all_it_started(docker: FakeDocker, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "alive")
    docker.does(f"exec 8<>{tmp_path / 'alive'}; sleep 1000 & sleep 1000")

    with pytest.raises(DeployError, match=r"`docker compose up` took longer than 0\.2 s"):
        Compose().run("up", timeout=0.2)

    def is_held() -> bool:
        try:
            os.close(os.open(tmp_path / "alive", os.O_WRONLY | os.O_NONBLOCK))
        except OSError:
            return False
        return True

    await wait_until(lambda: not is_held())


def test_without_docker_it_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(DeployError, match="`docker` is not on the PATH"):
        Compose().run("ps")


@pytest.mark.parametrize("array", [False, True])
def test_containers_come_in_the_order_of_their_numbers(docker: FakeDocker, array: bool) -> None:
    docker.lists(container("gateway", 10), container("gateway", 9, state="exited", health=""), array=array)

    ninth, tenth = Compose().containers("gateway")

    assert (ninth.name, ninth.container_id) == ("headrace-gateway-9", "id-of-headrace-gateway-9")
    assert (ninth.running, ninth.healthy) == (False, False)
    assert (tenth.name, tenth.healthy) == ("headrace-gateway-10", True)


def test_no_container_is_no_line(docker: FakeDocker) -> None:
    docker.does("true")

    assert Compose().containers() == []


def test_waiting_ends_when_all_are_healthy(docker: FakeDocker) -> None:
    docker.lists(container("gateway", 1), container("worker", 1, health=""))

    assert [found.service for found in Compose().wait_healthy("gateway", "worker", timeout=30)] == ["gateway", "worker"]


def test_who_is_not_healthy_in_time_is_named(docker: FakeDocker) -> None:
    docker.lists(
        container("gateway", 1),
        container("gateway", 2, health="starting"),
        container("redis", 1, state="exited", health=""),
    )

    with pytest.raises(DeployError) as raised:
        Compose().wait_healthy("gateway", "redis", "proxy", timeout=0)

    assert str(raised.value).startswith("not healthy after 0 s: ")
    assert str(raised.value).endswith(
        "headrace-gateway-2 is starting, headrace-redis-1 is exited, proxy has no container"
    )
