"""A session that beats without reading is not heard any more."""

from management_service.domain.echoes import UnprovenEchoes


def test_a_session_that_tells_of_echoes_is_heard_for_ever() -> None:
    echoes = UnprovenEchoes()
    for second in range(1, 100):
        echoes.proven(1, second - 1)
        assert not echoes.is_deaf(1, now=second)
        echoes.sent(1, second, now=second)


def test_a_session_that_tells_of_none_is_deaf_after_4_seconds_until_it_does() -> None:
    echoes = UnprovenEchoes()
    for second in range(10):
        echoes.proven(1, 0)
        assert echoes.is_deaf(1, now=second) == (second >= 5)
        echoes.sent(1, second + 1, now=second + 0.5)
    assert echoes.unproven(1) == 1
    echoes.proven(1, 1)
    assert not echoes.is_deaf(1, now=10)
    assert echoes.unproven(1) == 0


def test_an_echo_by_another_manager_is_proof_as_well_but_an_older_one_is_not() -> None:
    echoes = UnprovenEchoes()
    echoes.sent(1, 7, now=0)
    echoes.proven(1, 6)
    assert echoes.is_deaf(1, now=4)
    echoes.proven(1, 9)
    assert not echoes.is_deaf(1, now=4)


def test_a_replica_that_does_not_tell_is_taken_at_its_word() -> None:
    echoes = UnprovenEchoes()
    for second in range(20):
        echoes.proven(1, None)
        assert not echoes.is_deaf(1, now=second)
        echoes.sent(1, second, now=second)


def test_sessions_that_ended_long_ago_are_forgotten() -> None:
    echoes = UnprovenEchoes()
    for session_id in range(1000):
        echoes.sent(session_id, 1, now=session_id)
    assert len(echoes._oldest) <= 61
