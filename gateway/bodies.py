"""From bytes to task requests: read a body within its bounds, then decode it, naming what is wrong where."""

import asyncio
import re
from datetime import timedelta
from typing import TypeVar

import msgspec
from starlette.requests import ClientDisconnect, Request

from gateway.body_budget import BodyHold
from servicekit.errors import FieldError, HeadraceError, InvalidArgument, TooLarge
from servicekit.http.problems import InvalidJson, SlowBody, UnsupportedMediaType
from servicekit.pointers import child, nearest
from servicekit.strings import lone_surrogate


class BackoffBody(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """How long a failed task waits, in seconds; what is left out comes from the type."""

    initial: int | float | None = None
    factor: int | float | None = None
    maximum: int | float | None = None


class TaskBody(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """One task as a client sends it. `null` for an option is the same as leaving it out."""

    type: str
    data: msgspec.Raw
    priority: int | None = None
    run_at: str | None = None
    delay: int | float | None = None
    max_attempts: int | None = None
    timeout: int | float | None = None
    expires_in: int | float | None = None
    soft_timeout: int | float | None = None
    backoff: BackoffBody | None = None


class RetryBody(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """Which ended tasks to start again. `null` is the same as leaving a field out."""

    status: str | None = None
    type: str | None = None
    error: str | None = None
    finished_after: str | None = None
    finished_before: str | None = None
    limit: int | None = None
    dry_run: bool | None = None


class WorkerBody(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """Where a worker is wished for. `null` is the same as leaving a field out."""

    replica: str | None = None
    pool: str | None = None


Body = TypeVar("Body")

_ONE = msgspec.json.Decoder(TaskBody)
_MANY = msgspec.json.Decoder(list[TaskBody])
_RETRY = msgspec.json.Decoder(RetryBody)
_WORKER = msgspec.json.Decoder(WorkerBody)


async def read_json_body(request: Request, hold: BodyHold, *, bytes_max: int, timeout: timedelta) -> bytes:
    """Return the body. Refuses other media types, and more than `bytes_max` before and while reading it.

    `hold` counts what it takes in memory, for as long as the caller keeps it open.
    """
    _require_json(request)
    announced = request.headers.get("content-length", "")
    if announced.isdigit() and int(announced[:20]) > bytes_max:
        raise _too_large(bytes_max)
    try:
        async with asyncio.timeout(timeout.total_seconds()):
            return await _read(request, hold, bytes_max)
    except TimeoutError:
        raise SlowBody(f"The body did not arrive within {timeout.total_seconds():g} s.") from None
    except ClientDisconnect:
        raise InvalidJson("The connection ended within the body.", code="incomplete_body") from None


def decode_task(body: bytes) -> TaskBody:
    return _decode(_ONE, body, TaskBody)


def decode_tasks(body: bytes) -> list[TaskBody]:
    return _decode(_MANY, body, TaskBody)


def decode_retry(body: bytes) -> RetryBody:
    return _decode(_RETRY, body, RetryBody)


def decode_worker(body: bytes) -> WorkerBody:
    return _decode(_WORKER, body, WorkerBody)


def is_empty(request: Request) -> bool:
    """Whether the request has no body, as its headers say."""
    return request.headers.get("content-length", "0") == "0" and "transfer-encoding" not in request.headers


def _require_json(request: Request) -> None:
    media_type, _, parameters = request.headers.get("content-type", "").partition(";")
    charset = re.search(r"charset\s*=\s*\"?([^\s;\"]+)", parameters, re.IGNORECASE)
    if media_type.strip().lower() != "application/json" or (charset and charset[1].lower() not in ("utf-8", "utf8")):
        raise UnsupportedMediaType("Send the body as Content-Type: application/json in UTF-8.")
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise UnsupportedMediaType("Send the body without Content-Encoding; compressed bodies are not accepted.")


async def _read(request: Request, hold: BodyHold, bytes_max: int) -> bytes:
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > bytes_max:
            raise _too_large(bytes_max)
        hold.add(len(chunk))
        chunks.append(chunk)
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _too_large(bytes_max: int) -> TooLarge:
    return TooLarge(f"The body is larger than the limit of {bytes_max} bytes.", code="body_too_large")


def _decode(decoder: msgspec.json.Decoder[Body], body: bytes, shape: type[msgspec.Struct]) -> Body:
    if not body:
        raise InvalidArgument("A JSON body is required.", code="body_required")
    _require_utf8(body)
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise _invalid_shape(str(error), shape) from None
    except RecursionError:
        raise InvalidArgument("The body is nested too deeply.", code="too_deep") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _malformed(body, error) from None


def _require_utf8(body: bytes) -> None:
    """The decoder looks only at the strings it decodes, not at those it carries as they came."""
    if body.isascii():
        return
    try:
        body.decode()
    except UnicodeDecodeError as error:
        raise InvalidJson(f"The body is not UTF-8: {_position(body, error.start)}.") from None


def _malformed(body: bytes, error: Exception) -> HeadraceError:
    lone = lone_surrogate(body)
    if lone is not None:
        message = "The string holds half of a surrogate pair, which is no character."
        return InvalidArgument(message, code="invalid_unicode", fields=[FieldError(lone, "invalid_unicode", message)])
    text = str(error).removeprefix("JSON is malformed: ")
    match = re.search(r" \(byte (\d+)\)", text)
    where = _position(body, int(match[1]) if match else len(body))
    return InvalidJson(f"The body is not JSON: {text[: match.start()] if match else 'it ends too early'}, {where}.")


def _position(body: bytes, offset: int) -> str:
    before = body[:offset]
    line = before.count(b"\n") + 1
    column = len(before[before.rfind(b"\n") + 1 :].decode(errors="replace")) + 1
    return f"line {line}, column {column}"


def _invalid_shape(text: str, shape: type[msgspec.Struct]) -> InvalidArgument:
    """Translate what the decoder says, such as: Expected `int`, got `str` - at `$[0].priority`."""
    reason, _, path = text.partition(" - at `$")
    pointer = "".join(child("", key or index) for key, index in re.findall(r"\.(\w+)|\[(\d+)\]", path))
    if match := re.fullmatch(r"Object contains unknown field `(.*)`", reason, re.DOTALL):
        name = match[1]
        known = (BackoffBody if pointer.endswith("/backoff") else shape).__struct_fields__
        hint = nearest(name, known) or f" Known are {', '.join(known)}."
        return _invalid(child(pointer, name), "unknown_field", f"There is no such field.{hint}")
    if match := re.fullmatch(r"Object missing required field `(.*)`", reason):
        return _invalid(child(pointer, match[1]), "required", "This field is required.")
    if match := re.fullmatch(r"Expected `(.*)`, got `(.*)`", reason):
        expected = match[1].replace(" | ", " or ").replace("array", "a JSON array")
        return _invalid(pointer, "type", f"Expected {expected}, got {match[2]}.")
    return _invalid(pointer, "value", f"{reason}.")


def _invalid(pointer: str, rule: str, message: str) -> InvalidArgument:
    code = rule if rule == "unknown_field" else "invalid_request"
    return InvalidArgument(
        f"{pointer or 'The body'}: {message}", code=code, fields=[FieldError(pointer, rule, message)]
    )
