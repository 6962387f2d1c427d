"""One data directory, one cluster."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from headrace.local import lock as lock_module
from headrace.local.errors import LocalClusterError
from headrace.local.lock import DataDirLock


def holder(lock: DataDirLock) -> subprocess.Popen[bytes]:
    """Start a process that lives until its input ends and keeps the lock for children."""
    return subprocess.Popen(
        [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=(lock.inherited_descriptor,)
    )


def test_a_second_cluster_is_refused_at_once(tmp_path: Path) -> None:
    first = DataDirLock(tmp_path)
    first.acquire()
    with pytest.raises(LocalClusterError, match="already runs"):
        DataDirLock(tmp_path).acquire()
    first.release()
    second = DataDirLock(tmp_path)
    second.acquire()
    second.release()


def test_a_start_waits_for_the_processes_of_a_killed_cluster(tmp_path: Path) -> None:
    killed = DataDirLock(tmp_path)
    killed.acquire()
    with holder(killed) as child:
        killed.release()
        assert child.stdin is not None
        ends_later = threading.Timer(0.2, child.stdin.close)
        ends_later.start()
        successor = DataDirLock(tmp_path)
        successor.acquire()
        assert child.wait(5) == 1
        successor.release()
        ends_later.join()


def test_a_process_that_does_not_end_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock_module, "ENDING_SECONDS", 0.1)
    killed = DataDirLock(tmp_path)
    killed.acquire()
    with holder(killed) as child:
        killed.release()
        with pytest.raises(LocalClusterError, match="headrace ps"):
            DataDirLock(tmp_path).acquire()
        child.kill()


def test_the_locks_are_not_inherited_by_accident(tmp_path: Path) -> None:
    lock = DataDirLock(tmp_path)
    lock.acquire()
    assert not os.get_inheritable(lock.inherited_descriptor)
    lock.release()
