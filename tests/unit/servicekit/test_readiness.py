"""Readiness: all checks must pass, and those that do not say why."""

from servicekit.readiness import Readiness


def test_a_process_without_checks_is_ready() -> None:
    assert Readiness().ready


def test_every_check_must_pass() -> None:
    readiness = Readiness()
    problem: str | None = "away since 3 s"
    well = False
    readiness.add("database", lambda: problem)
    readiness.add_flag("intake", lambda: well)

    assert readiness.problems() == {"database": "away since 3 s", "intake": "not ready"}
    problem = None
    assert not readiness.ready
    well = True
    assert readiness.ready
