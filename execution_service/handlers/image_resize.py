"""Task type `image_resize`: resizes an image and says what came out.

Pixels are resampled with the Lanczos filter of three lobes (C. E. Duchon, "Lanczos Filtering in One and Two
Dimensions", Journal of Applied Meteorology 18, 1979), as wide as the reduction asks for. What images are taken in, and
what becomes of their rotation, colours and metadata, stands in `images.py`.
"""

from enum import StrEnum
from typing import TYPE_CHECKING

from pydantic import Field

from execution_service.handlers.image_files import Size
from execution_service.handlers.images import (
    EXAMPLE_IMAGE,
    IMAGE_ERRORS,
    ImageData,
    ImageResult,
    check_result,
    image_result,
    read_image,
    report,
)
from headrace.tasks import Limits, TaskContext, task

if TYPE_CHECKING:
    from PIL import Image

SIDE_MAX = 10_000


class Mode(StrEnum):
    """How the image meets the size asked for."""

    FIT = "fit"
    FILL = "fill"
    EXACT = "exact"


class ImageResizeData(ImageData):
    width: int = Field(ge=1, le=SIDE_MAX, description="Width in pixels.", examples=[4])
    height: int = Field(ge=1, le=SIDE_MAX, description="Height in pixels.", examples=[4])
    mode: Mode = Field(
        default=Mode.FIT,
        strict=False,
        description="`fit`: as large as fits into the size, in its proportions; `fill`: cover the size and cut off "
        "what stands over, evenly on both sides; `exact`: the size as it is, whatever the proportions.",
        examples=["fit"],
    )


_EXAMPLES = (
    {"image": EXAMPLE_IMAGE, "width": 4, "height": 4},
    {"image": EXAMPLE_IMAGE, "width": 6, "height": 6, "mode": "fill", "format": "JPEG", "quality": 90},
)


@task(
    "image_resize",
    timeout=120,
    examples=_EXAMPLES,
    limits=Limits(memory_mib=1536),
    errors=IMAGE_ERRORS,
)
def image_resize(data: ImageResizeData, context: TaskContext) -> ImageResult:
    """Resize an image; the result carries no metadata."""
    image, target_format = read_image(data, at_least=(data.width, data.height))
    box = fill_box(image.size, (data.width, data.height)) if data.mode is Mode.FILL else None
    size = fit_size(image.size, (data.width, data.height)) if data.mode is Mode.FIT else (data.width, data.height)
    check_result(size, target_format)
    report(context, 0.4, f"read {image.width} × {image.height} pixels")
    image = resize(image, size, box)
    report(context, 0.6, f"resized to {image.width} × {image.height}")
    return image_result(image, target_format, data.quality)


def resize(image: "Image.Image", size: Size, box: tuple[float, float, float, float] | None = None) -> "Image.Image":
    """Return the image, or the part of it in the box, in its new size."""
    from PIL import Image

    return image.resize(size, Image.Resampling.LANCZOS, box=box)


def fit_size(source: Size, target: Size) -> Size:
    """Return the largest size in the source's proportions that fits; no side is below one pixel."""
    (source_width, source_height), (width, height) = source, target
    if source_width * height >= source_height * width:
        return width, max(1, round(source_height * width / source_width))
    return max(1, round(source_width * height / source_height)), height


def fill_box(source: Size, target: Size) -> tuple[float, float, float, float]:
    """Return the largest part of the source, in its middle, that has the proportions of the size asked for."""
    (source_width, source_height), (width, height) = source, target
    if source_width * height >= source_height * width:
        part = source_height * width / height
        left = (source_width - part) / 2
        return left, 0.0, left + part, float(source_height)
    part = source_width * height / width
    top = (source_height - part) / 2
    return 0.0, top, float(source_width), top + part
