"""What all image types have in common: the image files that come in and go out, and what lies between.

Taken in are JPEG, PNG, WebP, AVIF and GIF; of animations the first frame. The rotation in EXIF data is applied, colours
are converted to sRGB where the image carries a profile, and all metadata (EXIF with its places, profiles, comments) are
left out of the result, with whatever else the file may hold: it is written anew from the pixels. Decoders are an attack
surface: only those of the formats above are ever reached, after `image_files.py` has looked at the headers.
"""

import base64
import contextlib
import io
import struct
import warnings
from enum import StrEnum
from typing import TYPE_CHECKING

from pydantic import Field

from execution_service.handlers.image_files import Size, check_frames, check_headers, check_size, recognise
from execution_service.handlers.schema import HandlerModel
from headrace.tasks import ErrorKind, PermanentError, TaskContext

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer
    from PIL import Image, ImageFile

IMAGE_BASE64_MAX = 8 * 1024 * 1024
# In base64 this stays below the 8 MiB that a result may have.
OUTPUT_BYTES_MAX = 6_000_000

EXAMPLE_IMAGE = (
    "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAECAIAAAA8r+mnAAAAIElEQVR4nGP8//+/aPRCBgzA"
    "KBK1AFOUgYGBCasoPgkA18cFI3x3gg4AAAAASUVORK5CYII="
)
_BASE64 = r"^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$"


class OutputFormat(StrEnum):
    """Formats of results."""

    JPEG = "JPEG"
    PNG = "PNG"
    WEBP = "WEBP"
    AVIF = "AVIF"


class ImageData(HandlerModel):
    image: str = Field(
        min_length=4,
        max_length=IMAGE_BASE64_MAX,
        pattern=_BASE64,
        description="The image file in base64: JPEG, PNG, WebP, AVIF or GIF (first frame), up to 50 megapixels.",
        examples=[EXAMPLE_IMAGE],
    )
    format: OutputFormat | None = Field(
        default=None,
        strict=False,
        description="Format of the result, which may have 50 megapixels as JPEG or PNG and 25 as WebP or AVIF; without "
        "it, that of the source, PNG for a GIF.",
        examples=["PNG"],
    )
    quality: int | None = Field(
        default=None,
        ge=1,
        le=100,
        description="Quality of a JPEG (85 if it is not given), WebP (82) or AVIF (70); a PNG is always exact.",
        examples=[85],
    )


class ImageResult(HandlerModel):
    image: str = Field(description="The new image file in base64.")
    width: int = Field(ge=1, description="Its width in pixels.", examples=[4])
    height: int = Field(ge=1, description="Its height in pixels.", examples=[2])
    format: OutputFormat = Field(description="Its format.", examples=["PNG"])
    bytes: int = Field(ge=1, description="Size of the image file.", examples=[85])


IMAGE_ERRORS = (
    ErrorKind("invalid_image", retry=False, description="The data are no image, or its file is broken or cut off."),
    ErrorKind("unsupported_format", retry=False, description="The image is of a format that is not taken in."),
    ErrorKind(
        "unsafe_image",
        retry=False,
        description="The image asks for more than it should: pixels, frames, scans, or text that swells up.",
    ),
    ErrorKind("cost_too_high", retry=False, description="The work asked for is too much; the message has the figures."),
    ErrorKind("result_too_large", retry=False, description="The new file, or a side of it, is larger than can be."),
)


class ImageStoppedError(Exception):
    """The attempt was cancelled."""


def report(context: TaskContext, fraction: float, message: str) -> None:
    """Tell how far the work is. Raises ImageStoppedError when there is no more use in it."""
    if context.cancelled:
        raise ImageStoppedError("the work on the image was cancelled")
    context.progress(fraction, message)


def read_image(data: ImageData, *, at_least: Size | None = None) -> tuple["Image.Image", OutputFormat]:
    """Return the image upright, in sRGB, as L, RGB or RGBA; and the format that its result is to have.

    A JPEG that is much larger than `at_least` may come at a fraction of its size. PermanentError `invalid_image`,
    `unsupported_format` or `unsafe_image`.
    """
    content = base64.b64decode(data.image)
    source_format = recognise(content)
    check_headers(content, source_format)
    with warnings.catch_warnings():
        # Decoders warn of what is odd in a file. What matters of it is an error; the rest is the client's.
        warnings.simplefilter("ignore")
        image = _srgb(_decode(content, source_format, at_least))
    return image, data.format or (OutputFormat.PNG if source_format == "GIF" else OutputFormat(source_format))


def check_result(size: Size, target_format: OutputFormat) -> None:
    """Refuse before the work what could not be encoded after it: `cost_too_high` or `result_too_large`."""
    width, height = size
    side_max, pixels_max = _LARGEST[target_format]
    if width * height > pixels_max:
        raise PermanentError(
            "cost_too_high",
            f"The result has {width} × {height} = {width * height:,} pixels; {target_format} may have {pixels_max:,}.",
        )
    if max(size) > side_max:
        raise PermanentError(
            "result_too_large",
            f"The result has a side of {max(size):,} pixels; {target_format} has at most {side_max:,}.",
        )


