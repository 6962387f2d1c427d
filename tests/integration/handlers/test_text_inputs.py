"""What the types that read texts take, and what they refuse. Ids T.. are those of the bad inputs in docs/tasks.md."""

import json
from typing import Any

import pytest

from execution_service.handlers import sentiment_analysis, text_summarization, word_count
from tests.integration.handlers.conftest import Counter

pytestmark = pytest.mark.asyncio(loop_scope="session")

_MAX = {
    "word_count": word_count.TEXT_CHARACTERS_MAX,
    "sentiment_analysis": sentiment_analysis.TEXT_CHARACTERS_MAX,
    "text_summarization": text_summarization.TEXT_CHARACTERS_MAX,
}


def _count(result: Any) -> Any:
    """How many sentences a result of any of the types has counted."""
    return result["sentences"] if "words" in result else result["sentence_count"]


@pytest.mark.parametrize("type_name", _MAX)
@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        pytest.param("   \t\n ", 0, id="T05-only-spaces"),
        pytest.param("a" + "\u0315\u0316" * 30_000 + "b.", 1, id="T05-a-tower-of-marks"),
        pytest.param("e\u0301e\u0301. o\u0308.", 2, id="T05-combining-marks"),
        pytest.param("\u202eمرحبا\u202c \u200fبالعالم\u200e. שלום!", 2, id="T05-right-to-left"),
        pytest.param("👩‍👩‍👧‍👦 family. 🇩🇪 flag. 1️⃣ one.", 3, id="T05-emoji"),
        pytest.param("".join(map(chr, range(1, 256))), None, id="T20-binary"),
        pytest.param("one\r\ntwo\rthree\nfour.\r\n\r\nfive\r\rsix\n\nseven\u2028eight", 4, id="T20-mixed-line-ends"),
        pytest.param("x" * 60_000, 1, id="T20-one-word"),
        pytest.param("The same again. " * 4000, 4000, id="T06-duplicates"),
    ],
)
async def test_unusual_texts_are_texts(counter: Counter, type_name: str, text: str, sentences: int | None) -> None:
    count = _count(await counter.result(type_name, {"text": text}))
    assert count == sentences if sentences is not None else count > 0


@pytest.mark.parametrize("type_name", _MAX)
async def test_a_text_may_be_as_long_as_is_said_in_characters_and_no_longer(counter: Counter, type_name: str) -> None:
    """T05 and T20: the longest, in characters of two bytes, is done; with one more it is refused on both sides."""
    longest = {"text": "é" * _MAX[type_name]}
    assert _count(await counter.result(type_name, longest)) == 1
    longer = {"text": "é" * (_MAX[type_name] + 1)}
    assert [(error.field, error.rule) for error in counter.refusals(type_name, longer)] == [("/text", "maxLength")]
    assert await counter.error_code(type_name, longer) == "invalid_data"


@pytest.mark.parametrize("type_name", _MAX)
@pytest.mark.parametrize(
    ("data", "field", "rule"),
    [
        pytest.param({"text": "a\0b"}, "/text", "nul_character", id="T05-nul"),
        pytest.param({"text": ["a", 1]}, "/text", "type", id="T06-list-for-a-text"),
        pytest.param({"text": {"__class__": "str"}}, "/text", "type", id="T07-object-for-a-text"),
        pytest.param({"text": "x" * 10_000_000}, "/text", "maxLength", id="T20-one-line-of-10-MB"),
    ],
)
async def test_what_is_no_text_is_refused(counter: Counter, type_name: str, data: Any, field: str, rule: str) -> None:
    assert [(error.field, error.rule) for error in counter.refusals(type_name, data)] == [(field, rule)]
    # That NUL cannot be stored is a rule of the gateway and of results: in data a worker takes it like any character.
    if rule != "nul_character":
        assert await counter.error_code(type_name, data) == "invalid_data"


@pytest.mark.parametrize("type_name", ["sentiment_analysis", "text_summarization"])
async def test_an_empty_text_has_nothing_to_tell(counter: Counter, type_name: str) -> None:
    """T20-empty: counting gives 0; of what is not there, nothing can be said."""
    assert [(error.field, error.rule) for error in counter.refusals(type_name, {"text": ""})] == [
        ("/text", "minLength")
    ]
    assert await counter.error_code(type_name, {"text": ""}) == "invalid_data"
    assert (await counter.result("word_count", {"text": ""}))["words"] == 0


@pytest.mark.parametrize("type_name", _MAX)
async def test_text_that_is_not_utf_8_is_refused_by_the_worker_too(counter: Counter, type_name: str) -> None:
    """T20-invalid-utf-8: the gateway refuses the whole body, before it looks at data."""
    assert await counter.error_code(type_name, b'{"text": "\xff\xfe"}') == "invalid_data"


@pytest.mark.parametrize("type_name", _MAX)
async def test_data_that_look_like_instructions_are_text(counter: Counter, type_name: str) -> None:
    """T07: nothing in a text is ever interpreted."""
    text = (
        "!!python/object/apply:os.system ['true']. {{7*7}} ${jndi:ldap://x}. gASVHAAAAAAAAACMBXBvc2l4lIwGc3lzdGVtlJOU."
    )
    result = await counter.result(type_name, {"text": text})
    assert _count(result) == 3
    assert "49" not in json.dumps(result)


async def test_a_summary_has_one_length(counter: Counter) -> None:
    data = {"text": "One. Two.", "sentences": 1, "ratio": 0.5}
    assert [error.field for error in counter.refusals("text_summarization", data)] == ["/sentences"]
    assert await counter.error_code("text_summarization", data) == "invalid_data"
