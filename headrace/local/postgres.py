"""A PostgreSQL server of our own: made, configured and described; whoever starts it supervises it.

The server keeps what it acknowledged over `kill -9` and power loss (fsync stays on), asks for a password, and listens
on loopback TCP alone. Its users are the services of one cluster on one small machine, and the settings suit that.
"""

import os
import secrets
import shutil
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

from headrace.local.errors import LocalClusterError
from headrace.local.privileges import ServerFolder, server_user, write_private_file
from headrace.local.process import LOOPBACK, Command, accepts_connections, free_port, spawn_argv, spawn_options
from headrace.local.programs import find_postgres

OWNER = "headrace"
INITDB_SECONDS = 120

_SETTINGS = {
    "shared_buffers": "128MB",
    "max_connections": "100",
    "jit": "off",
    # Parallel queries and logical replication would add processes that nothing here profits from.
    "max_parallel_workers_per_gather": "0",
    "max_logical_replication_workers": "0",
    "max_worker_processes": "4",
    "autovacuum_max_workers": "2",
    # The task table turns over fast: look for dead rows more often than once a minute.
    "autovacuum_naptime": "15s",
    # One server without replicas. The write-ahead log is as durable at this level, and a little smaller.
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "wal_buffers": "16MB",
    "min_wal_size": "256MB",
    "max_wal_size": "1GB",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_checkpoints": "off",
    "log_line_prefix": "%m [%p] %d ",
}
_SETTINGS_FROM_18 = {"io_method": "sync"}  # three processes fewer; the data fits into memory


class PostgresServer:
    """One server with its data below `root`. Data belongs to the major version that made it.

    Raises LocalClusterError if no program here can serve the data that `root` holds.
    """

    def __init__(self, root: Path, *, port: int | None = None) -> None:
        self._user = server_user()
        self._folder = ServerFolder(root, self._user)
        self._programs = find_postgres(self._user, major=self._major_of_data())
        self._password_file = root / "password"
        self.port = port or free_port()

    @property
    def address(self) -> str:
        return f"{LOOPBACK}:{self.port}"

    @property
    def log_file_name(self) -> str:
        return "postgres.log"

    def prepare(self, *, databases: Sequence[str] = ()) -> None:
        """Create the data folder and `databases` if there is none yet. A creation that was interrupted is repeated."""
        data = self._folder.path / "data"
        if not data.exists():
            draft = self._folder.path / "data.new"
            shutil.rmtree(draft, ignore_errors=True)
            write_private_file(self._password_file, secrets.token_urlsafe(24), self._user)
            self._run_initdb(draft.name)
            self._create_databases(draft.name, databases)
            draft.rename(data)
        self._remove_foreign_pid_file()

    def command(self) -> Command:
        settings = _SETTINGS | (_SETTINGS_FROM_18 if self._programs.major >= 18 else {})
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        listening = ["-h", LOOPBACK, "-p", str(self.port), "-k", ""]
        return self._command("postgres", "-D", self._server_path("data"), *listening, *options)

    def ready(self) -> bool:
        """Tell whether the server takes connections, by the file in which it says so itself."""
        if not accepts_connections(self.port):
            return False  # what the file says is about a server that was killed before
        lines = self._pid_file_lines()
        return len(lines) > 7 and lines[7].strip() == "ready"

    def dsn(self, database: str) -> str:
        password = self._password_file.read_text()
        return f"postgresql://{OWNER}:{password}@{self.address}/{database}"

    def close(self) -> None:
        """Let go of the folder; the server must have stopped."""
        self._folder.close()

    def _major_of_data(self) -> int | None:
        try:
            return int((self._folder.path / "data" / "PG_VERSION").read_text())
        except FileNotFoundError:
            return None

    def _server_path(self, name: str) -> str:
        return f"{self._folder.name_for_server}/{name}"

    def _command(self, program: str, *arguments: str) -> Command:
        return Command(
            argv=(str(self._programs.folder / program), *arguments),
            env={"LC_ALL": "C", "PATH": os.defpath},
            # "Fast shutdown": ends sessions, then writes a checkpoint. SIGTERM would wait for clients to leave.
            stop_signal=signal.SIGINT,
            user=self._user,
            kept_descriptors=self._folder.kept_descriptors,
        )

    def _run_initdb(self, folder: str) -> None:
        options = ["--auth=scram-sha-256", "--encoding=UTF8", "--no-locale", "--data-checksums"]
        password = f"--pwfile={self._server_path(self._password_file.name)}"
        self._run("initdb", "-D", self._server_path(folder), "-U", OWNER, password, *options)

    def _create_databases(self, folder: str, databases: Sequence[str]) -> None:
        # Single-user mode needs no client library, and runs before anybody can connect.
        statements = "".join(f'CREATE DATABASE "{name}"\n' for name in databases)
        self._run("postgres", "--single", "-D", self._server_path(folder), "postgres", statements=statements)

    def _run(self, program: str, *arguments: str, statements: str = "") -> None:
        command = self._command(program, *arguments)
        options = spawn_options(command, output=subprocess.PIPE)
        options["stdin"] = subprocess.PIPE
        options["stderr"] = subprocess.STDOUT
        with subprocess.Popen(spawn_argv(command), **options) as process:
            output = process.communicate(statements.encode(), timeout=INITDB_SECONDS)[0].decode(errors="replace")
        if process.returncode != 0 or "ERROR:" in output:
            raise LocalClusterError(f"{program} failed to create the database:\n{output.strip()}")

    def _pid_file_lines(self) -> list[str]:
        try:
            return (self._folder.path / "data" / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return []

    def _remove_foreign_pid_file(self) -> None:
        """Forget the pid of a killed server if the pid went to another program since (usual in containers).

        PostgreSQL itself copes with a pid that nobody has, but would not start over a living one.
        """
        lines = self._pid_file_lines()
        try:
            name = Path(f"/proc/{int(lines[0])}/comm").read_text() if lines else "postgres"
        except (OSError, ValueError):
            return
        if not name.startswith("postgres"):
            (self._folder.path / "data" / "postmaster.pid").unlink()
