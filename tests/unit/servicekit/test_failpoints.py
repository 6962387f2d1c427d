"""Failpoints: refused outside of tests, nothing when off, and once in a whole cluster when armed."""

import asyncio
import os
from pathlib import Path

import pytest

from servicekit import failpoints
from servicekit.failpoints import FailpointError, FailpointsRefusedError
from tests.support.waiting import wait_until


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("_folder", "_replica"):
        monkeypatch.setattr(failpoints, name, getattr(failpoints, name))
    environment = {"HEADRACE_FAILPOINTS": str(tmp_path), "HEADRACE_TESTING": "1", "HEADRACE_REPLICA": "management-1"}
    failpoints.configure(environment)
    return tmp_path


def test_they_are_refused_outside_of_tests(tmp_path: Path) -> None:
    for testing in ({}, {"HEADRACE_TESTING": "0"}):
        with pytest.raises(FailpointsRefusedError, match="HEADRACE_FAILPOINTS"):
            failpoints.configure({"HEADRACE_FAILPOINTS": str(tmp_path), **testing})


def test_a_point_that_is_not_armed_does_nothing(folder: Path) -> None:
    failpoints.hit("some.point")
    assert os.listdir(folder) == []


def test_an_armed_point_acts_once_and_leaves_a_trace(folder: Path) -> None:
    (folder / "some.point").write_text("raise")
    with pytest.raises(FailpointError):
        failpoints.hit("some.point")
    failpoints.hit("some.point")
    assert os.listdir(folder) == ["some.point.fired"]


def test_a_point_may_be_meant_for_one_replica(folder: Path) -> None:
    (folder / "some.point").write_text("raise management-0")
    failpoints.hit("some.point")
    (folder / "some.point").write_text("raise management-1")
    with pytest.raises(FailpointError):
        failpoints.hit("some.point")


async def test_a_held_point_waits_until_it_is_let_go(folder: Path) -> None:
    (folder / "some.point").write_text("hold")
    waiting = asyncio.create_task(failpoints.reach("some.point"))
    await wait_until((folder / "some.point.fired").exists)
    assert not waiting.done()
    (folder / "some.point.fired").unlink()
    await waiting


async def test_a_point_that_holds_all_holds_whoever_passes(folder: Path) -> None:
    (folder / "some.point").write_text("hold_all")
    waiting = [asyncio.create_task(failpoints.reach("some.point")) for _ in range(2)]
    await wait_until((folder / "some.point.fired").exists)
    await asyncio.sleep(0)
    assert not any(task.done() for task in waiting)
    (folder / "some.point").unlink()
    await asyncio.gather(*waiting)
