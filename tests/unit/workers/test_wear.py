"""When a worker finds that it has grown."""

import os

import pytest

from execution_service.workers.wear import LOOK_SECONDS, MemoryWatch, resident_bytes

_MIB = 1024 * 1024


@pytest.fixture
def sizes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """What the looks of a watch find, one after the other; the first is at its making."""
    found: list[int] = []
    monkeypatch.setattr("execution_service.workers.wear.resident_bytes", lambda: found.pop(0))
    return found


def test_growth_beyond_the_limit_is_told_once(sizes: list[int]) -> None:
    sizes += [50 * _MIB, 100 * _MIB, 101 * _MIB]
    watch = MemoryWatch(100 * _MIB)
    assert watch.outgrown(10.0) is None
    assert watch.outgrown(11.0) == "its memory has grown to 101 MiB"
    assert watch.outgrown(12.0) is None


def test_looks_are_apart(sizes: list[int]) -> None:
    sizes += [50, 60, 200]
    watch = MemoryWatch(100)
    assert watch.outgrown(10.0) is None
    assert watch.outgrown(10.0 + LOOK_SECONDS / 2) is None
    assert watch.outgrown(10.0 + LOOK_SECONDS) is not None


@pytest.mark.parametrize("limit", [0, 50, 49])
def test_without_a_limit_or_above_it_from_the_start_nothing_is_looked_at(sizes: list[int], limit: int) -> None:
    sizes.append(50)
    assert MemoryWatch(limit).outgrown(10.0) is None


def test_the_kernel_tells_the_memory_of_a_process_and_none_of_one_that_is_gone() -> None:
    before = resident_bytes()
    block = bytearray(b"x" * (64 * _MIB))
    assert resident_bytes(os.getpid()) - before > 0.9 * len(block)
    assert resident_bytes(2**22 + 1) == 0
