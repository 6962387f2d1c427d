"""Who pays when a worker ends: nobody but what was running in it when it ended by itself."""

import signal
from dataclasses import replace

import pytest

from execution_service.workers.autopsy import Death, Next, Stage, death_error, judge, stage_of
from execution_service.workers.held import Fate
from execution_service.workers.outcomes import Outcome

CRASH = Death(killed=False, signal=signal.SIGSEGV, exit_code=0, peak_kib=40_960, reason="", output="last words")
KILL = replace(CRASH, killed=True, signal=signal.SIGKILL)


@pytest.mark.parametrize(
    ("seq", "last_started", "running", "stage"),
    [
        (5, 4, {4: 0.0}, Stage.NOT_STARTED),
        (4, 4, {4: 0.0}, Stage.RUNNING),
        (3, 4, {4: 0.0}, Stage.ENDED_UNREPORTED),
        (4, 4, {}, Stage.RUNNING),
        (3, 4, {}, Stage.ENDED_UNREPORTED),
        (2, 9, {2: 0.0, 7: 0.0}, Stage.RUNNING),
        (1, 0, {}, Stage.NOT_STARTED),
    ],
)
def test_the_page_tells_how_far_each_attempt_had_come(
    seq: int, last_started: int, running: dict[int, float], stage: Stage
) -> None:
    assert stage_of(seq, last_started=last_started, running=running) is stage


@pytest.mark.parametrize(
    ("fate", "stage", "death", "verdict"),
    [
        (Fate.OPEN, Stage.RUNNING, CRASH, Outcome.WORKER_DIED),
        (Fate.OPEN, Stage.RUNNING, KILL, Outcome.HANDED_BACK),
        (Fate.OPEN, Stage.ENDED_UNREPORTED, CRASH, Outcome.HANDED_BACK),
        (Fate.OPEN, Stage.NOT_STARTED, CRASH, Next.RUN_AGAIN),
        (Fate.OPEN, Stage.NOT_STARTED, KILL, Next.RUN_AGAIN),
        (Fate.TIMEOUT, Stage.RUNNING, KILL, Outcome.FAILED),
        (Fate.CANCEL, Stage.RUNNING, KILL, Outcome.CANCELLED),
        (Fate.CANCEL, Stage.NOT_STARTED, CRASH, Outcome.CANCELLED),
        (Fate.HAND_BACK, Stage.RUNNING, KILL, Outcome.HANDED_BACK),
        *((fate, stage, CRASH, Next.FORGET) for fate in (Fate.ABANDON, Fate.SESSION_ENDED) for stage in Stage),
    ],
)
def test_each_attempt_gets_what_it_deserves(fate: Fate, stage: Stage, death: Death, verdict: Outcome | Next) -> None:
    assert judge(fate, stage, death, draining=False) is verdict


def test_during_a_drain_nothing_is_run_again() -> None:
    assert judge(Fate.OPEN, Stage.NOT_STARTED, CRASH, draining=True) is Outcome.HANDED_BACK


def test_the_error_names_the_signal_or_the_exit_code_and_the_evidence() -> None:
    error = death_error(CRASH)
    assert (error.code, error.signal, error.exit_code) == ("worker_died", 11, 0)
    assert "SIGSEGV" in error.message
    assert "40 MiB" in error.message
    assert "last words" in error.message
    exited = death_error(replace(CRASH, signal=0, exit_code=3, reason="It cheated.", output=""))
    assert (exited.signal, exited.exit_code) == (0, 3)
    assert exited.message.startswith("It cheated. The worker process exited with code 3.")
    assert "signal 64" in death_error(replace(CRASH, signal=64)).message
