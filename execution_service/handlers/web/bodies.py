"""Reading answers: a bounded number of bytes, compressed and not, and then JSON in UTF-8."""

import json
import zlib
from collections.abc import AsyncIterable, Sequence
from decimal import Decimal
from typing import NoReturn, TypeVar

from pydantic import BaseModel, ValidationError

from execution_service.handlers.web.failures import failure

BODY_BYTES_MAX = 2 * 1024 * 1024
REASON_CHARACTERS_MAX = 100
_GZIP = zlib.MAX_WBITS | 16

Headers = Sequence[tuple[bytes, bytes]]
Model = TypeVar("Model", bound=BaseModel)


async def read_body(headers: Headers, chunks: AsyncIterable[bytes]) -> bytes:
    """Return the content of an answer. Raises a coded error when it is too large or wrongly compressed."""
    if any(int(length) > BODY_BYTES_MAX for length in _values(headers, b"content-length") if length.isdigit()):
        raise failure("response_too_large", f"It has more than {BODY_BYTES_MAX} bytes.")
    unpacker = _unpacker(headers)
    body = bytearray()
    received = 0
    async for chunk in chunks:
        received += len(chunk)
        # Unpacked one byte beyond the limit at most, whatever the chunk would unpack to.
        body += _unpack(unpacker, chunk, BODY_BYTES_MAX + 1 - len(body)) if unpacker else chunk
        if max(received, len(body)) > BODY_BYTES_MAX:
            raise failure("response_too_large", f"It has more than {BODY_BYTES_MAX} bytes.")
    if unpacker and (not unpacker.eof or unpacker.unused_data):
        raise failure("malformed_response", "It is not compressed as it says.")
    return bytes(body)


def read_model(model: type[Model], body: bytes) -> Model:
    """Return an answer as a model. Raises TransientError `malformed_response`."""
    try:
        return model.model_validate(_read_json(body))
    except ValidationError as error:
        where = "/".join(map(str, error.errors(include_input=False)[0]["loc"]))
        raise failure("malformed_response", f"It is wrong at /{where[:REASON_CHARACTERS_MAX]}.") from error
    except (ValueError, ArithmeticError, RecursionError) as error:
        raise failure("malformed_response", "It is not JSON.") from error


def reason_in(body: bytes) -> str:
    """Return what an API says about a request that it refuses, as Open-Meteo and Frankfurter do; empty without it."""
    try:
        content = _read_json(body)
    except (ValueError, ArithmeticError, RecursionError):
        return ""
    reason = content.get("reason", content.get("message")) if isinstance(content, dict) else None
    if not isinstance(reason, str):
        return ""
    return "".join(filter(str.isprintable, reason[:REASON_CHARACTERS_MAX])).rstrip(".")


def _read_json(body: bytes) -> object:
    # Decoded first: given bytes, json would also take UTF-16. Numbers stay exact, for models that want them so.
    return json.loads(body.decode(), parse_float=Decimal, parse_constant=_refuse_constant)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")


def _unpacker(headers: Headers) -> "zlib._Decompress | None":
    codings = [
        coding.strip().lower() for value in _values(headers, b"content-encoding") for coding in value.split(b",")
    ]
    if codings in ([], [b"identity"]):
        return None
    # Only what was asked for, and not twice over: the second layer would multiply what the first has unpacked.
    if codings != [b"gzip"]:
        raise failure("malformed_response", "It is compressed in a way that was not asked for.")
    return zlib.decompressobj(_GZIP)


def _unpack(unpacker: "zlib._Decompress", chunk: bytes, bytes_max: int) -> bytes:
    try:
        return unpacker.decompress(chunk, bytes_max)
    except zlib.error as error:
        raise failure("malformed_response", "It is not compressed as it says.") from error


def _values(headers: Headers, name: bytes) -> list[bytes]:
    return [value for key, value in headers if key.lower() == name]
