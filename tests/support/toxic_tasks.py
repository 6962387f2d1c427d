"""Handlers that misbehave: what a worker and its pool must outlive."""

import asyncio
import datetime
import decimal
import io
import locale
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, NoReturn

from execution_service.workers.wear import resident_bytes
from headrace.tasks import Limits, TaskContext, task


class BrokenTextError(Exception):
    """Cannot even say what went wrong."""

    def __str__(self) -> NoReturn:
        raise RuntimeError("no text")


_RAISED: dict[str, BaseException] = {
    "system_exit": SystemExit(0),
    "keyboard_interrupt": KeyboardInterrupt(),
    "generator_exit": GeneratorExit(),
    "broken_text": BrokenTextError(),
    "large": ValueError("x" * 10_000_000),
    "surrogate": ValueError("bad \ud800 text \0"),
    "group": ExceptionGroup("several", [ValueError("one"), TypeError("two")]),
    "stop_iteration": StopIteration(3),
    "cancelled": asyncio.CancelledError(),
}


def _result(name: str) -> Any:
    deep: list[Any] = []
    for _ in range(10_000):
        deep = [deep]
    circular: list[Any] = []
    circular.append(circular)
    results: dict[str, Any] = {
        "nan": {"value": float("nan")},
        "infinity": float("inf"),
        "surrogate": "\ud800",
        "nul": "a\0b",
        "object": object(),
        "bytes": b"\xff",
        "circular": circular,
        "deep": deep,
        "large": "x" * (8 * 1024 * 1024 + 1),
        "many_keys": dict.fromkeys(map(str, range(1_000_000 if name == "many_keys" else 0)), 1),
        "set": {7},
        "datetime": datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC),
        "decimal": decimal.Decimal("1.50"),
        "text_bytes": b"text",
        "generator": (number for number in range(3)),
        "empty": "",
    }
    return _never_awaited() if name == "coroutine" else results[name]


async def _never_awaited() -> None:
    """What a handler returns that forgot its `await`."""


@task("raise_any")
def raise_any(data: dict[str, str]) -> None:
    raise _RAISED[data["what"]]


@task("raise_any_async")
async def raise_any_async(data: dict[str, str]) -> None:
    raise _RAISED[data["what"]]


@task("raise_any_thread", pool="io")
def raise_any_thread(data: dict[str, str]) -> None:
    raise _RAISED[data["what"]]


@task("return_any")
def return_any(data: dict[str, str]) -> Any:
    return _result(data["what"])


@task("return_bytes")
def return_bytes(data: dict[str, int]) -> str:
    return "x" * data["bytes"]


@task("print_much")
def print_much(data: dict[str, int]) -> int:
    line = "y" * 999 + "\n"
    for _ in range(data["kilobytes"]):
        sys.stdout.write(line)
    return data["kilobytes"]


@task("print_and_die")
def print_and_die(data: dict[str, str]) -> None:
    print(data["line"])  # noqa: T201
    os.kill(os.getpid(), signal.SIGSEGV)


@task("close_descriptors")
def close_descriptors(data: dict[str, Any]) -> None:
    os.closerange(0, 256)
    time.sleep(5)


@task("write_garbage")
def write_garbage(data: dict[str, str]) -> None:
    """Write to every socket that is open: the worker's own is among them."""
    junk = {"noise": b"\xff" * 64, "huge": (2**30).to_bytes(4, "little"), "half": b"\x10\0\0\0abc"}[data["what"]]
    for fd in range(3, 256):
        try:
            if os.readlink(f"/proc/self/fd/{fd}").startswith("socket:"):
                os.write(fd, junk)
        except OSError:
            continue
    if data["what"] == "half":
        os._exit(3)
    time.sleep(10)


@task("spin")
def spin(data: dict[str, Any]) -> None:
    """Stay inside C code that does not let go of the interpreter."""
    sum(range(10**12))


@task("spin_async")
async def spin_async(data: dict[str, Any]) -> None:
    while True:
        pass


@task("stop_self")
def stop_self(data: dict[str, Any]) -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


