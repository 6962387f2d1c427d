"""`python -m bench.task_types`: processor time and memory of each built-in type, on a large input of its own.

Each runs in a fresh process through the same steps as in a worker (decode, run, encode), several times; the median of
the processor time and the largest resident memory are quoted. Inputs are made by fixed rules, stated in the table.
"""

import argparse
import asyncio
import base64
import io
import json
import multiprocessing
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from execution_service.handlers import BUILTIN_MODULES
from execution_service.workers.limits import set_sizes
from headrace.recorded_apis import recorded_apis
from headrace.tasks import TaskContext, load_registry

MIB = 1024 * 1024
_WORDS = ("the", "miller", "opens", "sluice", "when", "stones", "run", "water", "good", "bad", "slow", "wonderful")


@dataclass(frozen=True, slots=True)
class Measured:
    """Processor and wall time in seconds, resident memory and the result in bytes."""

    cpu: float
    wall: float
    memory: int
    result: int


def _prose(size: int) -> str:
    chance = random.Random(1)
    sentences = []
    while size > 0:
        sentence = " ".join(chance.choices(_WORDS, k=chance.randint(5, 20))).capitalize() + "."
        sentences.append(sentence)
        size -= len(sentence) + 1
    return " ".join(sentences)


def _photo(width: int, height: int) -> str:
    from PIL import Image

    gradient = Image.radial_gradient("L").resize((width, height))
    image = Image.merge("RGB", (gradient, gradient.transpose(Image.Transpose.ROTATE_180), gradient))
    content = io.BytesIO()
    image.save(content, "JPEG", quality=85)
    return base64.b64encode(content.getvalue()).decode()


def _numbers(count: int) -> list[float]:
    chance = random.Random(1)
    return [round(chance.gauss(50, 10), 3) for _ in range(count)]


def _baskets(count: int) -> list[list[str]]:
    chance = random.Random(1)
    return [chance.sample([f"item-{number}" for number in range(50)], k=chance.randint(1, 6)) for _ in range(count)]


INPUTS: list[tuple[str, str, Callable[[], dict[str, Any]]]] = [
    ("word_count", "4 Mi characters of English", lambda: {"text": _prose(4 * MIB)[: 4 * MIB]}),
    ("sentiment_analysis", "60 Ki characters of English", lambda: {"text": _prose(60 * 1024)}),
    ("text_summarization", "500 Ki characters of English", lambda: {"text": _prose(500 * 1024), "sentences": 5}),
    (
        "image_resize",
        "JPEG of 24 megapixels to 1,600 x 1,200",
        lambda: {"image": _photo(6000, 4000), "width": 1600, "height": 1200},
    ),
    (
        "apply_filter",
        "JPEG of 12 megapixels: blur, sepia, sharpen",
        lambda: {
            "image": _photo(4000, 3000),
            "filters": [{"name": "blur", "radius": 2.0}, {"name": "sepia"}, {"name": "sharpen"}],
        },
    ),
    ("calculate_statistics", "400,000 numbers", lambda: {"values": _numbers(400_000)}),
    (
        "find_patterns",
        "a regular expression, 1 Mi characters",
        lambda: {"text": {"content": _prose(MIB), "patterns": [{"pattern": r"\b(s\w+)\s+(\w+)\b"}]}},
    ),
    ("find_patterns", "a series of 20,000 values", lambda: {"series": {"values": _numbers(20_000)}}),
    (
        "find_patterns",
        "20,000 transactions of 50 items",
        lambda: {"transactions": {"baskets": _baskets(20_000), "min_support": 0.01}},
    ),
    ("weather_data", "a place, 7 days (local stand-in)", lambda: {"place": "Reykjavík", "country": "IS", "days": 7}),
    (
        "currency_conversion",
        "three currencies (local stand-in)",
        lambda: {"amount": "10", "from": "EUR", "to": ["USD", "JPY", "CHF"], "date": "2024-08-01"},
    ),
    (
        "simulate_backup",
        "60 files of 1 MiB, generated",
        lambda: {"generate": {"files": 60, "bytes_each": MIB}},
    ),
    (
        "large_file_processing",
        "CSV of 1 GiB, generated and read",
        lambda: {"generate": {"bytes": 1024 * MIB}},
    ),
]


def _peak_memory() -> int:
    # Not getrusage, which counts from before the process became this program.
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def measure(type_name: str, data: dict[str, Any]) -> Measured:
    """Run a task once, in this process, under the limits of its type."""
    definition = load_registry(BUILTIN_MODULES).get(type_name)
    assert definition is not None, type_name
    body = json.dumps(data).encode()
    set_sizes(definition.limits)
    with tempfile.TemporaryDirectory() as folder:
        context = TaskContext(type=type_name, open_scratch=lambda: Path(folder))
        wall, before = time.perf_counter(), time.process_time()
        result = definition.run(definition.decode(body), context)
        if definition.is_async:
            result = asyncio.run(result)
        encoded = definition.encode(result)
        cpu, wall = time.process_time() - before, time.perf_counter() - wall
    return Measured(cpu, wall, _peak_memory(), len(encoded))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("types", nargs="*", help="only these types")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    table = Table("type", "input", "CPU s", "wall s", "memory MiB", title="Built-in types, one attempt each")
    with recorded_apis() as apis:
        os.environ.update(apis.environment)
        for type_name, label, make in INPUTS:
            if arguments.types and type_name not in arguments.types:
                continue
            data = make()
            with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
                rounds = [pool.apply(measure, (type_name, data)) for _ in range(arguments.rounds)]
            cpu, wall = (statistics.median(getattr(each, name) for each in rounds) for name in ("cpu", "wall"))
            memory = max(each.memory for each in rounds) / MIB
            table.add_row(type_name, label, f"{cpu:.2f}", f"{wall:.2f}", f"{memory:,.0f}")
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
