"""What is measured of the processors is what the machine says."""

import os
import time
from pathlib import Path

import pytest

from execution_service.workers import cores
from execution_service.workers.cores import CoreMeter


def test_no_more_is_free_than_there_are_processors() -> None:
    meter = CoreMeter(time.monotonic())
    assert meter.free(time.monotonic() - 1) == 0.0
    end = time.monotonic() + 0.2
    while time.monotonic() < end:
        pass
    free = meter.free(time.monotonic())
    # Ticks of 10 ms, in a look of 0.2 s.
    assert 0.0 <= free <= len(os.sched_getaffinity(0)) + 0.2


def test_the_quota_of_a_control_group_around_ours_bounds_what_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = tmp_path / "pod" / "container"
    inner.mkdir(parents=True)
    (inner / "cpu.max").write_text("max 100000\n")
    (tmp_path / "pod" / "cpu.max").write_text("150000 100000\n")
    (tmp_path / "pod" / "cpu.stat").write_text("usage_usec 1000000\nuser_usec 0\n")
    monkeypatch.setattr(cores, "_own_groups", lambda: [inner, tmp_path / "pod"])
    monkeypatch.setattr(cores, "_idle_seconds", iter([100.0, 180.0, 260.0]).__next__)
    meter = CoreMeter(0.0)
    assert meter.free(10.0) == pytest.approx(1.5), "eight processors are idle, and one and a half may be used"
    (tmp_path / "pod" / "cpu.stat").write_text("usage_usec 13000000\n")
    assert meter.free(20.0) == pytest.approx(0.3)
