"""The Redis of a local cluster: it starts, keeps what it acknowledged, and ends with its parent."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from headrace.local import programs
from headrace.local.errors import LocalClusterError
from headrace.local.redis import RedisServer
from tests.support.processes import has_ended, start_under_a_parent
from tests.support.servers import RunningServer
from tests.support.waiting import wait_until


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    made = RedisServer(tmp_path / "server")
    made.prepare()
    yield made
    made.close()


@pytest.fixture
def running(server: RedisServer, tmp_path: Path) -> Iterator[RunningServer]:
    started = RunningServer(server, log=tmp_path / "redis.log")
    started.start()
    yield started
    started.stop()


def test_what_was_acknowledged_survives_a_kill(server: RedisServer, running: RunningServer) -> None:
    with redis.Redis.from_url(server.url) as client:
        for number in range(100):
            client.xadd("stream", {"n": number})
    running.kill()
    server.prepare()
    running.start()
    with redis.Redis.from_url(server.url) as client:
        assert client.xlen("stream") == 100


def test_nothing_is_evicted_and_everything_is_synced(server: RedisServer, running: RunningServer) -> None:
    with redis.Redis.from_url(server.url) as client:
        settings = client.config_get("*")
    assert isinstance(settings, dict)
    wanted = {"appendonly": "yes", "appendfsync": "always", "maxmemory-policy": "noeviction", "save": ""}
    assert {name: settings[name] for name in wanted} == wanted
    assert int(settings["maxmemory"]) > 0


def test_nobody_comes_in_without_the_password(server: RedisServer, running: RunningServer) -> None:
    with redis.Redis(host="127.0.0.1", port=server.port) as client, pytest.raises(redis.AuthenticationError):
        client.ping()


async def test_the_server_ends_with_its_parent(server: RedisServer) -> None:
    parent, child = start_under_a_parent(server.command())
    await wait_until(server.ready)
    parent.kill()
    parent.wait()
    await wait_until(lambda: has_ended(child))


def test_data_of_another_product_is_refused(server: RedisServer, tmp_path: Path) -> None:
    (tmp_path / "server" / "format").write_text("Redis 1")
    with pytest.raises(LocalClusterError, match="written by Redis 1, but only"):
        RedisServer(tmp_path / "server")


def test_without_any_server_the_message_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "_package_folder", lambda name: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LocalClusterError, match="--redis-url"):
        RedisServer(tmp_path / "server")
