from collections import Counter

from servicekit.live.message_rate import MESSAGES_MAX, REFUSED_MAX, MessageRate, Verdict


def verdicts(rate: MessageRate, count: int, now: float) -> Counter[Verdict]:
    return Counter(rate.note(now) for _ in range(count))


def test_fifty_messages_in_a_second_are_taken_in_any_second() -> None:
    rate = MessageRate()
    for second in range(1, 200):
        assert verdicts(rate, MESSAGES_MAX, second) == {Verdict.TAKEN: MESSAGES_MAX}


def test_more_are_refused_once_in_a_second_and_then_dropped() -> None:
    rate = MessageRate()
    assert verdicts(rate, MESSAGES_MAX + 10, 1.0) == {
        Verdict.TAKEN: MESSAGES_MAX,
        Verdict.REFUSED: 1,
        Verdict.DROPPED: 9,
    }
    assert verdicts(rate, 1, 2.0) == {Verdict.TAKEN: 1}


def test_who_goes_on_is_one_too_many() -> None:
    rate = MessageRate()
    assert Verdict.OVER not in verdicts(rate, MESSAGES_MAX + REFUSED_MAX, 1.0)
    assert rate.note(1.5) is Verdict.OVER


def test_a_little_too_much_is_enough_if_it_never_ends() -> None:
    rate = MessageRate()
    for second in range(1, REFUSED_MAX + 1):
        assert Verdict.OVER not in verdicts(rate, MESSAGES_MAX + 1, second)
    assert Verdict.OVER in verdicts(rate, MESSAGES_MAX + 1, REFUSED_MAX + 1)


def test_a_second_of_peace_forgives() -> None:
    rate = MessageRate()
    for minute in range(1, 100):
        now = minute * 60.0
        assert Verdict.OVER not in verdicts(rate, MESSAGES_MAX + 30, now)
        assert verdicts(rate, 1, now + 1) == {Verdict.TAKEN: 1}
