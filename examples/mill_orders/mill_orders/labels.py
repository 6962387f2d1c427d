"""Task type `mill_labels`: a label for every sack, as one PDF.

It runs in a pool of its own, `press`: one at a time on each replica, beside the tasks of other pools, however many
orders come in. Labels are drawn into the attempt's scratch directory, which is gone when the attempt is over.
"""

import base64
from pathlib import Path
from typing import TYPE_CHECKING

from headrace.tasks import ErrorKind, Limits, PermanentError, TaskContext, task
from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFont import FreeTypeFont

WIDTH, HEIGHT = 600, 300  # 10 x 5 cm
MARGIN = 30
DOTS_PER_INCH = 152
FONT_SIZES = (56, 44, 34, 26)


class LabelOrder(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    number: int = Field(ge=1, description="The mill's number of the order.", examples=[17])
    # The font that Pillow brings has no other letters. A pattern is part of the schema: the gateway checks it.
    customer: str = Field(
        min_length=1,
        max_length=200,
        pattern="^[ -~]+$",
        description="Printed in one line; letters, digits and signs of ASCII.",
        examples=["Bakery Pretzel"],
    )
    # With so many labels the PDF stays well below the 8 MiB that a result may have.
    sacks: int = Field(ge=1, le=200, description="How many labels.", examples=[2])


class Labels(BaseModel):
    labels: int
    bytes: int
    pdf: str = Field(description="The PDF in base64, one page for each label.")


class PressStoppedError(Exception):
    """The client cancelled the task."""


@task(
    "mill_labels",
    pool="press",
    timeout=120,
    max_attempts=2,
    limits=Limits(memory_mib=512, file_mib=64),
    examples=[{"number": 17, "customer": "Bakery Pretzel", "sacks": 2}],
    errors=[ErrorKind("customer_too_long", retry=False, description="The name does not fit on a label.")],
)
def mill_labels(order: LabelOrder, context: TaskContext) -> Labels:
    """Draw a label for every sack of an order and bind them into one PDF."""
    font = fitting_font(order.customer)
    pages = []
    for sack in range(1, order.sacks + 1):
        # A handler that does not look is killed a second after the client's cancel, and cannot tidy up.
        if context.cancelled:
            raise PressStoppedError
        page = context.scratch / f"{sack}.png"
        draw(page, order, sack, font)
        pages.append(page)
        context.progress(sack / order.sacks, f"label {sack} of {order.sacks}")
    pdf = bind(pages, context.scratch / "labels.pdf")
    context.log.info("labels_bound", order=order.number, labels=len(pages), bytes=len(pdf))
    return Labels(labels=len(pages), bytes=len(pdf), pdf=base64.b64encode(pdf).decode())


def fitting_font(text: str) -> "FreeTypeFont":
    """Return the largest font in which the text fits on a label."""
    from PIL import ImageFont  # in the function: a worker that prints no labels does not load it

    for size in FONT_SIZES:
        font = ImageFont.load_default(size)
        assert isinstance(font, ImageFont.FreeTypeFont), "the wheels of Pillow bring FreeType"
        if font.getlength(text) <= WIDTH - 2 * MARGIN:
            return font
    raise PermanentError("customer_too_long", f"The customer's name of {len(text)} characters does not fit on a label.")


def draw(page: Path, order: LabelOrder, sack: int, font: "FreeTypeFont") -> None:
    """Draw the label of one sack."""
    from PIL import Image, ImageDraw, ImageFont

    image = Image.new("L", (WIDTH, HEIGHT), "white")
    canvas = ImageDraw.Draw(image)
    canvas.rectangle((8, 8, WIDTH - 9, HEIGHT - 9), outline="black", width=3)
    canvas.text((MARGIN, HEIGHT // 2), order.customer, fill="black", font=font, anchor="lm")
    small = ImageFont.load_default(FONT_SIZES[-1])
    canvas.text((MARGIN, MARGIN), f"Order {order.number}", fill="black", font=small)
    canvas.text((WIDTH - MARGIN, HEIGHT - MARGIN), f"{sack} / {order.sacks}", fill="black", font=small, anchor="rd")
    image.save(page)


def bind(pages: list[Path], target: Path) -> bytes:
    """Write the pages into one PDF and return it."""
    first, *others = map(read, pages)
    first.save(target, "PDF", save_all=True, append_images=others, resolution=DOTS_PER_INCH)
    return target.read_bytes()


def read(page: Path) -> "Image":
    """Return a page with its file closed: an attempt may not have as many files open as there are labels."""
    from PIL import Image

    with Image.open(page) as image:
        return image.copy()
