"""A backup holds what was put in, can be restored, and takes no name that could harm where it is unpacked."""

import tarfile
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from execution_service.handlers.simulate_backup import (
    ArchivedFile,
    BackupBrokenError,
    BackupData,
    BackupResult,
    BackupStoppedError,
    Source,
    check_names,
    generate_content,
    simulate_backup,
    verify_archive,
    write_archive,
)
from headrace.tasks import PermanentError, TaskContext


def _run(data: dict[str, Any], scratch: Path, progress: list[tuple[float, str]] | None = None) -> BackupResult:
    def note(fraction: float, message: str) -> None:
        if progress is not None:
            progress.append((fraction, message))

    scratch.mkdir(exist_ok=True)
    context = TaskContext(open_scratch=lambda: scratch, on_progress=note)
    return simulate_backup(BackupData.model_validate(data), context)


def _ignore(_done: int, _phase: str, _name: str) -> None:
    return


def _archive(folder: Path, *sources: Source) -> tuple[Path, list[ArchivedFile]]:
    path = folder / "backup.tar.gz"
    return path, write_archive(path, sources, folder / "files", _ignore)


def test_the_archive_holds_what_was_put_in(tmp_path: Path) -> None:
    files = [{"name": "a/b.txt", "content": "häuser"}, {"name": "empty", "content": ""}]
    result = _run({"files": files}, tmp_path)
    assert [(file.name, file.bytes) for file in result.files] == [("a/b.txt", 7), ("empty", 0)]
    assert (result.total_bytes, result.verified) == (7, True)
    archive = tmp_path / "backup.tar.gz"
    assert archive.stat().st_size == result.archive_bytes
    with tarfile.open(archive) as tar:
        member = tar.extractfile("a/b.txt")
        assert member is not None
        assert member.read().decode() == "häuser"
        assert tar.getnames() == ["a/b.txt", "empty"]


def test_another_attempt_makes_the_same_archive(tmp_path: Path) -> None:
    data = {"generate": {"files": 3, "bytes_each": 1000, "seed": 5}}
    first, second = _run(data, tmp_path / "1"), _run(data, tmp_path / "2")
    assert first == second
    other = _run({"generate": {"files": 3, "bytes_each": 1000, "seed": 6}}, tmp_path / "3")
    assert other.archive_sha256 != first.archive_sha256


def test_progress_is_made_with_every_file_and_ends_at_one(tmp_path: Path) -> None:
    progress: list[tuple[float, str]] = []
    _run({"generate": {"files": 4, "bytes_each": 10}, "step_delay": 0.01}, tmp_path, progress)
    fractions = [fraction for fraction, _ in progress]
    assert len(progress) == 8
    assert fractions == sorted(fractions)
    assert fractions[-1] == pytest.approx(1)
    assert progress[0][1] == "archived generated/file-0001.bin (1 of 4)"


def test_generated_content_depends_on_its_seed_and_number_alone() -> None:
    assert generate_content(1, 2, 100) == generate_content(1, 2, 100)
    assert generate_content(1, 2, 50) == generate_content(1, 2, 100)[:50]
    assert len({generate_content(1, 1, 20), generate_content(1, 2, 20), generate_content(2, 1, 20)}) == 3


def test_a_cancel_ends_a_long_backup(tmp_path: Path) -> None:
    context = TaskContext(open_scratch=lambda: tmp_path, is_cancelled=lambda: True)
    data = BackupData.model_validate({"generate": {"files": 2, "bytes_each": 1}, "step_delay": 60})
    with pytest.raises(BackupStoppedError):
        simulate_backup(data, context)
    assert not (tmp_path / "backup.tar.gz").exists()


def test_a_restored_file_that_differs_is_noticed(tmp_path: Path) -> None:
    archive, archived = _archive(tmp_path, ("a", lambda: b"one"), ("b", lambda: b"two"))
    verify_archive(archive, archived, _ignore)
    wrong = archived[0].model_copy(update={"sha256": "0" * 64})
    for expected in ([wrong, archived[1]], archived[:1], [*archived, archived[0]], archived[::-1]):
        with pytest.raises(BackupBrokenError):
            verify_archive(archive, expected, _ignore)


@pytest.mark.parametrize(
    "name",
    [
        "../etc/passwd",
        "a/../../b",
        "/etc/passwd",
        "~root",
        "a//b",
        "a/./b",
        ".",
        "a/",
        "%2e%2e/x",
        "a%2Fb",
        "..\\x",
        "C:\\x",
        "c:x",
        "a\0b",
        "a\nb",
        "a\u202eb",
        "trailing.",
        "trailing ",
        " leading",
        "con",
        "a/NUL.txt",
        "com1",
        "what?",
        "x" * 201,
        "/".join("abcdefghi"),
        "ä" * 101,
    ],
)
def test_unsafe_names_are_refused(name: str) -> None:
    with pytest.raises(PermanentError) as refused:
        check_names([name])
    assert refused.value.code == "unsafe_path"


@pytest.mark.parametrize("names", [["a", "a"], ["A", "a"], ["a", "a/b"], ["x/y/z", "X"]])
def test_names_that_get_into_each_others_way_are_refused(names: list[str]) -> None:
    with pytest.raises(PermanentError):
        check_names(names)


def test_ordinary_names_are_taken() -> None:
    check_names(["a.txt", "b/a.txt", "b/c/d e.tar.gz", ".hidden", "größe/файл", "console"])


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"files": []},
        {"files": None},
        {"files": [{"name": "a", "content": "b"}], "generate": {"files": 1, "bytes_each": 1}},
        {"files": [{"name": "", "content": "b"}]},
        {"files": [{"name": "a"}]},
        {"generate": {"files": 0, "bytes_each": 1}},
        {"generate": {"files": 1, "bytes_each": -1}},
        {"generate": {"files": 1, "bytes_each": 10**15}},
        {"generate": {"files": 1000, "bytes_each": 16 * 1024 * 1024}},
        {"generate": {"files": 1, "bytes_each": 1}, "step_delay": -1},
        {"generate": {"files": 1000, "bytes_each": 1}, "step_delay": 1},
        {"generate": {"files": 1, "bytes_each": 1}, "step_delay": float("nan")},
    ],
)
def test_data_out_of_range_are_refused(data: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        BackupData.model_validate(data)
