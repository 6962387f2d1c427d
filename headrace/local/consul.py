"""The service registry of a local cluster: a real Consul if one is on the PATH, else our stand-in."""

import json
import os
import re
import subprocess
import sys
from http import HTTPStatus
from pathlib import Path

from headrace.local.http_probe import fetch
from headrace.local.privileges import write_private_file
from headrace.local.process import LOOPBACK, Command, free_port

# From this version on Consul opens one more port, and older ones refuse to hear about it.
_GRPC_TLS_SINCE = (1, 14)


class RegistryServer:
    """Something that speaks the Consul HTTP API on loopback: the program `consul`, or our stand-in without one."""

    def __init__(self, root: Path, *, consul: str | None, port: int | None = None) -> None:
        self._root = root
        self._consul = consul
        self.port = port or free_port()

    @property
    def address(self) -> str:
        return f"{LOOPBACK}:{self.port}"

    @property
    def url(self) -> str:
        return f"http://{self.address}"

    def prepare(self) -> None:
        if self._consul is not None:
            self._root.mkdir(parents=True, exist_ok=True)
            configuration = consul_configuration(self._root, port=self.port, version=_version_of(self._consul))
            write_private_file(self._root / "consul.json", json.dumps(configuration, indent=2))

    def command(self) -> Command:
        argv: tuple[str, ...]
        if self._consul is not None:
            argv = (self._consul, "agent", "-config-file", str(self._root / "consul.json"))
        else:
            argv = (sys.executable, "-m", "headrace.local.registry", "--port", str(self.port))
        return Command(argv=argv, env=os.environ)

    def ready(self) -> bool:
        """Tell whether the agent answers and has a leader, which a fresh Consul needs some seconds for."""
        answer = fetch(self.port, "/v1/status/leader")
        return answer is not None and answer[0] == HTTPStatus.OK and answer[1] != b'""'

    def close(self) -> None:
        """There is nothing to let go of."""


def consul_configuration(root: Path, *, port: int, version: tuple[int, ...]) -> dict[str, object]:
    """Return the configuration of a single Consul server that keeps to loopback and to ports of its own."""
    closed = {"dns": -1, "grpc": -1, "serf_wan": -1} | ({"grpc_tls": -1} if version >= _GRPC_TLS_SINCE else {})
    return {
        "server": True,
        "bootstrap_expect": 1,
        "node_name": "headrace-local",
        "data_dir": str(root / "data"),
        "bind_addr": LOOPBACK,
        "client_addr": LOOPBACK,
        "ports": {"http": port, "server": free_port(), "serf_lan": free_port()} | closed,
        "performance": {"raft_multiplier": 1},
        "disable_update_check": True,
    }


def _version_of(consul: str) -> tuple[int, ...]:
    answer = subprocess.run([consul, "version"], capture_output=True, text=True, timeout=10, check=True)
    match = re.search(r"v(\d+)\.(\d+)", answer.stdout)
    return tuple(int(part) for part in match.groups()) if match else _GRPC_TLS_SINCE
