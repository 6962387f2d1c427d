"""A file is described whatever its size and wherever it comes from, and never left half written or half read."""

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from execution_service.handlers.large_file_processing import ReadingStoppedError, large_file_processing
from execution_service.handlers.large_files.models import LargeFileData, LargeFileResult
from execution_service.handlers.large_files.sources import Source, open_input
from headrace.tasks import PermanentError, TaskContext, TransientError
from tests.support.file_size import file_size_limit

_ROWS = b"number,word\n" + b"".join(b"%d,wheel\n" % number for number in range(200_000))


def _run(
    data: dict[str, Any],
    scratch: Path | None = None,
    on_progress: Callable[[float, str], None] | None = None,
    is_cancelled: Callable[[], bool] | None = None,
) -> LargeFileResult:
    context = TaskContext(
        open_scratch=None if scratch is None else lambda: scratch, on_progress=on_progress, is_cancelled=is_cancelled
    )
    return large_file_processing(LargeFileData.model_validate(data), context)


@pytest.fixture
def inputs(tmp_path: Path, settings_from: pytest.MonkeyPatch) -> Path:
    """The input folder of the process."""
    folder = tmp_path / "inputs"
    folder.mkdir()
    settings_from.setenv("HEADRACE_INPUT_DIR", str(folder))
    return folder


def test_a_small_file_is_described() -> None:
    result = _run({"content": "name,price,sold\nWheel,120.50,4\nSack,4.25,\nMillstone,one\nRye,3.75,19\n"})
    assert (result.bytes, result.lines, result.rows, result.delimiter) == (68, 5, 3, ",")
    assert [(error.line, error.code, error.message) for error in result.errors] == [
        (4, "wrong_column_count", "2 instead of 3 values")
    ]
    name, price, sold = result.columns
    assert [column.name for column in result.columns] == ["name", "price", "sold"]
    assert [column.type for column in result.columns] == ["text", "decimal", "integer"]
    assert (sold.present, sold.missing) == (2, 1)
    assert name.numbers is None
    assert price.numbers is not None
    assert (price.numbers.count, price.numbers.min, price.numbers.max) == (3, 3.75, 120.5)
    assert price.numbers.mean == pytest.approx(128.5 / 3, rel=1e-15)
    # By hand: (120.5² + 4.25² + 3.75² - 128.5²/3) / 2.
    assert price.numbers.variance == pytest.approx(4524.145833333333, rel=1e-15)


def test_what_is_generated_is_the_same_for_every_attempt_and_described_as_it_was_made(tmp_path: Path) -> None:
    data = {"generate": {"rows": 20_000, "seed": 7, "missing": 0.02}}
    results = []
    for name in ("1", "2"):
        (tmp_path / name).mkdir()
        results.append(_run(data, tmp_path / name))
        assert (tmp_path / name / "generated.csv").stat().st_size == results[-1].bytes
    assert results[0] == results[1]
    assert (results[0].rows, results[0].error_count) == (20_000, 0)
    assert [column.type for column in results[0].columns] == ["integer", "decimal", "text", "date", "boolean"]
    assert all(300 < column.missing < 500 for column in results[0].columns)


def test_csv_and_json_lines_of_the_same_rows_have_the_same_columns(tmp_path: Path) -> None:
    generate = {"rows": 2000, "columns": ["integer", "decimal", "word", "date", "boolean", "phrase"], "missing": 0.1}
    described = [_run({"generate": generate, "format": name}, tmp_path).columns for name in ("csv", "jsonl")]
    assert described[0] == described[1]


def test_progress_goes_over_writing_to_reading_and_ends_at_one(tmp_path: Path) -> None:
    reports: list[tuple[float, str]] = []
    _run({"generate": {"bytes": 2_000_000}}, tmp_path, lambda *report: reports.append(report))
    fractions = [fraction for fraction, _ in reports]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1
    assert {message.split()[0] for _, message in reports} == {"generated", "read"}
    assert reports[-1][1].startswith("read 1.9 of 1.9 MiB, ")


@pytest.mark.parametrize("looks", [3, 9], ids=["while it is written", "while it is read"])
def test_a_cancel_ends_the_attempt_between_two_blocks(looks: int, tmp_path: Path) -> None:
    left = iter(range(looks))
    with pytest.raises(ReadingStoppedError):
        _run({"generate": {"bytes": 2_000_000}}, tmp_path, is_cancelled=lambda: next(left, None) is None)
    assert [path.name for path in tmp_path.iterdir()] == ([] if looks == 3 else ["generated.csv"])


def test_t48_a_disk_that_is_full_is_named_and_nothing_is_left_on_it(tmp_path: Path) -> None:
    with file_size_limit(1_000_000), pytest.raises(TransientError) as full:
        _run({"generate": {"bytes": 2_000_000}}, tmp_path)
    assert full.value.code == "storage_full"
    assert list(tmp_path.iterdir()) == []


def test_t47_what_could_become_too_large_is_refused_before_it_is_written(tmp_path: Path) -> None:
    with pytest.raises(PermanentError) as refused:
        _run({"generate": {"rows": 5_000_000, "columns": ["phrase"] * 50}}, tmp_path)
    assert refused.value.code == "cost_too_high"
    assert list(tmp_path.iterdir()) == []


def test_the_size_of_a_file_costs_no_memory(tmp_path: Path) -> None:
    program = """
import sys
from pathlib import Path
from execution_service.handlers.large_file_processing import LargeFileData, large_file_processing
from headrace.tasks import TaskContext
for bytes_wanted in (4_000_000, 32_000_000):
    context = TaskContext(open_scratch=lambda: Path(sys.argv[1]))
    large_file_processing(LargeFileData.model_validate({"generate": {"bytes": bytes_wanted}}), context)
    # Not ru_maxrss, which begins with that of the process before exec.
    print(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
"""
    done = subprocess.run([sys.executable, "-c", program, tmp_path], capture_output=True, text=True, check=True)
    small, large = map(int, done.stdout.split())
    assert large < 120 * 1024
    assert large - small < 8 * 1024


