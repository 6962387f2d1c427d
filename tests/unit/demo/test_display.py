"""What is shown on a terminal, and what elsewhere."""

import io

import pytest
from rich.console import Console

from execution_service.handlers import BUILTIN_MODULES
from headrace.demo.display import open_display
from headrace.demo.journey import SEEN, STAGES, Journey
from headrace.demo.report import journey_table
from headrace.tasks import load_registry


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
    names = [definition.name for definition in load_registry(BUILTIN_MODULES).definitions]
    target = io.StringIO()
    Console(file=target, width=80).print(journey_table([(name, long_way) for name in names]))
    rows = {words[0]: words[1:] for line in target.getvalue().splitlines() if (words := line.split())}
    for name in names:
        assert rows[name] == [*["3,283"] * (len(STAGES) + 1), "22,982"]
    assert not any("…" in line for line in target.getvalue().splitlines())
