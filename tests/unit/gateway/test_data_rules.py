import msgspec
import pytest

from gateway.data_rules import DEPTH_MAX, KEYS_MAX, NODES_MAX, decode_data
from servicekit.errors import FieldError


def broken(raw: bytes) -> FieldError:
    _, error = decode_data(raw, "/data")
    assert error is not None
    return error


def nested(levels: int) -> bytes:
    """An object that is `levels` deep."""
    return b'{"a":' * (levels - 1) + b"{}" + b"}" * (levels - 1)


def test_plain_data_is_decoded() -> None:
    assert decode_data(b'{"a":[1,2.5,"x",null,true]}', "/data") == ({"a": [1, 2.5, "x", None, True]}, None)


@pytest.mark.parametrize(
    ("raw", "field"),
    [
        (rb'{"a":"x\u0000y"}', "/data/a"),
        (rb'{"a":[0,{"b":"\u0000"}]}', "/data/a/1/b"),
        (rb'{"a":{"\u0000":1}}', "/data/a"),
    ],
)
def test_a_nul_character_is_named(raw: bytes, field: str) -> None:
    error = broken(raw)
    assert (error.rule, error.field) == ("nul_character", field)


def test_an_escaped_backslash_before_u0000_is_no_nul() -> None:
    assert decode_data(rb'{"a":"\\u0000"}', "/data") == ({"a": r"\u0000"}, None)


def test_depth_is_allowed_up_to_its_limit_and_not_beyond() -> None:
    assert decode_data(nested(DEPTH_MAX), "/data")[1] is None
    assert broken(nested(DEPTH_MAX + 1)).rule == "too_deep"
    assert broken(b'{"a":' + b"[" * 900 + b"]" * 900 + b"}").rule == "too_deep"


def test_many_shallow_containers_are_not_deep() -> None:
    assert decode_data(b'{"a":[' + b",".join([b"[1,2]"] * 1000) + b"]}", "/data")[1] is None


@pytest.mark.parametrize("number", [b"1e999", b"-1e999", b"9" * 5000, b"-" + b"9" * 5000, b"1" * 400 + b".5"])
def test_a_number_out_of_range_is_named(number: bytes) -> None:
    error = broken(b'{"a":[1,' + number + b"]}")
    assert (error.rule, error.field) == ("number_out_of_range", "/data/a/1")


def test_integers_of_any_usual_size_are_fine() -> None:
    assert decode_data(b'{"a":100000000000000000000}', "/data") == ({"a": 10**20}, None)


def test_too_many_keys_are_refused() -> None:
    raw = msgspec.json.encode({"a": {str(number): 0 for number in range(KEYS_MAX + 1)}})
    assert (broken(raw).rule, broken(raw).field) == ("too_many_items", "/data/a")


def test_too_many_values_are_refused() -> None:
    assert broken(b'{"a":[' + b"0," * NODES_MAX + b"0]}").rule == "too_many_items"


def test_a_long_list_within_the_limit_is_fine() -> None:
    assert decode_data(b'{"a":[' + b"0," * 200_000 + b"0]}", "/data")[1] is None
