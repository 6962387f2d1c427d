"""Holds each result against what the demo can work out itself, and puts it into words."""

import base64
import hashlib
import io
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from headrace.demo.errors import DemoError
from headrace.demo.inputs import OUTLIERS

_HISTOGRAM_LINES = 8
_HISTOGRAM_WIDTH = 40


def require(is_right: bool, message: str) -> None:
    if not is_right:
        raise DemoError(message)


def is_plausible(words: int, text: str) -> bool:
    """Counting what stands between spaces is another rule than the task's, and differs by little in prose."""
    expected = len(text.split())
    return abs(words - expected) <= 2 + expected // 50


def word_findings(result: Mapping[str, Any], text: str) -> list[str]:
    words = result["words"]
    require(result["characters"] == len(text), f"word_count found {result['characters']} characters of {len(text)}")
    require(is_plausible(words, text), f"word_count found {words} words in a text of about {len(text.split())}")
    top = [(entry["word"], entry["count"]) for entry in result["top_words"]]
    require(top[0] == max(top, key=lambda entry: entry[1]), "word_count does not list the most frequent word first")
    different, sentences = result["unique_words"], result["sentences"]
    return [
        f"{words:,} words, {different:,} different, in {sentences} sentences, {len(text):,} characters",
        "most frequent: " + ", ".join(f"{word} ({count})" for word, count in top[:8]),
    ]


def picture_findings(result: Mapping[str, Any], before: bytes, *, size: tuple[int, int], target: Path) -> list[str]:
    """Compare the new picture with what was asked for, and write it to `target`."""
    after = base64.b64decode(result["image"], validate=True)
    found = _size_and_format(after)
    require(found == (size, result["format"]), f"image_resize made {found} and calls it {result['format']}")
    target.write_bytes(after)
    return [f"{_picture(before)} became {_picture(after)}"]


def _size_and_format(content: bytes) -> tuple[tuple[int, int], str | None]:
    """Decode the whole picture, not only its header."""
    with Image.open(io.BytesIO(content)) as image:
        image.load()
        return image.size, image.format


def _picture(content: bytes) -> str:
    (width, height), name = _size_and_format(content)
    return f"{width} x {height} {name} of {len(content) / 1024:,.0f} KiB"


def statistics_findings(result: Mapping[str, Any], values: Sequence[float]) -> list[str]:
    expected = {
        "count": len(values),
        "mean": statistics.fmean(values),
        "median": statistics.median(values),
        "standard_deviation": statistics.stdev(values),
        "min": min(values),
        "max": max(values),
    }
    for name, value in expected.items():
        require(
            math.isclose(result[name], value, rel_tol=1e-9),
            f"calculate_statistics says {name} = {result[name]}, and it is {value}",
        )
    outliers = result["outliers"]
    require(outliers["count"] == OUTLIERS, f"calculate_statistics found {outliers['count']} outliers, not {OUTLIERS}")
    return [
        ", ".join(f"{name.replace('_', ' ')} {value:,.6g}" for name, value in expected.items()),
        f"{outliers['count']} outliers above {outliers['upper_fence']:.1f}: the scales that went wrong",
        *histogram_lines(result["histogram"]["edges"], result["histogram"]["counts"]),
    ]


def histogram_lines(edges: Sequence[float], counts: Sequence[int]) -> list[str]:
    """Draw the fullest bins, in order."""
    require(len(edges) == len(counts) + 1, "the histogram of calculate_statistics has not one edge more than bins")
    fullest = sorted(sorted(range(len(counts)), key=lambda index: -counts[index])[:_HISTOGRAM_LINES])
    scale = _HISTOGRAM_WIDTH / max(counts)
    return [
        f"{edges[index]:8.2f} to {edges[index + 1]:8.2f}  {'#' * math.ceil(counts[index] * scale):<{_HISTOGRAM_WIDTH}} "
        f"{counts[index]:,}"
        for index in fullest
        if counts[index]
    ]


def backup_findings(result: Mapping[str, Any], folder: Sequence[tuple[str, str]]) -> list[str]:
    require(result["verified"] is True, "simulate_backup could not verify its archive")
    sums = {name: hashlib.sha256(content.encode()).hexdigest() for name, content in folder}
    archived = {file["name"]: file["sha256"] for file in result["files"]}
    require(archived == sums, "simulate_backup archived other files than it was given")
    total, packed = result["total_bytes"], result["archive_bytes"]
    require(total == sum(len(content.encode()) for _, content in folder), f"simulate_backup counted {total} bytes")
    return [
        f"{len(archived)} files, {total:,} bytes, archived in {packed:,} bytes and verified by reading them back",
        f"SHA-256 of the archive: {result['archive_sha256']}",
    ]