@task("stop_self_later")
def stop_self_later(data: dict[str, Any]) -> None:
    """Have the process stopped when the handler has returned."""
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGSTOP))
    timer.daemon = True
    timer.start()


@task("start_child")
def start_child(data: dict[str, Any], context: TaskContext) -> int:
    """Start a process that would outlive the worker, say who it is, and go on."""
    child = subprocess.Popen(["/bin/sleep", "300"])
    context.progress(0.5, str(child.pid))
    time.sleep(60)
    return child.pid


@task("fork")
def fork(data: dict[str, Any]) -> int:
    """Let a copy of the worker come back from the handler as well."""
    return os.fork()


@task("swallow_cancel", timeout=60)
async def swallow_cancel(data: dict[str, Any]) -> str:
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        return "done anyway"
    return "slept"


@task("deaf_async", timeout=60)
async def deaf_async(data: dict[str, Any]) -> None:
    while True:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            continue


@task("own_timeout_error")
async def own_timeout_error(data: dict[str, Any]) -> None:
    raise TimeoutError("the handler's own")


@task("many_progress")
def many_progress(data: dict[str, float], context: TaskContext) -> int:
    """Report as fast as can be, forwards, backwards and beyond, with large texts."""
    end, calls = time.monotonic() + data["seconds"], 0
    while time.monotonic() < end:
        calls += 1
        context.progress((calls % 1000) / 500, "z" * 2000)
        context.progress(float("nan"))
    return calls


@task("last_progress")
def last_progress(data: dict[str, float], context: TaskContext) -> None:
    """Report twice in a row, then fall silent."""
    context.progress(0.25, "first")
    context.progress(0.5, "second \ud800")
    time.sleep(data["seconds"])


@task("log_lines")
def log_lines(data: dict[str, int], context: TaskContext) -> None:
    for number in range(data["lines"]):
        context.log.info("handler_event", number=number)


@task("use_scratch")
def use_scratch(data: dict[str, Any], context: TaskContext) -> str:
    (context.scratch / "file").write_text("content")
    if data.get("die"):
        os._exit(1)
    return str(context.scratch)


@task("see_process")
def see_process(data: dict[str, Any]) -> dict[str, Any]:
    """Everything that one attempt might change for the next."""
    return {
        "environment": sorted(os.environ),
        "session": os.getsid(0) == os.getpid(),
        "pid": os.getpid(),
        "folder": os.getcwd(),
        "umask": os.umask(os.umask(0)),
        "locale": locale.setlocale(locale.LC_ALL),
        "recursion_limit": sys.getrecursionlimit(),
        "sigterm": str(signal.getsignal(signal.SIGTERM)),
        "blocked": sorted(map(int, signal.pthread_sigmask(signal.SIG_BLOCK, ()))),
        "timer": signal.getitimer(signal.ITIMER_REAL)[0] > 0,
        "stdout": os.fstat(1).st_ino,
        "threads": sorted(thread.name for thread in threading.enumerate()),
        "limits": {
            name: resource.getrlimit(getattr(resource, name))[0]
            for name in ("RLIMIT_DATA", "RLIMIT_FSIZE", "RLIMIT_NOFILE", "RLIMIT_CORE")
        },
        "no_new_privileges": "NoNewPrivs:\t1" in Path("/proc/self/status").read_text(),
    }


@task("change_process")
def change_process(data: dict[str, Any]) -> None:
    os.chdir("/")
    os.environ["LEFT_BEHIND"] = "1"
    del os.environ["PATH"]
    os.umask(0)
    locale.setlocale(locale.LC_ALL, "C.UTF-8")
    sys.setrecursionlimit(500)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    sys.stdout.close()
    sys.stderr = io.StringIO()
    null = os.open("/dev/null", os.O_WRONLY)
    os.dup2(null, 1)
    os.close(2)
    os.close(null)


_DAEMON = """
import os, time
if os.fork():
    os._exit(0)
os.setsid()
print(os.getpid(), flush=True)
os.close(1)
time.sleep(300)
"""


