"""The demo accepts what the handlers return, and refuses anything else."""

import asyncio
import base64
import io
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from execution_service.handlers import BUILTIN_MODULES
from headrace.demo.cases import Case, check, demo_cases
from headrace.demo.checks.numbers import histogram_lines
from headrace.demo.checks.texts import is_plausible
from headrace.demo.errors import DemoError
from headrace.tasks import TaskContext, load_registry

Change = Callable[[dict[str, Any]], object]


def _blue(image: str) -> str:
    """The picture with its red and blue exchanged."""
    with Image.open(io.BytesIO(base64.b64decode(image))) as opened:
        red, green, blue = opened.convert("RGB").split()
    content = io.BytesIO()
    Image.merge("RGB", (blue, green, red)).save(content, "JPEG")
    return base64.b64encode(content.getvalue()).decode()


# One way in which each result can be wrong.
WRONG: list[tuple[str, Change]] = [
    ("word_count", lambda result: result.update(words=result["words"] // 2)),
    ("word_count", lambda result: result.update(characters=result["characters"] + 1)),
    ("word_count", lambda result: result["top_words"].reverse()),
    ("word_count", lambda result: result.pop("top_words")),
    ("image_resize", lambda result: result.update(format="WEBP")),
    ("image_resize", lambda result: result.update(image=result["image"][:400])),
    ("image_resize", lambda result: result.update(image="no base64")),
    ("calculate_statistics", lambda result: result.update(mean=result["mean"] + 0.001)),
    ("calculate_statistics", lambda result: result["outliers"].update(count=0)),
    ("calculate_statistics", lambda result: result["histogram"]["edges"].pop()),
    ("calculate_statistics", lambda result: result.update(median=None)),
    ("simulate_backup", lambda result: result.update(verified=False)),
    ("simulate_backup", lambda result: result["files"].pop()),
    ("simulate_backup", lambda result: result["files"][0].update(sha256="0" * 64)),
    ("simulate_backup", lambda result: result.update(total_bytes=1)),
    ("large_file_processing", lambda result: result.update(rows=9_999)),
    ("large_file_processing", lambda result: result.update(error_count=0)),
    ("large_file_processing", lambda result: result["columns"][2]["numbers"].update(mean=0.0)),
    ("sentiment_analysis", lambda result: result["sentences"][0].update(label="negative")),
    ("sentiment_analysis", lambda result: result.update(compound=1.5)),
    ("text_summarization", lambda result: result["sentences"].pop()),
    ("text_summarization", lambda result: result["sentences"].reverse()),
    ("text_summarization", lambda result: result["sentences"][0].update(text="Not of the text.")),
    ("find_patterns", lambda result: result["text"]["patterns"][0]["matches"].pop()),
    ("apply_filter", lambda result: result.update(image=_blue(result["image"]))),
    ("weather_data", lambda result: result["daily"].pop()),
    ("weather_data", lambda result: result["place"].update(name="Elsewhere")),
    ("currency_conversion", lambda result: result["conversions"][0].update(amount="1.00")),
    ("currency_conversion", lambda result: result["conversions"].pop()),
]


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Case]:
    return {case.type: case for case in demo_cases(tmp_path_factory.mktemp("outputs"))}


@pytest.fixture(scope="module")
def results(cases: dict[str, Case], tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What the handlers really return for the cases, as JSON."""
    found = {}
    for definition in load_registry(BUILTIN_MODULES).definitions:
        scratch = tmp_path_factory.mktemp(definition.name)
        data = {**cases[definition.name].data}
        if "step_delay" in data:
            data["step_delay"] = 0
        context = TaskContext(open_scratch=partial(Path, scratch))
        result = definition.run(definition.decode(json.dumps(data).encode()), context)
        if definition.is_async:
            result = asyncio.run(result)
        found[definition.name] = definition.encode(result).decode()
    return found


@pytest.mark.parametrize("name", sorted({name for name, _ in WRONG}))
def test_right_results_are_put_into_words(name: str, cases: dict[str, Case], results: dict[str, str]) -> None:
    findings = check(cases[name], json.loads(results[name]))
    assert findings
    assert all(len(line) < 100 for line in findings)


@pytest.mark.parametrize(("name", "change"), WRONG)
def test_wrong_results_are_refused(name: str, change: Change, cases: dict[str, Case], results: dict[str, str]) -> None:
    result = json.loads(results[name])
    change(result)
    with pytest.raises(DemoError, match=name):
        check(cases[name], result)


@pytest.mark.parametrize("result", [None, [], "text", {}])
def test_results_of_another_form_are_refused(result: object, cases: dict[str, Case]) -> None:
    for case in cases.values():
        with pytest.raises(DemoError, match="not as expected"):
            check(case, result)


def test_the_resized_picture_is_written(tmp_path: Path, results: dict[str, str]) -> None:
    case = next(case for case in demo_cases(tmp_path) if case.type == "image_resize")
    check(case, json.loads(results["image_resize"]))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mill.jpg", "mill.png"]


def test_a_count_of_words_may_differ_by_little() -> None:
    text = "word " * 1000
    assert is_plausible(1000, text)
    assert is_plausible(985, text)
    assert not is_plausible(900, text)
    assert not is_plausible(0, "one two three")


def test_empty_bins_of_a_histogram_are_left_out() -> None:
    lines = histogram_lines([0, 1, 2, 3], [4, 0, 1])
    assert [line.split()[:3] for line in lines] == [["0.00", "to", "1.00"], ["2.00", "to", "3.00"]]
    assert lines[0].count("#") == 4 * lines[1].count("#")
