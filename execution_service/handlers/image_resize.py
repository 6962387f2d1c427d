"""Task type `image_resize`: resizes an image and says what came out.

Taken in are JPEG, PNG, WebP, AVIF and GIF; of animations the first frame. The rotation in EXIF data is applied, colours
are converted to sRGB where the image carries a profile, and all metadata (EXIF with its places, profiles, comments) are
left out of the result. Decoders are an attack surface: only those of the formats above are ever reached, and the size
is taken from the header and checked before a pixel is decoded.
"""

import base64
import binascii
import contextlib
import io
import warnings
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from pydantic import Field

from execution_service.handlers.schema import HandlerModel
from headrace.tasks import PermanentError, task

if TYPE_CHECKING:
    from PIL import Image

IMAGE_BASE64_MAX = 8 * 1024 * 1024
INPUT_PIXELS_MAX = 50_000_000
OUTPUT_PIXELS_MAX = 25_000_000
SIDE_MAX = 10_000
# In base64 this stays below the 8 MiB that a result may have.
OUTPUT_BYTES_MAX = 6_000_000

_EXAMPLE = (
    "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAECAIAAAA8r+mnAAAAIElEQVR4nGP8//+/aPRCBgzA"
    "KBK1AFOUgYGBCasoPgkA18cFI3x3gg4AAAAASUVORK5CYII="
)


class Mode(StrEnum):
    """How the image meets the size asked for."""

    FIT = "fit"
    FILL = "fill"
    EXACT = "exact"


class OutputFormat(StrEnum):
    """Formats that can be asked for."""

    JPEG = "JPEG"
    PNG = "PNG"
    WEBP = "WEBP"
    AVIF = "AVIF"


class ImageResizeData(HandlerModel):
    image: str = Field(
        min_length=1,
        max_length=IMAGE_BASE64_MAX,
        description="The image file in base64: JPEG, PNG, WebP, AVIF or GIF (first frame), up to 50 megapixels.",
        examples=[_EXAMPLE],
    )
    width: int = Field(ge=1, le=SIDE_MAX, description="Width in pixels.", examples=[4])
    height: int = Field(ge=1, le=SIDE_MAX, description="Height in pixels.", examples=[4])
    mode: Mode = Field(
        default=Mode.FIT,
        strict=False,
        description="`fit`: as large as fits into the size, in its proportions; `fill`: cover the size and cut off "
        "what stands over, evenly on both sides; `exact`: the size as it is, whatever the proportions.",
        examples=["fit"],
    )
    format: OutputFormat | None = Field(
        default=None,
        strict=False,
        description="Format of the result; without it, that of the source.",
        examples=["PNG"],
    )


class ImageResizeResult(HandlerModel):
    image: str = Field(description="The resized image file in base64.")
    width: int = Field(ge=1, description="Its width in pixels.", examples=[4])
    height: int = Field(ge=1, description="Its height in pixels.", examples=[2])
    format: str = Field(description="Its format: JPEG, PNG, WEBP, AVIF or GIF.", examples=["PNG"])
    bytes: int = Field(ge=1, description="Size of the image file.")


@task("image_resize", timeout=60, examples=[{"image": _EXAMPLE, "width": 4, "height": 4}])
def image_resize(data: ImageResizeData) -> ImageResizeResult:
    """Resize an image; the result carries no metadata."""
    if data.width * data.height > OUTPUT_PIXELS_MAX:
        raise PermanentError("unsafe_image", f"The size asked for has more than {OUTPUT_PIXELS_MAX} pixels.")
    content = decode_base64(data.image)
    source_format = recognise(content)
    with warnings.catch_warnings():
        # Decoders warn of what is odd in a file. What matters of it is an error below; the rest is the client's.
        warnings.simplefilter("ignore")
        image = normalise(open_image(content, source_format, (data.width, data.height)))
    resized = resize(image, data.width, data.height, data.mode)
    target_format = data.format.value if data.format is not None else source_format
    encoded = encode(resized, target_format)
    return ImageResizeResult(
        image=base64.b64encode(encoded).decode("ascii"),
        width=resized.width,
        height=resized.height,
        format=target_format,
        bytes=len(encoded),
    )


def decode_base64(text: str) -> bytes:
    """Return the bytes of strict base64; PermanentError `invalid_image` for anything else."""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise PermanentError("invalid_image", f"The image is not valid base64: {error}.") from error


def recognise(content: bytes) -> str:
    """Return the format by the first bytes of the file, which alone decide which decoder is used.

    PermanentError `unsupported_format` for known formats that are not taken in, `invalid_image` for anything else.
    """
    if content[:3] == b"\xff\xd8\xff":
        return "JPEG"
    if content[:8] == b"\x89PNG\r\n\x1a\n":
        return "PNG"
    if content[:6] in (b"GIF87a", b"GIF89a"):
        return "GIF"
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "WEBP"
    if content[4:12] in (b"ftypavif", b"ftypavis") or (content[4:12] == b"ftypmif1" and b"avif" in content[16:64]):
        return "AVIF"
    for start, name in _OTHER_FORMATS.items():
        if content.startswith(start):
            raise PermanentError("unsupported_format", f"{name} files are not taken in.")
    raise PermanentError("invalid_image", "The data are not an image file of a known format.")


