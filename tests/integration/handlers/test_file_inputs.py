"""What the types that handle files take, and what they refuse. Ids T.. are those of the bad inputs in docs/tasks.md."""

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from execution_service.handlers import large_file_processing, simulate_backup
from execution_service.workers.outcomes import Outcome, PoolSize
from tests.integration.handlers.conftest import Counter
from tests.support.waiting import wait_until
from tests.support.worker_bench import Bench, attempt, running_bench

pytestmark = pytest.mark.asyncio(loop_scope="session")

_MODULES = (large_file_processing.__name__, simulate_backup.__name__)
_MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Mill:
    """Two workers that have an input folder."""

    bench: Bench
    counter: Counter
    inputs: Path
    scratch: Path

    def left_behind(self) -> list[Path]:
        """What attempts left in the scratch directories of their workers."""
        return list(self.scratch.glob("pool-*/*/*"))


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def mill(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Mill]:
    inputs, scratch = tmp_path_factory.mktemp("inputs"), tmp_path_factory.mktemp("mill") / "scratch"
    async with contextlib.AsyncExitStack() as stack:
        # Workers are given the environment that is there when their pool starts; other pools have no such folder.
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("HEADRACE_INPUT_DIR", str(inputs))
            bench = await stack.enter_async_context(running_bench(scratch, {"cpu": PoolSize(2)}, _MODULES))
        yield Mill(bench, Counter(bench), inputs, scratch)


async def _check_health(counter: Counter) -> None:
    """A valid task is done right after a bad one."""
    result = await counter.result("simulate_backup", {"files": [{"name": "a", "content": "b"}]})
    assert result["verified"]


def _backup(*names: str) -> dict[str, Any]:
    return {"files": [{"name": name, "content": ""} for name in names]}


@pytest.mark.parametrize(
    ("type_name", "data", "field", "rule"),
    [
        pytest.param("large_file_processing", {"path": "x" * 5000}, "/path", "maxLength", id="T44-5000-characters"),
        pytest.param("large_file_processing", {"path": "a\0b"}, "/path", "nul_character", id="T44-nul"),
        pytest.param("large_file_processing", {"generate": {"rows": 0}}, "/generate/rows", "minimum", id="T47-0-rows"),
        pytest.param(
            "large_file_processing", {"generate": {"rows": -1}}, "/generate/rows", "minimum", id="T47-minus-1"
        ),
        pytest.param(
            "large_file_processing",
            {"generate": {"bytes": 2**30 + 1}},
            "/generate/bytes",
            "maximum",
            id="T47-max-plus-1",
        ),
        pytest.param(
            "large_file_processing", {"generate": {"bytes": 10**15}}, "/generate/bytes", "maximum", id="T47-a-petabyte"
        ),
        pytest.param(
            "large_file_processing",
            {"generate": {"bytes": 10**30}},
            "/generate/bytes",
            "maximum",
            id="T47-beyond-64-bit",
        ),
        pytest.param("large_file_processing", {"generate": {}}, "/generate", "one_of", id="T47-no-size"),
        pytest.param(
            "large_file_processing", {"generate": {"rows": 1, "bytes": 5000}}, "/generate", "one_of", id="T47-two-sizes"
        ),
        pytest.param("large_file_processing", {}, "", "one_of", id="no-source"),
        pytest.param("large_file_processing", {"content": "a", "path": "b"}, "", "one_of", id="two-sources"),
        pytest.param("large_file_processing", {"content": "a", "delimiter": ":"}, "/delimiter", "enum", id="delimiter"),
        pytest.param(
            "large_file_processing",
            {"content": "{}", "format": "jsonl", "delimiter": ","},
            "/delimiter",
            "const",
            id="delimiter-of-json",
        ),
        pytest.param(
            "large_file_processing",
            {"content": "{}", "format": "jsonl", "header": False},
            "/header",
            "const",
            id="header",
        ),
        pytest.param("simulate_backup", _backup(""), "/files/0/name", "minLength", id="T44-no-name"),
        pytest.param("simulate_backup", _backup("x" * 201), "/files/0/name", "maxLength", id="T53-201-characters"),
        pytest.param(
            "simulate_backup",
            {"generate": {"files": 0, "bytes_each": 1}},
            "/generate/files",
            "minimum",
            id="T47-0-files",
        ),
        pytest.param(
            "simulate_backup",
            {"generate": {"files": 1, "bytes_each": -1}},
            "/generate/bytes_each",
            "minimum",
            id="T47-minus-1-bytes",
        ),
        pytest.param(
            "simulate_backup",
            {"generate": {"files": 1, "bytes_each": 16 * _MIB + 1}},
            "/generate/bytes_each",
            "maximum",
            id="T47-file-max-plus-1",
        ),
        pytest.param(
            "simulate_backup",
            {"generate": {"files": 1, "bytes_each": 10**15}},
            "/generate/bytes_each",
            "maximum",
            id="T47-file-of-a-petabyte",
        ),
        pytest.param("simulate_backup", _backup("a") | {"step_delay": 61}, "/step_delay", "maximum", id="T47-delay"),
        pytest.param("simulate_backup", {}, "", "one_of", id="backup-without-files"),
    ],
)
async def test_what_the_schema_tells_is_refused_on_both_sides(
    mill: Mill, type_name: str, data: dict[str, Any], field: str, rule: str
) -> None:
    assert (field, rule) in [(error.field, error.rule) for error in mill.counter.refusals(type_name, data)]
    if rule != "nul_character":
        assert await mill.counter.error_code(type_name, data) == "invalid_data"
    await _check_health(mill.counter)


