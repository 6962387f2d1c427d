"""The container of a PostgreSQL server, as a place to run its programs in."""

import subprocess
from typing import IO

from deploy.compose import Compose
from deploy.database import Server
from deploy.stores import RESULTS, TASKS, Servers

# The password is read where it lies: it is part of no command line and of no message.
_LOG_IN = 'PGUSER="$POSTGRES_USER" PGPASSWORD="$(cat "$POSTGRES_PASSWORD_FILE")" exec "$@"'


class DatabaseContainer:
    """A Place. Programs run as the owner of the server's databases, over the server's socket."""

    def __init__(self, compose: Compose, service: str) -> None:
        self._compose = compose
        self.name = service

    def start(
        self, program: str, *arguments: str, stdin: IO[bytes] | int = subprocess.DEVNULL
    ) -> subprocess.Popen[bytes]:
        command = ("exec", "-T", self.name, "sh", "-c", _LOG_IN, "sh", program, *arguments)
        return self._compose.start(*command, stdin=stdin)


def servers_of(compose: Compose) -> Servers:
    return Servers(
        Server(DatabaseContainer(compose, TASKS.service)), Server(DatabaseContainer(compose, RESULTS.service))
    )