# The longest side that decoders take, and as many pixels as are encoded in half a minute and a GiB.
_LARGEST = {
    OutputFormat.JPEG: (65_500, 50_000_000),
    OutputFormat.PNG: (2**31 - 1, 50_000_000),
    OutputFormat.WEBP: (16_383, 25_000_000),
    OutputFormat.AVIF: (32_768, 25_000_000),
}


def image_result(image: "Image.Image", target_format: OutputFormat, quality: int | None) -> ImageResult:
    """Return the image file, without any metadata. PermanentError `result_too_large`."""
    if target_format is OutputFormat.JPEG and image.mode == "RGBA":
        image = _on_white(image)
    image.info = {}
    encoded = _BoundedFile()
    image.save(encoded, target_format, **_options(target_format, quality))
    return ImageResult(
        image=base64.b64encode(encoded.getbuffer()).decode("ascii"),
        width=image.width,
        height=image.height,
        format=target_format,
        bytes=encoded.tell(),
    )


class _BoundedFile(io.BytesIO):
    """Ends the work of an encoder as soon as its file is too large."""

    def write(self, part: "ReadableBuffer", /) -> int:
        written = super().write(part)
        if self.tell() > OUTPUT_BYTES_MAX:
            raise PermanentError("result_too_large", f"The new image file has more than {OUTPUT_BYTES_MAX:,} bytes.")
        return written


_QUALITY = {OutputFormat.JPEG: 85, OutputFormat.WEBP: 82, OutputFormat.AVIF: 70}


def _options(target_format: OutputFormat, quality: int | None) -> dict[str, int]:
    if target_format is OutputFormat.PNG:
        return {}
    return {"quality": quality if quality is not None else _QUALITY[target_format]}


def _decode(content: bytes, source_format: str, at_least: Size | None) -> "Image.Image":
    """Return the first frame, upright, as L, RGB, RGBA or CMYK, which only a profile turns into good colours."""
    try:
        image = _open(content, source_format)
        check_size(image.size)
        check_frames(getattr(image, "n_frames", 1))
        if at_least is not None:
            # Of no effect but on JPEG. Either side may become the width, since the rotation is applied later. At twice
            # the size, the quick reduction in steps of two is seen neither in the proportions nor in the picture.
            image.draft(None, (2 * max(at_least), 2 * max(at_least)))
        image.load()
        _turn_upright(image)
        return _plain_mode(image)
    except _DECODER_ERRORS as error:
        reason = str(error) or "it is broken"
        if "MAX_TEXT_" in reason:  # the names of the limits up to which Pillow inflates texts and profiles
            raise PermanentError("unsafe_image", "A text or a profile in the image swells up too far.") from error
        raise PermanentError("invalid_image", f"The image cannot be decoded: {reason}.") from error


# What decoders raise for broken files. MemoryError is not among them: another attempt may have the memory.
_DECODER_ERRORS = (
    *(OSError, EOFError, SyntaxError, ValueError, TypeError, LookupError, ArithmeticError, RuntimeError),
    *(AssertionError, struct.error),
)


def _open(content: bytes, source_format: str) -> "ImageFile.ImageFile":
    # Loaded by the first image, not by every worker. The class is called itself, as Image.open() would hand a JPEG that
    # has others attached on to the decoder of MPO.
    from PIL import AvifImagePlugin, GifImagePlugin, JpegImagePlugin, PngImagePlugin, WebPImagePlugin

    # For reading and for writing: a worker is one of many on its machine, and every thread takes memory of its own.
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1
    decoders: dict[str, type[ImageFile.ImageFile]] = {
        "JPEG": JpegImagePlugin.JpegImageFile,
        "PNG": PngImagePlugin.PngImageFile,
        "WEBP": WebPImagePlugin.WebPImageFile,
        "AVIF": AvifImagePlugin.AvifImageFile,
        "GIF": GifImagePlugin.GifImageFile,
    }
    return decoders[source_format](io.BytesIO(content))


def _turn_upright(image: "ImageFile.ImageFile") -> None:
    from PIL import ImageOps

    # Broken EXIF data say nothing of a rotation; the pixels are good.
    with contextlib.suppress(*_DECODER_ERRORS):
        ImageOps.exif_transpose(image, in_place=True)


def _plain_mode(image: "Image.Image") -> "Image.Image":
    """Return a copy, without its decoder: that of WebP holds twice the pixels as long as its image lives."""
    if image.mode.startswith("I"):
        # 16 bits of grey: the upper eight remain.
        return image.point(lambda value: value * (1 / 256)).convert("L")
    if image.has_transparency_data:
        return image.convert("RGBA")
    return image.convert({"1": "L", "P": "RGB"}.get(image.mode, image.mode))


def _srgb(image: "Image.Image") -> "Image.Image":
    from PIL import ImageCms

    if profile := image.info.get("icc_profile"):
        # With a broken profile, or one of another kind of image, the plain values are the best there is.
        with contextlib.suppress(ImageCms.PyCMSError, *_DECODER_ERRORS):
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            target_mode = "RGBA" if image.mode == "RGBA" else "RGB"
            srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
            return ImageCms.ImageCmsTransform(source, srgb, image.mode, target_mode).apply(image)
    return image.convert("RGB") if image.mode == "CMYK" else image


def _on_white(image: "Image.Image") -> "Image.Image":
    from PIL import Image

    background = Image.new("RGB", image.size, "white")
    background.paste(image, mask=image.getchannel("A"))
    return background
