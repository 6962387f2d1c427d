"""What is shown on a terminal, and what elsewhere."""

import io

import pytest
from rich.console import Console

from headrace.demo.display import open_display
from headrace.demo.journey import SEEN, STAGES, Journey
from headrace.demo.report import journey_table


def test_elsewhere_every_step_is_a_line_once() -> None:
    target = io.StringIO()
    with open_display(Console(file=target, width=100)) as display:
        display.show("backup", "queued")
        display.show("backup", "queued")
        display.show("backup", "archived [1/2]", fraction=0.25)
        display.show("count", "queued")
        display.show("backup", "completed")
    lines = [line.split(maxsplit=2)[2] for line in target.getvalue().splitlines()]
    assert [line.split() for line in lines] == [
        ["backup", "queued"],
        ["backup", "25%", "archived", "[1/2]"],
        ["count", "queued"],
        ["backup", "completed"],
    ]


@pytest.mark.parametrize("status", ["completed", "failed"])
def test_a_terminal_gets_one_bar_per_task(status: str) -> None:
    target = io.StringIO()
    with open_display(Console(file=target, width=100, force_terminal=True)) as display:
        display.show("backup", "queued")
        display.show("backup", "archived [1/2]", fraction=0.25)
        display.show("backup", status)
    last = next(line for line in reversed(target.getvalue().splitlines()) if "backup" in line)
    assert status in last


def test_the_table_of_times_fits_a_terminal_of_80_characters() -> None:
    long_way = Journey(stages=dict.fromkeys((*STAGES, SEEN), 3.2831), total=22.9817)
    names = ("simulate_backup", "word_count", "image_resize", "calculate_statistics")
    target = io.StringIO()
    Console(file=target, width=80).print(journey_table([(name, long_way) for name in names]))
    lines = target.getvalue().splitlines()
    assert any(line.split() == ["until", "it", "was", *names] for line in lines)
    assert sum(line.split()[-4:] == ["3,283.1"] * 4 for line in lines) == len(STAGES) + 1
    assert any(line.split() == ["in", "all", *["22,981.7"] * 4] for line in lines)
