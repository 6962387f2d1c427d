"""Images of all accepted kinds come out as asked for; everything else is refused with its reason."""

import base64
import io
import struct
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageDraw, PngImagePlugin
from pydantic import ValidationError

from execution_service.handlers.image_resize import (
    ImageResizeData,
    ImageResizeResult,
    Mode,
    OutputFormat,
    fill_box,
    fit_size,
    image_resize,
)
from headrace.tasks import PermanentError


def _file(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _halves(mode: str = "RGB", size: tuple[int, int] = (40, 20)) -> Image.Image:
    """Left half red, right half blue."""
    image = Image.new("RGB", size, "red")
    ImageDraw.Draw(image).rectangle((size[0] // 2, 0, size[0], size[1]), fill="blue")
    return image.convert(mode)


def _run(
    content: bytes, width: int = 20, height: int = 20, mode: Mode = Mode.FIT, kind: OutputFormat | None = None
) -> tuple[ImageResizeResult, Image.Image]:
    encoded = base64.b64encode(content).decode()
    result = image_resize(ImageResizeData(image=encoded, width=width, height=height, mode=mode, format=kind))
    image = Image.open(io.BytesIO(base64.b64decode(result.image)))
    image.load()
    assert (result.width, result.height) == image.size
    assert result.format == image.format
    assert result.bytes == len(base64.b64decode(result.image))
    return result, image


def _refused(content: bytes | str, width: int = 20, height: int = 20) -> str:
    encoded = content if isinstance(content, str) else base64.b64encode(content).decode()
    with pytest.raises(PermanentError) as refused:
        image_resize(ImageResizeData(image=encoded, width=width, height=height))
    return refused.value.code


def _pixel(image: Image.Image, x: int, y: int) -> tuple[int, ...]:
    value = image.convert("RGB").getpixel((x, y))
    assert isinstance(value, tuple)
    return value


def _png_header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF", "GIF"])
def test_every_accepted_format_comes_out_as_itself(kind: str) -> None:
    result, image = _run(_file(_halves(), kind))
    assert (result.format, image.size) == (kind, (20, 10))
    assert _pixel(image, 3, 5)[0] > 200
    assert _pixel(image, 16, 5)[2] > 200


@pytest.mark.parametrize("source", ["JPEG", "PNG", "WEBP", "AVIF", "GIF"])
@pytest.mark.parametrize("target", list(OutputFormat))
def test_every_format_can_be_turned_into_every_other(source: str, target: OutputFormat) -> None:
    result, _ = _run(_file(_halves(), source), kind=target)
    assert result.format == target.value


@pytest.mark.parametrize(("mode", "size"), [(Mode.FIT, (30, 15)), (Mode.FILL, (30, 30)), (Mode.EXACT, (30, 30))])
def test_each_mode_gives_the_size_it_promises(mode: Mode, size: tuple[int, int]) -> None:
    _, image = _run(_file(_halves(), "PNG"), 30, 30, mode)
    assert image.size == size


def test_filling_keeps_the_middle() -> None:
    stripes = Image.new("RGB", (90, 30), "red")
    ImageDraw.Draw(stripes).rectangle((30, 0, 59, 29), fill="lime")
    _, image = _run(_file(stripes, "PNG"), 30, 30, Mode.FILL)
    assert [_pixel(image, x, 15) for x in (1, 15, 28)] == [(0, 255, 0)] * 3


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16", "CMYK", "YCbCr"])
def test_every_colour_mode_gives_a_sensible_image(mode: str) -> None:
    if mode == "I;16":
        _, image = _run(_file(Image.new("I", (40, 20), 200 * 256).convert(mode), "PNG"))
        assert _pixel(image, 5, 5) == (200, 200, 200)
        return
    kind = "JPEG" if mode in ("CMYK", "YCbCr") else "PNG"
    _, image = _run(_file(_halves(mode), kind))
    assert image.size == (20, 10)
    if mode in ("RGB", "RGBA", "CMYK", "YCbCr", "P"):
        assert _pixel(image, 3, 5)[0] > 200


def test_transparency_is_kept_where_the_format_has_it_and_white_where_not() -> None:
    glass = _file(Image.new("RGBA", (20, 20), (255, 0, 0, 0)), "PNG")
    _, kept = _run(glass)
    assert kept.getpixel((5, 5))[3] == 0  # type: ignore[index]
    _, flat = _run(glass, kind=OutputFormat.JPEG)
    assert min(_pixel(flat, 5, 5)) > 250


def test_the_rotation_of_a_camera_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90° clockwise
    _, image = _run(_file(_halves(), "JPEG", exif=exif), 20, 40)
    assert image.size == (20, 40)
    assert _pixel(image, 10, 3)[0] > 200
    assert _pixel(image, 10, 36)[2] > 200


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF"])
@pytest.mark.parametrize("target", list(OutputFormat))
def test_no_metadata_are_left(kind: str, target: OutputFormat) -> None:
    exif = Image.Exif()
    exif[0x010E] = "a secret place"
    exif[0x8825] = {1: "N", 2: (52.0, 30.0, 0.0)}
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    options: dict[str, Any] = {"exif": exif, "icc_profile": profile}
    if kind == "PNG":
        options["pnginfo"] = PngImagePlugin.PngInfo()
        options["pnginfo"].add_text("Comment", "a secret place")
    result, image = _run(_file(_halves(), kind, **options), kind=target)
    assert not image.getexif()
    assert not {"icc_profile", "exif", "xmp", "Comment", "comment"} & set(image.info)
    assert b"secret" not in base64.b64decode(result.image)


def test_broken_profiles_and_broken_exif_do_not_matter() -> None:
    _, image = _run(_file(_halves(), "JPEG", icc_profile=b"nonsense", exif=b"Exif\0\0II*\0\xff\xff\xff\xff"))
    assert image.size == (20, 10)


def test_of_an_animation_the_first_frame_is_taken() -> None:
    frames = [Image.new("RGB", (10, 10), colour) for colour in ("red", "lime", "blue")]
    for kind in ("GIF", "WEBP", "PNG"):
        content = _file(frames[0], kind, save_all=True, append_images=frames[1:], duration=50)
        _, image = _run(content, kind=OutputFormat.PNG)
        assert _pixel(image, 5, 5)[0] > 200
        assert getattr(image, "n_frames", 1) == 1


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1), (3, 7)])
@pytest.mark.parametrize("mode", list(Mode))
def test_extreme_proportions_work(size: tuple[int, int], mode: Mode) -> None:
    _, image = _run(_file(Image.new("RGB", size, "red"), "PNG"), 50, 20, mode)
    assert _pixel(image, 0, 0) == (255, 0, 0)


