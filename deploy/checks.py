"""What makes a backup one that can be relied on: each rule on its own, with what is wrong where it is broken."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from deploy.database import Numbers
from deploy.errors import DeployError
from deploy.manifest import DumpFile, Manifest, problem_of_file
from deploy.stores import RESULTS, STORES, TASKS, Servers, Store

# As the gateways lease them; a block's number is that of its last id divided by this.
IDS_PER_BLOCK = 1_000_000
_EXAMPLES_MAX = 5

Key = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Check:
    """A rule that was looked at. `problem` is empty where it holds."""

    rule: str
    problem: str = ""


def report(checks: Iterable[Check], *, say: Callable[[str], None]) -> int:
    """Print a line for each check, as it is made, and return how many failed."""
    failed = 0
    for check in checks:
        failed += bool(check.problem)
        say(f"FAIL  {check.rule}: {check.problem}" if check.problem else f"ok    {check.rule}")
    return failed


def check_backup(folder: Path, manifest: Manifest, servers: Servers) -> Iterator[Check]:
    """What can be told without loading anything: whole files, versions that can be loaded here."""
    for store in STORES:
        dump = manifest.dump_of(store)
        yield Check(f"{dump.file} is as it was written", problem_of_file(folder, dump))
    for store in STORES:
        dump = manifest.dump_of(store)
        yield Check(f"the schema of the {store.title} is known", _problem_of_schema(store, dump))
        problem = _problem_of_server(dump, servers.of(store).version())
        yield Check(f"{store.service} can load what PostgreSQL {dump.server_version} wrote", problem)


def load(folder: Path, manifest: Manifest, servers: Servers, names: Mapping[str, str]) -> Iterator[Check]:
    """Load each dump into the database that `names` has for its store."""
    for store in STORES:
        dump, name = manifest.dump_of(store), names[store.title]
        try:
            servers.of(store).load(name, folder / dump.file)
        except DeployError as error:
            yield Check(f"{dump.file} can be loaded", str(error))
        else:
            yield Check(f"{dump.file} can be loaded")


def check_loaded(manifest: Manifest, servers: Servers, names: Mapping[str, str]) -> Iterator[Check]:
    """What the databases that the dumps were loaded into must hold."""
    for store in STORES:
        dump, server, name = manifest.dump_of(store), servers.of(store), names[store.title]
        yield Check(f"the {store.title} have the schema of the manifest", _difference(dump.schema, server.schema(name)))
        rows = sum(dump.rows.values())
        yield Check(f"all {rows:,} rows of the {store.title} are there", _difference(dump.rows, server.rows(name)))
    numbers = servers.tasks.numbers(names[TASKS.title])
    yield Check("no task id is above the blocks handed out", _problem_of_ids(numbers))
    yield Check("no outbox id is above its sequence", _problem_of_outbox(numbers))
    with (
        servers.tasks.keys(names[TASKS.title], "completed_keys") as completed,
        servers.results.keys(names[RESULTS.title], "result_keys") as results,
    ):
        missing = missing_keys(completed, results, excused=frozenset(manifest.removed))
    yield Check("every completed task has its result", missing)


def missing_keys(completed: Iterable[Key], results: Iterable[Key], *, excused: Collection[int]) -> str:
    """Say which completed tasks have no result; nothing where all have. Both come in order, however many they are."""
    missing = (key for key in _without(completed, results) if key[0] not in excused)
    examples = list(islice(missing, _EXAMPLES_MAX))
    count = len(examples) + sum(1 for _ in missing)
    if not count:
        return ""
    named = ", ".join(f"{task_id} (attempt {attempt})" for task_id, attempt in examples)
    return f"{count:,} have none: task {named}{', …' if count > len(examples) else ''}"


def _without(wanted: Iterable[Key], there: Iterable[Key]) -> Iterator[Key]:
    rest = iter(there)
    newest: Key | None = next(rest, None)
    for key in wanted:
        while newest is not None and newest < key:
            newest = next(rest, None)
        if newest != key:
            yield key


def _problem_of_schema(store: Store, dump: DumpFile) -> str:
    version, known = dump.schema.get(store.package), store.known_schema()
    if version is None:
        return f"the manifest names none of {store.package}"
    if version > known:
        return (
            f"it is version {version}, and this version of Headrace knows {known}: use the one that wrote it, or newer"
        )
    return ""


def _problem_of_server(dump: DumpFile, version: str) -> str:
    older = int(version.split(".")[0]) < dump.server_major
    return f"it is version {version}: use the same major version, or newer" if older else ""


def _difference(expected: Mapping[str, int], found: Mapping[str, int]) -> str:
    names = [name for name in sorted({*expected, *found}) if expected.get(name) != found.get(name)]
    return ", ".join(f"{name}: {found.get(name, 'none')} instead of {expected.get(name, 'none')}" for name in names)


def _problem_of_ids(numbers: Numbers) -> str:
    highest = numbers.block * IDS_PER_BLOCK
    return f"task {numbers.task_id} is above {highest}" if numbers.task_id > highest else ""


def _problem_of_outbox(numbers: Numbers) -> str:
    above = numbers.outbox_id > numbers.outbox_sequence
    return f"{numbers.outbox_id} is above {numbers.outbox_sequence}" if above else ""
