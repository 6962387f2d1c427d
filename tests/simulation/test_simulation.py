"""Whatever is killed, frozen, cut, delayed or lost, no story breaks a promise."""

import pytest

from tests.simulation.world import replay_command, simulate

STORIES = 60
_PART = 20


@pytest.mark.parametrize("first", range(0, STORIES, _PART))
def test_no_story_breaks_a_promise(first: int) -> None:
    for seed in range(first, first + _PART):
        violations = simulate(seed)
        assert not violations, f"{violations[0]}\nreplay: {replay_command(seed)}"
