"""What `headrace up` says before it starts anything."""

import socket
from pathlib import Path

import pytest

from headrace.local.errors import LocalClusterError
from headrace.local.lock import DataDirLock
from headrace.local.up import ClusterOptions, run_cluster


def test_a_gateway_port_in_use_is_an_error_at_once(tmp_path: Path) -> None:
    said: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as occupied:
        port: int = occupied.getsockname()[1]
        with pytest.raises(LocalClusterError, match=f"Port {port} cannot be used"):
            run_cluster(ClusterOptions(data_dir=tmp_path, port=port), said.append)
    assert said == []
    assert not (tmp_path / "postgres").exists()


def test_a_data_directory_in_use_is_an_error_at_once(tmp_path: Path) -> None:
    lock = DataDirLock(tmp_path)
    lock.acquire()
    with pytest.raises(LocalClusterError, match="already runs"):
        run_cluster(ClusterOptions(data_dir=tmp_path, port=0), lambda line: None)
    lock.release()