@pytest.mark.parametrize(
    "name",
    [
        "../../etc/passwd",
        "/etc/passwd",
        "~/a",
        "%2e%2e/a",
        "..\\a",
        "a.",
        "NUL",
        "/proc/self/environ",
        "/dev/zero",
        "a\nb",
        "a\u202eb",
    ],
)
async def test_t44_t53_unsafe_names_are_refused_by_both_types(mill: Mill, name: str) -> None:
    assert await mill.counter.error_code("large_file_processing", {"path": name}) == "unsafe_path"
    assert await mill.counter.error_code("simulate_backup", _backup(name)) == "unsafe_path"
    await _check_health(mill.counter)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        pytest.param(_backup("a", "a"), "unsafe_path", id="T50-duplicate"),
        pytest.param(_backup("a", "A"), "unsafe_path", id="T50-case-clash"),
        pytest.param(_backup("a", "a/b"), "unsafe_path", id="T50-file-as-folder"),
        pytest.param(_backup("a/" * 8 + "b"), "unsafe_path", id="T50-too-deep"),
        pytest.param({"generate": {"files": 5, "bytes_each": 16 * _MIB}}, "cost_too_high", id="T47-in-all"),
        pytest.param(
            {"generate": {"files": 1000, "bytes_each": 1}, "step_delay": 0.6}, "cost_too_high", id="T47-delay-in-all"
        ),
    ],
)
async def test_what_only_the_worker_can_see_of_a_backup_has_its_code(
    mill: Mill, data: dict[str, Any], code: str
) -> None:
    assert mill.counter.refusals("simulate_backup", data) == []
    assert await mill.counter.error_code("simulate_backup", data) == code
    await _check_health(mill.counter)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        pytest.param({"content": "," * 1_000_000 + "\n"}, "too_many_columns", id="T57-million-columns"),
        pytest.param({"content": "x" * 2_000_000 + "\n1\n"}, "invalid_header", id="T57-long-header"),
        pytest.param({"content": '"a"b,c\n'}, "invalid_header", id="T57-quotes-in-the-header"),
        pytest.param({"path": "utf-16.csv"}, "unsupported_encoding", id="T57-utf-16"),
        pytest.param({"path": "missing.csv"}, "file_not_found", id="T46-missing"),
        pytest.param({"path": "folder"}, "unsafe_path", id="T46-folder"),
        pytest.param({"path": "pipe"}, "unsafe_path", id="T44-pipe"),
        pytest.param({"path": "link.csv"}, "unsafe_path", id="T45-symlink"),
        pytest.param({"path": "out/hosts"}, "unsafe_path", id="T45-symlink-on-the-way"),
        pytest.param({"path": "hard.csv"}, "unsafe_path", id="T45-hard-link"),
        pytest.param({"generate": {"rows": 50_000_000}}, "cost_too_high", id="T47-in-all"),
    ],
)
async def test_what_only_the_worker_can_see_of_a_file_has_its_code(mill: Mill, data: dict[str, Any], code: str) -> None:
    if not (mill.inputs / "folder").exists():
        (mill.inputs / "folder").mkdir()
        os.mkfifo(mill.inputs / "pipe")
        (mill.inputs / "link.csv").symlink_to("/etc/hosts")
        (mill.inputs / "out").symlink_to("/etc")
        (mill.inputs / "one.csv").write_text("a\n1\n")
        (mill.inputs / "hard.csv").hardlink_to(mill.inputs / "one.csv")
        (mill.inputs / "utf-16.csv").write_text("a,b\n1,2\n", encoding="utf-16")
    assert mill.counter.refusals("large_file_processing", data) == []
    assert await mill.counter.error_code("large_file_processing", data) == code
    await _check_health(mill.counter)


