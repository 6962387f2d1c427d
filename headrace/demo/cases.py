"""The tasks of the demo: what is sent, what is expected back, and what is worth telling about it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headrace.demo import checks
from headrace.demo.errors import DemoError
from headrace.demo.inputs import as_base64, demo_folder, flour_weights, mill_picture, mill_text

# The picture has these proportions as well, so it has to become exactly this large.
RESIZED = (640, 480)
BACKUP_STEP_SECONDS = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One task. `findings` checks its result, and says in a few lines what is in it."""

    type: str
    about: str
    data: Mapping[str, Any]
    findings: Callable[[Any], list[str]]
    # Takes seconds; what is short does not wait for it.
    is_long: bool = False


def demo_cases(outputs: Path) -> list[Case]:
    """One case of each built-in type. Files that come out of them go to `outputs`."""
    text, picture, weights, folder = mill_text(), mill_picture(), flour_weights(), demo_folder()
    (outputs / "mill.png").write_bytes(picture)
    return [
        Case(
            type="simulate_backup",
            about=f"a backup of the {len(folder)} files of the demo itself",
            data={
                "files": [{"name": name, "content": content} for name, content in folder],
                "step_delay": BACKUP_STEP_SECONDS,
            },
            findings=lambda result: checks.backup_findings(result, folder),
            is_long=True,
        ),
        Case(
            type="word_count",
            about="a text about mills and queues",
            data={"text": text},
            findings=lambda result: checks.word_findings(result, text),
        ),
        Case(
            type="image_resize",
            about="a picture of a mill, drawn a moment ago",
            data={"image": as_base64(picture), "width": RESIZED[0], "height": RESIZED[1], "format": "JPEG"},
            findings=lambda result: checks.picture_findings(result, picture, size=RESIZED, target=outputs / "mill.jpg"),
        ),
        Case(
            type="calculate_statistics",
            about=f"the weights of {len(weights):,} sacks of flour, in kg",
            data={"values": weights},
            findings=lambda result: checks.statistics_findings(result, weights),
        ),
    ]


def check(case: Case, result: Any) -> Sequence[str]:
    """Return the findings. Raises DemoError for a result that is wrong, or not even in the expected form."""
    try:
        return case.findings(result)
    except (KeyError, TypeError, ValueError, OSError) as error:
        raise DemoError(f"the result of {case.type} is not as expected: {error!r}") from error
