"""What the demo sends is real, and the same every time."""

import io
import json
from pathlib import Path

from PIL import Image

from execution_service.handlers import BUILTIN_MODULES
from headrace.demo.burst import CHECKED_EVERY, TASKS
from headrace.demo.cases import demo_cases
from headrace.demo.inputs import (
    NUMBERS,
    OUTLIERS,
    PICTURE_SIZE,
    demo_folder,
    flour_weights,
    mill_picture,
    mill_text,
    paragraphs,
)
from headrace.demo.mill_wheel import draw_mill
from headrace.tasks import load_registry


def test_the_text_has_a_title_and_paragraphs() -> None:
    parts = paragraphs(mill_text())
    assert parts[0] == "The Channel and the Wheel"
    assert all(len(part.split()) > 60 for part in parts[1:])
    assert "\n\n".join(parts) == mill_text().strip()


def test_the_picture_is_a_png_of_many_colours() -> None:
    with Image.open(io.BytesIO(mill_picture())) as image:
        assert (image.format, image.size) == ("PNG", PICTURE_SIZE)
        colors = image.getcolors(maxcolors=1_000_000)
    assert colors is not None
    assert len(colors) > 500


def test_the_picture_is_always_the_same() -> None:
    assert draw_mill((64, 48)).tobytes() == draw_mill((64, 48)).tobytes()


def test_the_weights_are_always_the_same_and_hold_the_outliers() -> None:
    weights = flour_weights()
    assert weights == flour_weights()
    assert len(weights) == NUMBERS
    assert sum(weight >= 400 for weight in weights) == OUTLIERS


def test_the_folder_is_the_package_of_the_demo() -> None:
    folder = dict(demo_folder())
    assert folder["mill.txt"] == mill_text()
    assert "def demo_folder" in folder["inputs.py"]


def test_there_is_a_case_for_every_built_in_type_and_its_data_are_valid(tmp_path: Path) -> None:
    registry = load_registry(BUILTIN_MODULES)
    cases = {case.type: case for case in demo_cases(tmp_path)}
    assert sorted(cases) == [definition.name for definition in registry.definitions]
    for definition in registry.definitions:
        definition.decode(json.dumps(cases[definition.name].data).encode())


def test_the_checked_part_of_the_burst_holds_every_paragraph() -> None:
    count = len(paragraphs(mill_text()))
    assert {number % count for number in range(0, TASKS, CHECKED_EVERY)} == set(range(count))
