"""The tasks of the demo: what is sent, what is expected back, and what is worth telling about it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headrace.demo.checks import answers, files, numbers, pictures, texts
from headrace.demo.errors import DemoError
from headrace.demo.inputs import GUEST_BOOK, as_base64, demo_folder, flour_weights, ledger, mill_picture, mill_text

# The picture has these proportions as well, so it has to become exactly this large.
RESIZED = (640, 480)
BACKUP_STEP_SECONDS = 0.1
SUMMARY_SENTENCES = 3
MILL_PARTS = r"\b(?i:wheels?|stones?|sluices?|buckets?|ponds?|channels?)\b"


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
    picture = mill_picture()
    (outputs / "mill.png").write_bytes(picture)
    return [*_file_cases(), *_text_cases(), *_picture_cases(picture, outputs), *_number_cases(), *_answer_cases()]


def _file_cases() -> list[Case]:
    folder, weights = demo_folder(), flour_weights()
    return [
        Case(
            type="simulate_backup",
            about=f"a backup of the {len(folder)} files of the demo itself",
            data={
                "files": [{"name": name, "content": content} for name, content in folder],
                "step_delay": BACKUP_STEP_SECONDS,
            },
            findings=lambda result: files.backup_findings(result, folder),
            is_long=True,
        ),
        Case(
            type="large_file_processing",
            about="the miller's ledger of these sacks, as CSV",
            data={"content": ledger(weights)},
            findings=lambda result: files.ledger_findings(result, weights),
        ),
    ]


def _text_cases() -> list[Case]:
    text = mill_text()
    return [
        Case(
            type="word_count",
            about="a text about mills and queues",
            data={"text": text},
            findings=lambda result: texts.word_findings(result, text),
        ),
        Case(
            type="sentiment_analysis",
            about="the mill's guest book",
            data={"text": " ".join(GUEST_BOOK)},
            findings=lambda result: texts.sentiment_findings(result, GUEST_BOOK),
        ),
        Case(
            type="text_summarization",
            about=f"the same text in {SUMMARY_SENTENCES} sentences",
            data={"text": text, "sentences": SUMMARY_SENTENCES},
            findings=lambda result: texts.summary_findings(result, text, SUMMARY_SENTENCES),
        ),
        Case(
            type="find_patterns",
            about="what a mill is made of, looked for in it",
            data={"text": {"content": text, "patterns": [{"pattern": MILL_PARTS}]}},
            findings=lambda result: texts.pattern_findings(result, text, MILL_PARTS),
        ),
    ]


def _picture_cases(picture: bytes, outputs: Path) -> list[Case]:
    image = as_base64(picture)
    filters = [{"name": "sepia"}, {"name": "sharpen"}]
    return [
        Case(
            type="image_resize",
            about="a picture of a mill, drawn a moment ago",
            data={"image": image, "width": RESIZED[0], "height": RESIZED[1], "format": "JPEG"},
            findings=lambda result: pictures.picture_findings(
                result, picture, size=RESIZED, target=outputs / "mill.jpg"
            ),
        ),
        Case(
            type="apply_filter",
            about="the same picture as an old photograph",
            data={"image": image, "filters": filters, "format": "JPEG"},
            findings=lambda result: pictures.sepia_findings(result, picture, outputs / "mill-sepia.jpg"),
        ),
    ]


def _number_cases() -> list[Case]:
    weights = flour_weights()
    return [
        Case(
            type="calculate_statistics",
            about=f"the weights of {len(weights):,} sacks of flour, in kg",
            data={"values": weights},
            findings=lambda result: numbers.statistics_findings(result, weights),
        ),
    ]


def _answer_cases() -> list[Case]:
    currencies = ["USD", "JPY", "CHF"]
    return [
        Case(
            type="weather_data",
            about="the weather at a mill town, now and for two days",
            data={"place": "Reykjavík", "country": "IS", "days": 2},
            findings=lambda result: answers.weather_findings(result, "Reykjavík", 2),
        ),
        Case(
            type="currency_conversion",
            about="the price of a new wheel on 1 August 2024",
            data={"amount": "1499.90", "from": "EUR", "to": currencies, "date": "2024-08-01"},
            findings=lambda result: answers.money_findings(result, "1499.90", currencies),
        ),
    ]


def check(case: Case, result: Any) -> Sequence[str]:
    """Return the findings. Raises DemoError for a result that is wrong, or not even in the expected form."""
    try:
        return case.findings(result)
    except (KeyError, TypeError, ValueError, OSError) as error:
        raise DemoError(f"the result of {case.type} is not as expected: {error!r}") from error
