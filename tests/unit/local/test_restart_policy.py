"""How long a program that keeps ending has to wait."""

from headrace.local.supervisor import RestartPolicy

POLICY = RestartPolicy()


def waits(lives: list[float]) -> list[float]:
    restarts, found = 0, []
    for lived in lives:
        restarts = POLICY.count(restarts, lived=lived)
        found.append(POLICY.wait(restarts))
    return found


def test_the_first_restart_is_immediate() -> None:
    assert waits([1.0]) == [0.0]


def test_the_wait_doubles_up_to_five_seconds() -> None:
    assert waits([0.1] * 9) == [0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 5.0, 5.0, 5.0]


def test_a_program_that_lived_half_a_minute_starts_anew() -> None:
    assert waits([0.1, 0.1, 0.1, 30.0, 0.1]) == [0.0, 0.25, 0.5, 0.0, 0.25]


def test_a_program_that_never_starts_waits_no_longer_than_the_limit() -> None:
    assert POLICY.wait(10**9) == POLICY.longest_wait