def test_a_file_of_the_input_folder_is_described(inputs: Path) -> None:
    (inputs / "2026").mkdir()
    (inputs / "2026" / "sales.csv").write_bytes(_ROWS)
    result = _run({"path": "2026/sales.csv"})
    assert (result.bytes, result.rows) == (len(_ROWS), 200_000)
    (inputs / "empty.csv").touch()
    assert _run({"path": "empty.csv"}).rows == 0


def _refusal(path: str) -> str:
    with pytest.raises(PermanentError) as refused:
        _run({"path": path})
    return refused.value.code


def test_t44_t45_what_is_no_ordinary_file_below_the_folder_is_not_read(inputs: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.csv").write_text("a\n1\n")
    (inputs / "symlink.csv").symlink_to(tmp_path / "secret.csv")
    (inputs / "folder").symlink_to(tmp_path)
    (inputs / "hardlink.csv").hardlink_to(tmp_path / "secret.csv")
    (inputs / "sub").mkdir()
    os.mkfifo(inputs / "pipe")
    # The name of a socket is short, wherever the test runs.
    with socket.socket(socket.AF_UNIX) as listener, contextlib.chdir(inputs):
        listener.bind("socket")
    paths = [
        "../secret.csv",
        "/etc/passwd",
        "/proc/self/environ",
        "/dev/zero",
        "~/a",
        "%2e%2e/a",
        "..\\a",
        "a\0b",
        "a.",
        "NUL",
    ]
    for path in [*paths, "symlink.csv", "folder/secret.csv", "hardlink.csv", "sub", "pipe", "socket"]:
        assert _refusal(path) == "unsafe_path", path


def test_t46_a_file_that_is_missing_has_its_code(inputs: Path) -> None:
    assert _refusal("missing.csv") == "file_not_found"
    inputs.rmdir()
    assert _refusal("missing.csv") == "no_input_folder"


def test_without_an_input_folder_there_are_no_files(settings_from: pytest.MonkeyPatch) -> None:
    settings_from.delenv("HEADRACE_INPUT_DIR", raising=False)
    assert _refusal("a.csv") == "no_input_folder"


def _grow(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"1,late\n")


def _replace(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(_ROWS)
    other.rename(path)


def _rewrite(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"number,WORD")


@pytest.mark.parametrize(
    "change", [_grow, lambda path: os.truncate(path, 1_000_000), lambda path: path.unlink(), _replace, _rewrite],
    ids=["grown", "shrunk", "removed", "replaced", "rewritten"],
)  # fmt: skip
def test_t46_a_file_that_changes_while_it_is_read_is_worth_another_attempt(
    change: Callable[[Path], None], inputs: Path
) -> None:
    path = inputs / "a.csv"
    path.write_bytes(_ROWS)
    todo = [change]

    def at_the_first_block(_fraction: float, message: str) -> None:
        assert message.startswith("read 0.5 of 2.4 MiB, ") or not todo
        while todo:
            todo.pop()(path)

    with pytest.raises(TransientError) as changed:
        _run({"path": "a.csv"}, on_progress=at_the_first_block)
    assert changed.value.code == "file_changed"


def test_t46_what_is_written_behind_the_end_of_an_open_file_is_not_read(inputs: Path) -> None:
    path = inputs / "a.csv"
    path.write_bytes(b"12345")

    def read_on(source: Source) -> bytes:
        start = source.read(3)
        _grow(path)
        return start + source.read(1000) + source.read(1000)

    def read() -> None:
        with open_input(inputs, "a.csv") as source:
            assert source.size == 5
            assert read_on(source) == b"12345"

    with pytest.raises(TransientError):
        read()


def test_an_error_that_came_of_a_change_is_told_as_the_change(inputs: Path) -> None:
    (inputs / "a.csv").write_bytes(b"12345")

    def read() -> None:
        with open_input(inputs, "a.csv"):
            _grow(inputs / "a.csv")
            raise PermanentError("invalid_header", "half of it was there")

    with pytest.raises(TransientError) as changed:
        read()
    assert changed.value.code == "file_changed"


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"content": "a", "path": "b"},
        {"content": None},
        {"content": "a" * (4 * 1024 * 1024 + 1)},
        {"content": "a", "delimiter": ":"},
        {"content": "a", "delimiter": ""},
        {"content": "a", "format": "xml"},
        {"content": "a", "format": "jsonl", "delimiter": ","},
        {"content": "a", "format": "jsonl", "header": False},
        {"content": "a", "header": "yes"},
        {"path": ""},
        {"path": "x" * 5000},
        {"generate": {}},
        {"generate": {"rows": 1, "bytes": 5000}},
        {"generate": {"rows": 0}},
        {"generate": {"rows": -1}},
        {"generate": {"rows": 10**15}},
        {"generate": {"bytes": 1}},
        {"generate": {"bytes": 2**30 + 1}},
        {"generate": {"rows": 1.5}},
        {"generate": {"rows": 1, "columns": []}},
        {"generate": {"rows": 1, "columns": ["integer"] * 51}},
        {"generate": {"rows": 1, "columns": ["name"]}},
        {"generate": {"rows": 1, "missing": 1.1}},
        {"generate": {"rows": 1, "missing": float("nan")}},
        {"generate": {"rows": 1, "seed": -1}},
    ],
)
def test_data_out_of_range_are_refused(data: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        LargeFileData.model_validate(data)
