"""Task type `apply_filter`: passes an image through a chain of filters, in the order in which they are named.

Filters act on colours alone; transparency stays as it is. Where one needs pixels beyond the edge, those at the edge are
repeated. Values that leave 0..255 are cut off there. The filters, v being a value of 8 bits:

- grayscale, sepia, invert, brightness (v·factor) and contrast (127.5 + (v - 127.5)·factor): as the functions of those
  names in W3C, "Filter Effects Module Level 1" (2018), with amount 1. The coefficients of sepia are from there, and so
  are those of grayscale, which are the luma of ITU-R BT.709.
- blur: a Gaussian of standard deviation `radius`, by three extended box filters (P. Gwosdek, S. Grewenig, A. Bruhn and
  J. Weickert, "Theoretical Foundations of Gaussian Convolution by Extended Box Filtering", SSVM 2011). The time that
  takes does not depend on the radius.
- sharpen: unsharp masking; `percent` of the difference to the image blurred by `radius` is added where it is above
  `threshold`.
- edges: the Laplacian of eight neighbours (R. C. Gonzalez and R. E. Woods, "Digital Image Processing", 2018, section
  3.6): lines where the image changes, black elsewhere.
- emboss: 128 + the difference to the neighbour at the upper left: a relief lit from there.
- posterize: the upper `bits` bits of v, spread evenly over 0..255.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

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
from execution_service.handlers.schema import HandlerModel
from headrace.tasks import Limits, PermanentError, TaskContext, task

if TYPE_CHECKING:
    from PIL import Image, ImageFilter

FILTERS_MAX = 16
RADIUS_MAX = 250
FACTOR_MAX = 10
# Filters times pixels; the slowest filter passes 20 million pixels in a second.
FILTERED_PIXELS_MAX = 400_000_000

Radius = Annotated[float, Field(gt=0, le=RADIUS_MAX, allow_inf_nan=False)]
Factor = Annotated[float, Field(ge=0, le=FACTOR_MAX, allow_inf_nan=False)]


class Blur(HandlerModel):
    name: Literal["blur"] = Field(description="Makes the image soft.", examples=["blur"])
    radius: Radius = Field(default=2.0, description="Standard deviation of the blur in pixels.", examples=[2.0])

    def apply(self, image: "Image.Image") -> "Image.Image":
        from PIL import ImageFilter

        return image.filter(ImageFilter.GaussianBlur(self.radius))


class Sharpen(HandlerModel):
    name: Literal["sharpen"] = Field(description="Makes edges stand out.", examples=["sharpen"])
    radius: Radius = Field(default=2.0, description="How far around an edge, in pixels.", examples=[2.0])
    percent: int = Field(default=150, ge=1, le=1000, description="How strongly.", examples=[150])
    threshold: int = Field(
        default=3, ge=0, le=255, description="Differences up to this are left alone, such as noise.", examples=[3]
    )

    def apply(self, image: "Image.Image") -> "Image.Image":
        from PIL import ImageFilter

        return image.filter(ImageFilter.UnsharpMask(self.radius, self.percent, self.threshold))


class Edges(HandlerModel):
    name: Literal["edges"] = Field(description="Leaves the edges, as bright lines on black.", examples=["edges"])

    def apply(self, image: "Image.Image") -> "Image.Image":
        from PIL import ImageFilter

        return _convolved(image, ImageFilter.Kernel((3, 3), (-1, -1, -1, -1, 8, -1, -1, -1, -1), scale=1))


class Emboss(HandlerModel):
    name: Literal["emboss"] = Field(description="Makes a grey relief, lit from the upper left.", examples=["emboss"])

    def apply(self, image: "Image.Image") -> "Image.Image":
        from PIL import ImageFilter

        # Pillow counts the rows of a kernel from below.
        return _convolved(image, ImageFilter.Kernel((3, 3), (0, 0, 0, 0, 1, 0, -1, 0, 0), scale=1, offset=128))


class Grayscale(HandlerModel):
    name: Literal["grayscale"] = Field(description="Leaves the brightness of the colours.", examples=["grayscale"])

    def apply(self, image: "Image.Image") -> "Image.Image":
        return image.convert("L", (0.2126, 0.7152, 0.0722, 0)) if image.mode == "RGB" else image


class Sepia(HandlerModel):
    name: Literal["sepia"] = Field(description="Gives the brown of old photographs.", examples=["sepia"])

    def apply(self, image: "Image.Image") -> "Image.Image":
        red, green, blue = (0.393, 0.769, 0.189, 0), (0.349, 0.686, 0.168, 0), (0.272, 0.534, 0.131, 0)
        return image.convert("RGB").convert("RGB", red + green + blue)


class Invert(HandlerModel):
    name: Literal["invert"] = Field(description="Turns every colour into its negative.", examples=["invert"])

    def apply(self, image: "Image.Image") -> "Image.Image":
        return _each_value(image, lambda value: 255 - value)


class Contrast(HandlerModel):
    name: Literal["contrast"] = Field(
        description="Moves colours away from the middle grey, or towards it.", examples=["contrast"]
    )
    factor: Factor = Field(description="0 leaves a grey area, 1 the image as it is, 2 doubles.", examples=[1.4])

    def apply(self, image: "Image.Image") -> "Image.Image":
        return _each_value(image, lambda value: 127.5 + (value - 127.5) * self.factor)


class Brightness(HandlerModel):
    name: Literal["brightness"] = Field(description="Makes the image brighter or darker.", examples=["brightness"])
    factor: Factor = Field(description="0 leaves black, 1 the image as it is, 2 doubles.", examples=[1.2])

    def apply(self, image: "Image.Image") -> "Image.Image":
        return _each_value(image, lambda value: value * self.factor)


class Posterize(HandlerModel):
    name: Literal["posterize"] = Field(description="Leaves few colours.", examples=["posterize"])
    bits: int = Field(ge=1, le=8, description="Bits that are left of the eight of each channel.", examples=[3])

    def apply(self, image: "Image.Image") -> "Image.Image":
        return _each_value(image, lambda value: (value >> (8 - self.bits)) * 255 / (2**self.bits - 1))


Filter = Annotated[
    Blur | Sharpen | Edges | Emboss | Grayscale | Sepia | Invert | Contrast | Brightness | Posterize,
    Field(discriminator="name"),
]


class ApplyFilterData(ImageData):
    filters: list[Filter] = Field(
        min_length=1,
        max_length=FILTERS_MAX,
        description="The filters, in the order in which they are applied; each with its name and its parameters.",
        examples=[[{"name": "blur", "radius": 2.0}, {"name": "sepia"}]],
    )


_EXAMPLES = (
    {"image": EXAMPLE_IMAGE, "filters": [{"name": "grayscale"}, {"name": "contrast", "factor": 1.4}]},
    {"image": EXAMPLE_IMAGE, "filters": [{"name": "blur", "radius": 2.0}, {"name": "sepia"}], "format": "WEBP"},
)


@task("apply_filter", timeout=120, examples=_EXAMPLES, limits=Limits(memory_mib=1536), errors=IMAGE_ERRORS)
def apply_filter(data: ApplyFilterData, context: TaskContext) -> ImageResult:
    """Pass an image through a chain of filters; the result carries no metadata."""
    image, target_format = read_image(data)
    check_result(image.size, target_format)
    check_cost(image.width * image.height, len(data.filters))
    image, transparency = split(image)
    steps = len(data.filters) + 2
    report(context, 1 / steps, f"read {image.width} × {image.height} pixels")
    for done, chosen in enumerate(data.filters, 2):
        image = chosen.apply(image)
        report(context, done / steps, f"applied {chosen.name}")
    return image_result(joined(image, transparency), target_format, data.quality)


def check_cost(pixels: int, filters: int) -> None:
    """Refuse chains that would take too long: PermanentError `cost_too_high`."""
    if pixels * filters > FILTERED_PIXELS_MAX:
        raise PermanentError(
            "cost_too_high",
            f"{filters} filters times {pixels:,} pixels are {filters * pixels:,}, more than {FILTERED_PIXELS_MAX:,}.",
        )


def split(image: "Image.Image") -> tuple["Image.Image", "Image.Image | None"]:
    """Return the colours of an image, and its transparency if it has any."""
    if image.mode != "RGBA":
        return image, None
    return image.convert("RGB"), image.getchannel("A")


def joined(image: "Image.Image", transparency: "Image.Image | None") -> "Image.Image":
    """Return the image with the transparency."""
    if transparency is None:
        return image
    image = image.convert("RGB")
    image.putalpha(transparency)
    return image


def _each_value(image: "Image.Image", function: Callable[[int], float]) -> "Image.Image":
    table = [min(255, max(0, int(function(value) + 0.5))) for value in range(256)]
    return image.point(table * len(image.getbands()))


def _convolved(image: "Image.Image", kernel: "ImageFilter.Kernel") -> "Image.Image":
    """Return the image under a kernel of 3 × 3. Pillow itself would leave the pixels at the edge as they are."""
    from PIL import Image

    width, height = image.size
    wider = Image.new(image.mode, (width + 2, height + 2))
    wider.paste(image, (1, 1))
    wider.paste(image.crop((0, 0, width, 1)), (1, 0))
    wider.paste(image.crop((0, height - 1, width, height)), (1, height + 1))
    wider.paste(wider.crop((1, 0, 2, height + 2)), (0, 0))
    wider.paste(wider.crop((width, 0, width + 1, height + 2)), (width + 1, 0))
    wider = wider.filter(kernel)
    return wider.crop((1, 1, width + 1, height + 1))
