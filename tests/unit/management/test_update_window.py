from management_service.update_window import AGE_MS_MAX, BYTES_MAX, UPDATES_MAX, UpdateWindow


def add(window: UpdateWindow, ms: int, *, updates: int, bytes_: int = 0) -> str | None:
    return window.note(f"{ms}-0", updates=updates, bytes_=bytes_)


def test_nothing_is_cut_within_the_bounds() -> None:
    window = UpdateWindow()
    assert add(window, 1, updates=1) is None
    assert add(window, AGE_MS_MAX, updates=UPDATES_MAX, bytes_=BYTES_MAX) is None


def test_what_is_beyond_the_number_of_updates_is_cut() -> None:
    window = UpdateWindow()
    for number in range(1, 31):
        cut = add(window, number, updates=number * 10_000)
    # Of 300,000 the last 110,000 stay.
    assert cut == "19-0"


def test_what_others_have_added_counts() -> None:
    window = UpdateWindow()
    add(window, 1, updates=10)
    assert add(window, 2, updates=10 + UPDATES_MAX + 1) == "1-0"


def test_what_is_beyond_the_bytes_or_the_age_is_cut() -> None:
    window = UpdateWindow()
    add(window, 1, updates=1, bytes_=1)
    assert add(window, 2, updates=2, bytes_=BYTES_MAX + 2) == "1-0"
    assert add(window, 2 + AGE_MS_MAX, updates=3, bytes_=BYTES_MAX + 2) is None
    assert add(window, 3 + AGE_MS_MAX, updates=4, bytes_=BYTES_MAX + 2) == "2-0"


def test_counts_that_began_anew_cut_nothing_by_what_was_before() -> None:
    window = UpdateWindow()
    add(window, 1, updates=90_000)
    assert add(window, 2, updates=5) is None
    assert add(window, 3, updates=UPDATES_MAX + 6) == "2-0"
