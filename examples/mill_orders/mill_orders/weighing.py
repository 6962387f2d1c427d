"""Task type `mill_weighing`: waits until the truck of an order was on the scale, and reads the slip.

The scale writes its slips into a folder, whenever a truck comes. Waiting costs next to nothing in an `async def`
handler: one worker process waits for many trucks at a time. An attempt that has waited long enough gives up its place
with a TransientError, and the task is tried again later. A client's cancel ends the wait by itself, at an `await`.
"""

import asyncio
import time
from pathlib import Path

from headrace.tasks import ErrorKind, PermanentError, TaskContext, TransientError, task
from pydantic import BaseModel, ConfigDict, Field, ValidationError

SLIPS = Path(__file__).parents[1] / "slips"
LOOK_SECONDS = 0.2


class Truck(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    number: int = Field(ge=1, description="The mill's number of the order.", examples=[17])
    patience: float = Field(default=60, ge=0, le=300, description="Seconds to wait in one attempt.", examples=[60])


class Slip(BaseModel):
    """What the scale writes."""

    model_config = ConfigDict(strict=True)

    full_kg: int = Field(ge=0, le=60_000)
    empty_kg: int = Field(ge=0, le=60_000)


class Weighing(BaseModel):
    number: int
    grain_kg: int
    attempt: int


@task(
    "mill_weighing",
    timeout=330,
    max_attempts=10,
    errors=[
        ErrorKind("not_weighed", retry=True, description="The truck has not come in time."),
        ErrorKind("bad_slip", retry=False, description="What the scale wrote makes no sense."),
    ],
)
async def mill_weighing(truck: Truck, context: TaskContext) -> Weighing:
    """Wait for a truck to be weighed."""
    began = time.monotonic()
    while (text := await asyncio.to_thread(read_slip, truck.number)) is None:
        waited = time.monotonic() - began
        if waited >= truck.patience:
            raise TransientError("not_weighed", f"No slip for order {truck.number} after {waited:.0f} s.")
        context.progress(waited / truck.patience, "waiting for the truck")
        await asyncio.sleep(LOOK_SECONDS)
    return Weighing(number=truck.number, grain_kg=grain(text), attempt=context.attempt)


def read_slip(number: int) -> str | None:
    """Return what the scale wrote for the order, None if it has not yet."""
    try:
        return (SLIPS / f"{number}.json").read_text()
    except FileNotFoundError:
        return None


def grain(text: str) -> int:
    """Return how many kilograms the truck has left behind."""
    try:
        slip = Slip.model_validate_json(text)
    except ValidationError as error:
        raise PermanentError("bad_slip", f"The slip cannot be read: {error.errors()[0]['msg']}.") from error
    if slip.full_kg < slip.empty_kg:
        raise PermanentError("bad_slip", "The truck was heavier when it was empty.")
    return slip.full_kg - slip.empty_kg
