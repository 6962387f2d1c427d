"""The rules of a session, in virtual time."""

from execution_service.sessions import FRESH_SECONDS, HEARTBEATS_REMEMBERED, Session, new_session_id


def test_an_echo_gives_the_send_time_of_its_heartbeat() -> None:
    session = Session(7, now=100.0)
    first = session.beat(101.0)
    second = session.beat(102.0)
    assert session.echo(7, second) == 102.0
    assert session.echo(7, first) is None, "an older echo says nothing new"
    assert session.echo(7, second) is None


def test_an_echo_of_another_session_is_ignored() -> None:
    session = Session(7, now=100.0)
    number = session.beat(101.0)
    assert session.echo(8, number) is None
    assert not session.knows(8, number)
    assert session.echo(7, number) == 101.0


def test_an_echo_of_a_number_that_was_never_sent_is_ignored() -> None:
    session = Session(7, now=100.0)
    number = session.beat(101.0)
    assert session.echo(7, number + 1) is None
    assert not session.knows(7, number + 1)
    assert session.echo(7, number) == 101.0


def test_an_ended_session_takes_neither_echoes_nor_assignments() -> None:
    session = Session(7, now=100.0)
    number = session.beat(101.0)
    session.ended = True
    assert session.echo(7, number) is None
    assert not session.takes(7, number, 101.0)


def test_an_assignment_is_taken_only_with_a_fresh_heartbeat_of_its_session() -> None:
    session = Session(7, now=100.0)
    number = session.beat(101.0)
    assert session.takes(7, number, 101.0 + FRESH_SECONDS)
    assert not session.takes(7, number, 101.1 + FRESH_SECONDS)
    assert not session.takes(8, number, 101.0)
    assert not session.takes(7, number + 1, 101.0)


def test_a_claim_that_began_with_the_hello_counts_from_the_begin_of_the_session() -> None:
    session = Session(7, now=100.0)
    assert session.takes(7, 0, 102.5)
    assert not session.takes(7, 0, 102.6)


def test_forgotten_heartbeats_count_as_old() -> None:
    session = Session(7, now=100.0)
    first = session.beat(101.0)
    for _ in range(HEARTBEATS_REMEMBERED):
        session.beat(101.0)
    assert not session.takes(7, first, 101.0)
    assert session.echo(7, first) is None


def test_session_ids_are_positive_and_fit_into_63_bits() -> None:
    assert all(0 < new_session_id() < 2**63 for _ in range(1000))
