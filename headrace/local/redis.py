"""A Redis (or Valkey) server of our own: made, configured and described; whoever starts it supervises it.

What it acknowledged is on disk (`appendfsync always`), it never evicts, asks for a password, and listens on loopback.
"""

import contextlib
import os
import secrets
import socket
from pathlib import Path

from headrace.local.privileges import ServerFolder, server_user, write_private_file
from headrace.local.process import LOOPBACK, Command, free_port
from headrace.local.programs import find_redis

MEMORY_LIMIT = 2 * 1024**3
PROBE_SECONDS = 0.5

_SETTINGS = """\
bind {host}
port {port}
requirepass {password}
dir {folder}
daemonize no
logfile ""
appendonly yes
appendfsync always
no-appendfsync-on-rewrite no
save ""
maxmemory {memory_limit}
maxmemory-policy noeviction
client-output-buffer-limit pubsub 128mb 64mb 30
tcp-keepalive 60
"""


class RedisServer:
    """One server with its data below `root`. Data belongs to the product and major version that made it.

    Other servers refuse such data, or start empty over it without a word, so that is refused here:
    raises LocalClusterError if no program can serve the data that `root` holds.
    """

    def __init__(self, root: Path, *, port: int | None = None) -> None:
        self._user = server_user()
        self._folder = ServerFolder(root, self._user)
        self._format_file = root / "format"
        self._program = find_redis(self._user, format_name=self._format_of_data())
        self._password_file = root / "password"
        self.port = port or free_port()

    @property
    def address(self) -> str:
        return f"{LOOPBACK}:{self.port}"

    @property
    def log_file_name(self) -> str:
        return "redis.log"

    @property
    def url(self) -> str:
        return f"redis://:{self._password_file.read_text()}@{self.address}/0"

    def prepare(self) -> None:
        """Write the configuration for this start; the password stays what it was."""
        if not self._password_file.exists():
            write_private_file(self._password_file, secrets.token_urlsafe(24))
        settings = _SETTINGS.format(
            host=LOOPBACK,
            port=self.port,
            password=self._password_file.read_text(),
            folder=self._folder.name_for_server,
            memory_limit=_memory_limit(),
        )
        # A file, not arguments: everybody can read the arguments of a process.
        write_private_file(self._folder.path / "redis.conf", settings, self._user)
        write_private_file(self._format_file, self._program.format_name)

    def command(self) -> Command:
        return Command(
            argv=(str(self._program.path), f"{self._folder.name_for_server}/redis.conf"),
            env={"LC_ALL": "C", "PATH": os.defpath},
            user=self._user,
            kept_descriptors=self._folder.kept_descriptors,
        )

    def ready(self) -> bool:
        """Tell whether the server answers commands, which it does not before it has loaded its data."""
        password = self._password_file.read_text()
        with contextlib.suppress(OSError), socket.create_connection((LOOPBACK, self.port), PROBE_SECONDS) as probe:
            probe.sendall(f"AUTH {password}\r\nPING\r\n".encode())
            answer = b""
            while answer.count(b"\r\n") < 2 and (part := probe.recv(1024)):
                answer += part
            return answer.endswith(b"+PONG\r\n")
        return False

    def close(self) -> None:
        """Let go of the folder; the server must have stopped."""
        self._folder.close()

    def _format_of_data(self) -> str | None:
        try:
            return self._format_file.read_text()
        except FileNotFoundError:
            return None


def _memory_limit() -> int:
    installed = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min(MEMORY_LIMIT, installed // 2)
