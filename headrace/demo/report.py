"""What the demo prints at its end."""

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from headrace.demo.burst import TASK_TYPE, Burst
from headrace.demo.cases import Case
from headrace.demo.journey import SEEN, STAGES, Journey

_NARROW = {
    "accepted": "accep-\nted",
    "dispatched": "dis-\npat-\nched",
    "started": "star-\nted",
    "executed": "execu-\nted",
    "stored": "sto-\nred",
    "result stored": "re-\nsult\nsto-\nred",
}


def show_results(console: Console, results: Sequence[tuple[Case, int, Sequence[str]]]) -> None:
    for case, task_id, findings in results:
        console.print(f"\n[bold]{case.type}[/bold], task {task_id}: {case.about}", highlight=False)
        for finding in findings:
            console.print(f"    {finding}", markup=False, highlight=False)


def show_burst(console: Console, burst: Burst) -> None:
    console.print(f"\n[bold]{TASK_TYPE}[/bold], {burst.tasks:,} more of them in one request", highlight=False)
    rate = burst.tasks / burst.seconds
    console.print(
        f"    all completed within {burst.seconds:.2f} s, from the first one accepted to the last result stored: "
        f"{rate:,.0f} tasks/s\n    {burst.checked} results checked\n",
        highlight=False,
    )


def journey_table(journeys: Sequence[tuple[str, Journey]]) -> Table:
    """One row per task, one column per stage, in milliseconds; narrow enough for 80 characters."""
    table = Table(
        title="Where the time went, in ms",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
        show_edge=False,
    )
    table.add_column("until it was", no_wrap=True)
    for stage in (*STAGES, SEEN, "in all"):
        table.add_column(_NARROW.get(stage, stage), justify="right")
    for name, journey in journeys:
        stages = (_milliseconds(journey.stages[stage]) for stage in (*STAGES, SEEN))
        table.add_row(name, *stages, _milliseconds(journey.total))
    return table


def _milliseconds(seconds: float) -> str:
    milliseconds = seconds * 1000
    return f"{milliseconds:,.1f}" if milliseconds < 100 else f"{milliseconds:,.0f}"
