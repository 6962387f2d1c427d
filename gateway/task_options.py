"""Backoff and soft timeout of a task: from its request, else from its type, else the defaults of all tasks."""

from gateway.bodies import TaskBody
from headrace.v1.task_pb2 import Backoff, TaskOptions, TaskType
from servicekit.errors import FieldError
from servicekit.pointers import child

BACKOFF_DEFAULT = Backoff(initial_ms=1000, factor=2.0, max_ms=300_000)


def type_backoff(task_type: TaskType) -> Backoff:
    """The backoff of a type, complete."""
    return complete_backoff(task_type.options)


def complete_backoff(options: TaskOptions) -> Backoff:
    """The backoff that `options` stand for: what they leave out is the default."""
    backoff = options.backoff
    return Backoff(
        initial_ms=backoff.initial_ms or BACKOFF_DEFAULT.initial_ms,
        factor=backoff.factor or BACKOFF_DEFAULT.factor,
        max_ms=backoff.max_ms or BACKOFF_DEFAULT.max_ms,
    )


def differing_options(backoff: Backoff, soft_timeout_ms: int, timeout_ms: int) -> TaskOptions | None:
    """What a submission has to carry: nothing where all is as by default. A soft timeout that is not shorter than the
    timeout can never come first, and is left out.
    """
    soft_timeout_ms = soft_timeout_ms if soft_timeout_ms < timeout_ms else 0
    own_backoff = backoff if backoff != BACKOFF_DEFAULT else None
    if own_backoff is None and not soft_timeout_ms:
        return None
    return TaskOptions(backoff=own_backoff, soft_timeout_ms=soft_timeout_ms)


def requested_backoff(body: TaskBody, default: Backoff) -> Backoff:
    given = body.backoff
    if given is None:
        return default
    return Backoff(
        initial_ms=default.initial_ms if given.initial is None else round(given.initial * 1000),
        factor=default.factor if given.factor is None else given.factor,
        max_ms=default.max_ms if given.maximum is None else round(given.maximum * 1000),
    )


def combination_errors(body: TaskBody, *, timeout_ms: int, backoff: Backoff, pointer: str) -> list[FieldError]:
    """What is wrong with options that are each in their range. `timeout_ms` and `backoff` are those of the type."""
    errors: list[FieldError] = []
    if body.soft_timeout is not None:
        limit_ms = timeout_ms if body.timeout is None else round(body.timeout * 1000)
        if round(body.soft_timeout * 1000) >= limit_ms:
            message = f"The value must be less than the timeout, {limit_ms / 1000:g} s."
            errors.append(FieldError(child(pointer, "soft_timeout"), "less_than_timeout", message))
    if body.backoff is not None:
        wanted = requested_backoff(body, backoff)
        if wanted.initial_ms > wanted.max_ms:
            # The member that was given is at fault; where both were, the first.
            at_fault = "maximum" if body.backoff.initial is None else "initial"
            delays = f"{wanted.initial_ms / 1000:g} s, exceeds the maximum, {wanted.max_ms / 1000:g} s."
            message = f"The initial delay, {delays}"
            errors.append(FieldError(child(child(pointer, "backoff"), at_fault), "initial_above_maximum", message))
    return errors