_OTHER_FORMATS = {
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",
    b"%!PS": "PostScript",
    b"\xc5\xd0\xd3\xc6": "PostScript",
    b"%PDF": "PDF",
    b"<svg": "SVG",
    b"<?xml": "SVG",
    b"BM": "BMP",
    b"8BPS": "Photoshop",
    b"\0\0\1\0": "ICO",
    b"\0\0\2\0": "CUR",
    b"\xd7\xcd\xc6\x9a": "WMF",
    b"SIMPLE  =": "FITS",
    b"\0\0\0\x0cjP  ": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000",
    b"\0\0\0\x0cJXL ": "JPEG XL",
    b"\xff\x0a": "JPEG XL",
    b"DDS ": "DDS",
    b"qoif": "QOI",
    b"\x3a\xde\x68\xb1": "DCX",
    b"icns": "ICNS",
    b"P1": "PBM",
    b"P2": "PGM",
    b"P3": "PPM",
    b"P4": "PBM",
    b"P5": "PGM",
    b"P6": "PPM",
    b"PK\3\4": "ZIP",
}


def open_image(content: bytes, source_format: str, size: tuple[int, int]) -> "Image.Image":
    """Return the first frame, decoded; a JPEG possibly at a fraction of its size that is still larger than `size`."""
    from PIL import Image  # loaded by the first image, not by every worker

    try:
        image = Image.open(io.BytesIO(content), formats=(source_format,))
        if image.width * image.height > INPUT_PIXELS_MAX:
            raise PermanentError(
                "unsafe_image",
                f"The image has {image.width} × {image.height} pixels, more than {INPUT_PIXELS_MAX} in all.",
            )
        if image.width < 1 or image.height < 1:
            raise PermanentError("invalid_image", "The image has no pixels.")
        if source_format == "JPEG":
            # Either side may become the width, since the rotation is applied later.
            image.draft(None, (max(size), max(size)))
        image.load()
    except Image.DecompressionBombError as error:
        raise PermanentError("unsafe_image", str(error)) from error
    except _DECODER_ERRORS as error:
        code = "unsafe_image" if "too large" in str(error).lower() else "invalid_image"
        raise PermanentError(code, f"The image cannot be decoded: {error}") from error
    return image


# What decoders raise for broken files. MemoryError is not among them: another attempt may have the memory.
_DECODER_ERRORS = (OSError, SyntaxError, ValueError, TypeError, LookupError, EOFError, ArithmeticError)


def normalise(image: "Image.Image") -> "Image.Image":
    """Return the image upright, in sRGB, as L, RGB, or RGBA where it has transparency."""
    from PIL import ImageOps

    transposed = image
    # Broken EXIF data say nothing of a rotation; the pixels are good.
    with contextlib.suppress(*_DECODER_ERRORS):
        transposed = ImageOps.exif_transpose(image)
    return _plain_mode(_to_srgb(transposed))


def resize(image: "Image.Image", width: int, height: int, mode: Mode) -> "Image.Image":
    """Return the image in its new size."""
    from PIL import Image

    box: tuple[float, float, float, float] | None = None
    size = (width, height)
    if mode is Mode.FIT:
        size = fit_size(image.width, image.height, width, height)
    elif mode is Mode.FILL:
        box = fill_box(image.width, image.height, width, height)
    return image.resize(size, Image.Resampling.LANCZOS, box=box)


def fit_size(source_width: int, source_height: int, width: int, height: int) -> tuple[int, int]:
    """Return the largest size in the source's proportions that fits; no side is below one pixel."""
    if source_width * height >= source_height * width:
        return width, max(1, round(source_height * width / source_width))
    return max(1, round(source_width * height / source_height)), height


def fill_box(source_width: int, source_height: int, width: int, height: int) -> tuple[float, float, float, float]:
    """Return the largest part of the source, in its middle, that has the proportions of the size asked for."""
    if source_width * height >= source_height * width:
        part = source_height * width / height
        left = (source_width - part) / 2
        return left, 0.0, left + part, float(source_height)
    part = source_width * height / width
    top = (source_height - part) / 2
    return 0.0, top, float(source_width), top + part


def encode(image: "Image.Image", target_format: str) -> bytes:
    """Return the image file without any metadata. PermanentError `result_too_large`."""
    if target_format == "JPEG" and image.mode == "RGBA":
        image = _on_white(image)
    image.info = {}
    options: dict[str, dict[str, Any]] = {"JPEG": {"quality": 85}, "WEBP": {"quality": 82}, "AVIF": {"quality": 70}}
    encoded = io.BytesIO()
    image.save(encoded, target_format, **options.get(target_format, {}))
    if encoded.tell() > OUTPUT_BYTES_MAX:
        raise PermanentError(
            "result_too_large", f"The resized image has {encoded.tell()} bytes, more than {OUTPUT_BYTES_MAX}."
        )
    return encoded.getvalue()


def _to_srgb(image: "Image.Image") -> "Image.Image":
    from PIL import ImageCms

    profile = image.info.get("icc_profile")
    if not profile or image.mode not in ("RGB", "RGBA", "CMYK", "L"):
        return image
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        target_mode = "RGBA" if image.mode == "RGBA" else "RGB"
        converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode=target_mode)
    except (ImageCms.PyCMSError, *_DECODER_ERRORS):
        return image  # with a broken profile the plain values are the best there is
    return converted if converted is not None else image


def _plain_mode(image: "Image.Image") -> "Image.Image":
    if image.mode in ("L", "RGB", "RGBA") and "transparency" not in image.info:
        return image
    if image.mode.startswith("I"):
        # 16 bits of grey: the upper eight remain.
        return image.convert("I").point(lambda value: value * (1 / 256)).convert("L")
    if image.mode in ("LA", "La", "PA", "RGBa", "RGBA") or "transparency" in image.info:
        return image.convert("RGBA")
    return image.convert("L" if image.mode in ("1", "F") else "RGB")


def _on_white(image: "Image.Image") -> "Image.Image":
    from PIL import Image

    background = Image.new("RGB", image.size, "white")
    background.paste(image, mask=image.getchannel("A"))
    return background
