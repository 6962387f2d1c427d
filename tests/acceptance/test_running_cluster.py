"""What a running cluster says of itself, and where it listens."""

import contextlib
import json
import re

import psutil

from headrace.local.cluster import LocalCluster
from tests.acceptance.test_local_cluster import whole_family

ROLES = {"gateway": 1, "management": 2, "execution": 2, "redis": 1, "postgres": 1, "registry": 1}


async def test_the_cluster_file_tells_what_runs(cluster: LocalCluster) -> None:
    content = json.loads((cluster.data_dir / "cluster.json").read_text())
    assert set(content) == {"processes", "postgres_dsn", "results_dsn", "redis_url", "consul_url"}
    fields = {"role", "id", "pid", "address", "log", "http_address"}
    assert all(set(process) == fields for process in content["processes"])
    roles = [process["role"] for process in content["processes"]]
    assert {role: roles.count(role) for role in roles} == ROLES
    for process in content["processes"]:
        assert psutil.pid_exists(process["pid"])
        assert re.fullmatch(r"127\.0\.0\.1:\d+", process["address"])
        assert process["log"].startswith(str(cluster.data_dir / "logs"))


async def test_everything_listens_on_loopback_alone(cluster: LocalCluster) -> None:
    for process in whole_family(cluster):
        with contextlib.suppress(psutil.NoSuchProcess):  # sessions of PostgreSQL come and go
            addresses = [at.laddr.ip for at in process.net_connections("inet") if at.status == psutil.CONN_LISTEN]
            # gRPC writes the same address in the form of IPv6.
            assert set(addresses) <= {"127.0.0.1", "::ffff:127.0.0.1"}, process.cmdline()


async def test_it_says_where_it_is_to_be_found(cluster: LocalCluster) -> None:
    said = cluster.output.read_text()
    assert f"{cluster.gateway_url}/docs" in said
    assert str(cluster.data_dir / "logs") in said
