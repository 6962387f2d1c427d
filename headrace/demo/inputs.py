"""The inputs of the demo: a text, a picture, numbers and a folder, all of them real."""

import base64
import io
import random
from collections.abc import Sequence
from importlib.resources import files

from headrace.demo.mill_wheel import draw_mill

SEED = 1776
NUMBERS = 10_000
OUTLIERS = 25
PICTURE_SIZE = (1600, 1200)
KINDS = ("rye", "wheat", "spelt")
# With the label that each entry should get.
GUEST_BOOK = {
    "The bread from this flour is wonderful, thank you!": "positive",
    "We waited an hour in the rain and nobody apologised, it was terrible.": "negative",
    "The mill stands beside the river.": "neutral",
    "The children loved the wheel.": "positive",
}


def mill_text() -> str:
    """A text about mills and queues, made of a title and paragraphs."""
    return (files("headrace.demo") / "mill.txt").read_text("utf-8")


def paragraphs(text: str) -> list[str]:
    return [part.strip() for part in text.split("\n\n") if part.strip()]


def mill_picture() -> bytes:
    """A mill as PNG, drawn now."""
    target = io.BytesIO()
    draw_mill(PICTURE_SIZE).save(target, format="PNG")
    return target.getvalue()


def flour_weights() -> list[float]:
    """Weights of sacks in kg: two kinds of sacks, small differences, and a few scales that went wrong."""
    chance = random.Random(SEED)
    small = [chance.gauss(25, 0.4) for _ in range(6_000)]
    large = [chance.gauss(50, 1.1) for _ in range(NUMBERS - OUTLIERS - len(small))]
    wrong = [chance.uniform(400, 900) for _ in range(OUTLIERS)]
    weights = [round(weight, 3) for weight in (*small, *large, *wrong)]
    chance.shuffle(weights)
    return weights


def ledger(weights: Sequence[float]) -> str:
    """A CSV file with a row for each sack, and one line that somebody forgot to finish."""
    rows = [f"{number},{KINDS[number % len(KINDS)]},{weight}" for number, weight in enumerate(weights, 1)]
    rows.insert(len(rows) // 2, "unfinished")
    return "\n".join(["sack,flour,kg", *rows, ""])


def demo_folder() -> Sequence[tuple[str, str]]:
    """The files of this very package: name and content."""
    folder = sorted(files("headrace.demo").iterdir(), key=lambda each: each.name)
    return [(each.name, each.read_text("utf-8")) for each in folder if each.name.endswith((".py", ".txt"))]


def as_base64(content: bytes) -> str:
    return base64.b64encode(content).decode()
