"""Checks of formats that cost time are bounded."""

from gateway.formats import CheckBudget, explain_format, format_checkers


def test_checks_beyond_their_share_are_left_to_the_worker() -> None:
    now = [100.0]
    checked = []

    def slow_and_refusing(value: str) -> bool:
        checked.append(value)
        now[0] += 0.06
        return False

    budget = CheckBudget(0.1, lambda: now[0])
    assert [budget.check(slow_and_refusing, each) for each in "abcd"] == [False, False, True, True]
    now[0] += 1
    assert not budget.check(slow_and_refusing, "e")
    assert checked == ["a", "b", "e"]


def test_standard_formats_take_what_the_worker_judges() -> None:
    checkers = format_checkers()
    assert checkers["date-time"]("yesterday")
    assert checkers["re2"]("a+")
    assert not checkers["re2"]("(a")


def test_another_format_is_named() -> None:
    assert explain_format("colour", "mauve") == ("format", "The value is not in the format 'colour'.")