@task("leave_processes")
def leave_processes(data: dict[str, Any]) -> list[int]:
    """Start a child, and a daemon in a session of its own that has lost its parent."""
    child = subprocess.Popen(["/bin/sleep", "300"])
    daemon = subprocess.run([sys.executable, "-c", _DAEMON], stdout=subprocess.PIPE, check=True)
    return [child.pid, int(daemon.stdout)]


@task("detach_and_wait", timeout=60)
def detach_and_wait(data: dict[str, Any], context: TaskContext) -> None:
    """Start a daemon in a session of its own, say who it is, and never come back."""
    daemon = subprocess.Popen(["/bin/sleep", "300"], start_new_session=True)
    context.progress(0.5, str(daemon.pid))
    time.sleep(60)


@task("leave_thread")
def leave_thread(data: dict[str, Any]) -> int:
    threading.Thread(target=time.sleep, args=(60,), name="left-over").start()
    return os.getpid()


@task("take_memory", limits=Limits(memory_mib=256))
def take_memory(data: dict[str, int]) -> int:
    return len(bytearray(data["mib"] * 1024 * 1024))


@task("burn_cpu", limits=Limits(cpu_seconds=1), timeout=60)
def burn_cpu(data: dict[str, Any]) -> None:
    while True:
        pass


@task("write_file", limits=Limits(file_mib=1))
def write_file(data: dict[str, int], context: TaskContext) -> int:
    return (context.scratch / "file").write_bytes(bytes(data["bytes"]))


@task("open_many", limits=Limits(open_files=64))
def open_many(data: dict[str, int]) -> int:
    files = [open(os.devnull, "rb") for _ in range(data["files"])]  # noqa: SIM115
    count = len(files)
    for file in files:
        file.close()
    return count


@task("print_lines")
def print_lines(data: dict[str, list[str]], context: TaskContext) -> None:
    """Print by Python, by a program that is run, and by the logger."""
    for line in data["lines"]:
        print(line)  # noqa: T201
    subprocess.run(["/bin/echo", "from a program"], check=True)
    print("no end", end="", file=sys.stderr)  # noqa: T201
    context.log.warning("logged", answer=42)


@task("print_lines_async")
async def print_lines_async(data: dict[str, list[str]], context: TaskContext) -> None:
    for line in data["lines"]:
        print(line)  # noqa: T201
        await asyncio.sleep(0.01)
    await asyncio.to_thread(print, "from a thread", end="")
    context.log.warning("logged", answer=42)


@task("print_much_async")
async def print_much_async(data: dict[str, int]) -> None:
    """Print without letting anybody else run."""
    for number in range(data["lines"]):
        print(f"line {number}")  # noqa: T201


@task("see_limits_async", limits=Limits(memory_mib=768, open_files=100))
async def see_limits_async(data: dict[str, Any]) -> list[int]:
    return [resource.getrlimit(kind)[0] for kind in (resource.RLIMIT_DATA, resource.RLIMIT_NOFILE)]


@task("roomy", limits=Limits(memory_mib=8192))
def roomy(data: dict[str, Any]) -> None:
    """Runs in another pool than those above."""


@task("print_silently")
def print_silently(data: dict[str, Any]) -> None:
    """Print nothing."""


@task("kill_replica", timeout=60)
def kill_replica(data: dict[str, Any]) -> None:
    """Take down the process that looks after this one."""
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(60)


@task("fork_many", timeout=60)
def fork_many(data: dict[str, int]) -> None:
    """Fork and fork again, within bounds, and wait in all of them."""
    for _ in range(data["doublings"]):
        os.fork()
    time.sleep(60)


_kept: list[bytes] = []


@task("keep_memory")
def keep_memory(data: dict[str, int]) -> int:
    """Leave the worker larger than it was, as a library does that never forgets."""
    _kept.append(os.urandom(1024) * 1024 * data["mib"])
    return os.getpid()


@task("use_memory")
def use_memory(data: dict[str, int]) -> int:
    """Return how much memory the worker had while this filled some, which is free again when this has returned."""
    filled = os.urandom(1024) * 1024 * data["mib"]
    return resident_bytes() if filled else 0


@task("keep_memory_async")
async def keep_memory_async(data: dict[str, int]) -> int:
    """Do the same beside others."""
    return keep_memory(data)
