"""A backup holds what was put in, can be restored, and leaves nothing half done behind."""

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
    check_cost,
    generate_content,
    simulate_backup,
    verify_archive,
    write_archive,
)
from headrace.tasks import PermanentError, TaskContext, TransientError
from tests.support.file_size import file_size_limit


def _run(data: dict[str, Any], scratch: Path, progress: list[tuple[float, str]] | None = None) -> BackupResult:
    def note(fraction: float, message: str) -> None:
        if progress is not None:
            progress.append((fraction, message))

    scratch.mkdir(exist_ok=True)
    context = TaskContext(open_scratch=lambda: scratch, on_progress=note)
    return simulate_backup(BackupData.model_validate(data), context)


def _ignore(_done: int, _phase: str, _name: str) -> None:
    return


def _refusal(data: dict[str, Any], scratch: Path) -> str:
    with pytest.raises(PermanentError) as refused:
        _run(data, scratch)
    assert not scratch.exists() or not any(scratch.iterdir())
    return refused.value.code


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
    verify_archive(archive, archived, tmp_path / "restored", _ignore)
    assert (tmp_path / "restored" / "b").read_bytes() == b"two"
    wrong = archived[0].model_copy(update={"sha256": "0" * 64})
    for number, expected in enumerate(([wrong, archived[1]], archived[:1], [*archived, archived[0]], archived[::-1])):
        with pytest.raises(BackupBrokenError):
            verify_archive(archive, expected, tmp_path / str(number), _ignore)


def test_an_archive_that_is_damaged_on_the_disk_is_noticed(tmp_path: Path) -> None:
    archive, archived = _archive(tmp_path, ("a", lambda: b"one" * 1000))
    content = bytearray(archive.read_bytes())
    content[len(content) // 2] ^= 1
    archive.write_bytes(content)
    with pytest.raises(BackupBrokenError):
        verify_archive(archive, archived, tmp_path / "restored", _ignore)


def test_a_file_that_compresses_as_far_as_can_be_is_restored(tmp_path: Path) -> None:
    result = _run({"files": [{"name": "a", "content": "a" * 4_000_000}]}, tmp_path)
    assert result.verified
    assert result.archive_bytes * 900 < result.total_bytes


def test_unsafe_names_end_the_task_before_anything_is_written(tmp_path: Path) -> None:
    for names in (["../a"], ["a", "A"], ["a", "a/b"]):
        data = {"files": [{"name": name, "content": ""} for name in names]}
        assert _refusal(data, tmp_path / "scratch") == "unsafe_path"


def test_t55_a_file_named_as_the_archive_is_not_taken_for_it(tmp_path: Path) -> None:
    data = {"files": [{"name": name, "content": name} for name in ("backup.tar.gz", "backup.tar.gz.partial")]}
    result = _run(data, tmp_path)
    assert [file.bytes for file in result.files] == [13, 21]
    assert result.verified


def test_t47_what_is_too_much_in_all_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    largest = 16 * 1024 * 1024
    check_cost(BackupData.model_validate({"generate": {"files": 4, "bytes_each": largest}, "step_delay": 60}))
    for data, code in (
        ({"generate": {"files": 5, "bytes_each": largest}}, "cost_too_high"),
        ({"generate": {"files": 1000, "bytes_each": 1}, "step_delay": 0.6}, "cost_too_high"),
        ({"files": [{"name": str(number), "content": ""} for number in range(9)], "step_delay": 60}, "cost_too_high"),
        ({"files": [{"name": str(number), "content": "ä" * (largest // 2)} for number in range(5)]}, "too_large"),
    ):
        assert _refusal(data, tmp_path / "scratch") == code


@pytest.mark.parametrize("limit", [5_000, 50_000], ids=["file", "archive"])
def test_t48_a_disk_that_is_full_in_the_middle_is_named_and_may_pass(limit: int, tmp_path: Path) -> None:
    data = {"generate": {"files": 6, "bytes_each": 10_000}}
    with file_size_limit(limit), pytest.raises(TransientError) as full:
        _run(data, tmp_path / "1")
    assert full.value.code == "storage_full"
    assert not list((tmp_path / "1").rglob("*.partial"))
    assert not (tmp_path / "1" / "backup.tar.gz").exists()
    assert _run(data, tmp_path / "2").verified


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
        {"generate": {"files": 1001, "bytes_each": 1}},
        {"generate": {"files": 1, "bytes_each": 16 * 1024 * 1024 + 1}},
        {"generate": {"files": 1, "bytes_each": 1}, "step_delay": -1},
        {"generate": {"files": 1, "bytes_each": 1}, "step_delay": float("nan")},
    ],
)
def test_data_out_of_range_are_refused(data: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        BackupData.model_validate(data)
