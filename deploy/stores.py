"""The two databases of Headrace: where each runs, what it is called, and which schemas this checkout knows."""

import re
from dataclasses import dataclass

from deploy.compose import PROJECT_FOLDER
from deploy.database import Server

_MIGRATION = re.compile(r"(\d{3})_[a-z0-9_]+\.sql")


@dataclass(frozen=True, slots=True)
class Store:
    """`title` names it in messages and in the manifest; `package` owns its tables; `table` is the one that matters."""

    title: str
    service: str
    database: str
    package: str
    table: str

    @property
    def file_name(self) -> str:
        return f"{self.title}.dump"

    def known_schema(self) -> int:
        """The newest version of its schema that this checkout has a migration for."""
        folder = PROJECT_FOLDER.joinpath(*self.package.split(".")) / "migrations"
        return max(int(match[1]) for path in folder.iterdir() if (match := _MIGRATION.fullmatch(path.name)))


TASKS = Store("tasks", "tasks-db", "headrace", "management_service.storage", "tasks")
RESULTS = Store("results", "results-db", "headrace_results", "result_store", "results")
STORES = (TASKS, RESULTS)


@dataclass(frozen=True, slots=True)
class Servers:
    """The servers of both stores."""

    tasks: Server
    results: Server

    def of(self, store: Store) -> Server:
        return self.tasks if store is TASKS else self.results