async def test_a_worker_without_an_input_folder_reads_none(counter: Counter) -> None:
    assert await counter.error_code("large_file_processing", {"path": "a.csv"}) == "no_input_folder"


@pytest.mark.parametrize(
    ("content", "file_format", "errors"),
    [
        pytest.param("a,b\n1,2\n" + "x" * 3_000_000 + "\n3,4\n", "csv", [(3, "line_too_long")], id="T57-long-line"),
        pytest.param(
            "a,b\n1,2\n" + "," * 1_000_000 + "\n3,4", "csv", [(3, "wrong_column_count")], id="T57-many-values"
        ),
        pytest.param("\ufeffa,b\r\n1,2\r3,4\n", "csv", [], id="T57-mark-and-mixed-line-ends"),
        pytest.param('a,b\n=cmd(),"@x\n+1"\n-1+1,2\n', "csv", [], id="T57-formulas"),
        pytest.param('a,b\n1,2\n"3"4,5\n6,7\n"open', "csv", [(3, "bad_quotes"), (5, "bad_quotes")], id="T57-quotes"),
        pytest.param(
            '{"a":1}\n[]\n{"a":2}\n{"b":"' + "x" * 2_000_000 + '"}',
            "jsonl",
            [(2, "invalid_json"), (4, "line_too_long")],
            id="T57-json-lines",
        ),
    ],
)
async def test_t57_lines_that_cannot_be_read_are_told_and_left_out(
    mill: Mill, content: str, file_format: str, errors: list[tuple[int, str]]
) -> None:
    result = await mill.counter.result("large_file_processing", {"content": content, "format": file_format})
    assert [(error["line"], error["code"]) for error in result["errors"]] == errors
    assert result["rows"] == 2
    assert "cmd" not in json.dumps(result)


async def test_t57_a_file_in_mixed_encodings_is_read_line_by_line(mill: Mill) -> None:
    (mill.inputs / "mixed.csv").write_bytes("a,b\nä,1\n".encode() + "ö,2\n".encode("latin-1") + b"u,3\n")
    result = await mill.counter.result("large_file_processing", {"path": "mixed.csv"})
    assert (result["rows"], result["errors"][0]["line"], result["errors"][0]["code"]) == (2, 3, "invalid_utf8")


async def test_a_file_of_the_input_folder_is_described(mill: Mill) -> None:
    (mill.inputs / "sales.csv").write_text("a,b\n1,x\n2,y\n")
    result = await mill.counter.result("large_file_processing", {"path": "sales.csv"})
    assert [column["name"] for column in result["columns"]] == ["a", "b"]


_BACKUP = {"generate": {"files": 5, "bytes_each": 50_000, "seed": 3}, "step_delay": 0.2}
_FILE = {"generate": {"bytes": 24 * _MIB, "seed": 3}}
_LONG = [("simulate_backup", _BACKUP), ("large_file_processing", _FILE)]


@pytest.mark.parametrize(("type_name", "data"), _LONG)
async def test_t49_two_tasks_with_the_same_target_do_not_meet(mill: Mill, type_name: str, data: dict[str, Any]) -> None:
    both = await asyncio.gather(*(mill.counter.run(type_name, data) for _ in range(2)))
    assert [finished.outcome for finished in both] == [Outcome.COMPLETED] * 2
    assert both[0].worker_id != both[1].worker_id
    assert both[0].result == both[1].result
    assert mill.left_behind() == []


@pytest.mark.parametrize(("type_name", "data"), _LONG)
async def test_t56_an_attempt_after_one_that_was_killed_in_mid_way_has_the_same_result(
    mill: Mill, type_name: str, data: dict[str, Any]
) -> None:
    undisturbed = await mill.counter.run(type_name, data)
    task_id = 1000 + len(mill.bench.finished)
    first = attempt(task_id, type_name, data)
    mill.bench.submit(first)
    pid = await mill.bench.running(task_id)
    await wait_until(lambda: any(item.task_id == task_id for item in mill.bench.progress))
    assert mill.left_behind() != []
    os.kill(pid, signal.SIGKILL)
    assert (await mill.bench.outcome(task_id)).outcome is Outcome.WORKER_DIED
    await wait_until(lambda: mill.left_behind() == [])
    second = await mill.bench.run(attempt(task_id, type_name, data, number=2), timeout=60)
    assert (second.outcome, second.result) == (Outcome.COMPLETED, undisturbed.result)
    assert mill.left_behind() == []