@pytest.mark.parametrize(
    "content", ["!", "AAA", "äöü", "aGVsbG8gd29ybGQ=\n", base64.b64encode(b"hello world").decode(), "AAAA"]
)
def test_what_is_no_image_is_told_so(content: str) -> None:
    assert _refused(content) == "invalid_image"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF", "GIF"])
def test_truncated_files_give_no_half_images(kind: str) -> None:
    content = _file(Image.effect_noise((200, 200), 90).convert("RGB"), kind)
    for length in (12, 40, len(content) // 2):
        assert _refused(content[:length]) == "invalid_image"


def test_a_png_with_a_wrong_checksum_is_invalid() -> None:
    content = bytearray(_file(_halves(), "PNG"))
    content[20] ^= 1
    assert _refused(bytes(content)) == "invalid_image"


@pytest.mark.parametrize("size", [(50_000, 50_000), (10_000, 5_001), (2**31 - 1, 1), (65_535, 65_535)])
def test_too_many_pixels_are_refused_from_the_header(size: tuple[int, int]) -> None:
    assert _refused(_png_header(*size)) == "unsafe_image"


def test_zero_sizes_are_invalid() -> None:
    assert _refused(_png_header(0, 10)) == "invalid_image"


def test_a_text_bomb_is_refused() -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("bomb", "x" * 3_000_000, zip=True)
    assert _refused(_file(_halves(), "PNG", pnginfo=info)) == "unsafe_image"


@pytest.mark.parametrize("kind", ["TIFF", "BMP", "EPS", "PDF", "ICO", "PPM", "JPEG2000", "DDS"])
def test_other_formats_are_named_and_refused(kind: str) -> None:
    assert _refused(_file(_halves(), kind)) == "unsupported_format"


@pytest.mark.parametrize("start", [b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"8BPS\0\1", b"\xd7\xcd\xc6\x9a\0\0"])
def test_other_formats_are_known_by_their_first_bytes(start: bytes) -> None:
    assert _refused(start + b"\0" * 100) == "unsupported_format"


def test_a_size_that_is_too_large_in_all_is_refused() -> None:
    assert _refused(_file(_halves(), "PNG"), 10_000, 10_000) == "unsafe_image"


def test_a_result_that_could_not_be_stored_is_refused() -> None:
    noise = _file(Image.effect_noise((1500, 1500), 90).convert("RGB"), "JPEG")
    with pytest.raises(PermanentError) as refused:
        _run(noise, 4500, 4500, Mode.EXACT, OutputFormat.PNG)
    assert refused.value.code == "result_too_large"


@pytest.mark.parametrize(
    "change",
    [
        {"width": 0},
        {"height": -1},
        {"width": 10**6},
        {"width": 1.5},
        {"width": "10"},
        {"width": True},
        {"mode": "stretch"},
        {"format": "GIF"},
        {"format": "jpeg"},
        {"image": ""},
        {"image": None},
        {"angle": 3},
    ],
)
def test_options_out_of_range_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ImageResizeData.model_validate({"image": "AAAA", "width": 1, "height": 1, **change})


_SIDE = st.integers(1, 10_000)


@given(_SIDE, _SIDE, _SIDE, _SIDE)
def test_fitting_keeps_proportions_within_the_size(source_w: int, source_h: int, width: int, height: int) -> None:
    w, h = fit_size(source_w, source_h, width, height)
    assert 1 <= w <= width
    assert 1 <= h <= height
    assert w == width or h == height
    # Neither side is off by more than rounding to whole pixels can explain.
    assert abs(w * source_h - h * source_w) <= max(source_w, source_h)


@given(_SIDE, _SIDE, _SIDE, _SIDE)
def test_filling_cuts_within_the_source(source_w: int, source_h: int, width: int, height: int) -> None:
    left, top, right, bottom = fill_box(source_w, source_h, width, height)
    assert 0 <= left < right <= source_w + 1e-9
    assert 0 <= top < bottom <= source_h + 1e-9
    assert (right - left) * height == pytest.approx((bottom - top) * width)
