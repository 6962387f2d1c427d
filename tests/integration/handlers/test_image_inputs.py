"""What the types that read images take, and what they refuse. Ids T.. are those of the bad inputs in docs/tasks.md."""

import base64
import io
import zipfile
from typing import Any

import pytest
from PIL import Image, ImageCms

from execution_service.handlers.images import IMAGE_BASE64_MAX
from tests.integration.handlers.conftest import Counter
from tests.support.pictures import (
    KINDS,
    PNG_START,
    apng,
    as_base64,
    file_of,
    gif,
    halves,
    jpeg_of_scans,
    noise,
    picture_of,
    png_chunk,
    png_file,
    png_header,
    png_text_bomb,
    webp,
)

pytestmark = pytest.mark.asyncio(loop_scope="session")

_OPTIONS: dict[str, dict[str, Any]] = {
    "image_resize": {"width": 20, "height": 10, "mode": "exact"},
    "apply_filter": {"filters": [{"name": "invert"}, {"name": "invert"}]},
}
every_type = pytest.mark.parametrize("type_name", _OPTIONS)


def _data(type_name: str, content: bytes, **options: Any) -> dict[str, Any]:
    return {"image": as_base64(content), **_OPTIONS[type_name], **options}


async def _canary(counter: Counter) -> None:
    """The worker goes on as if nothing had been."""
    picture = picture_of(await counter.result("image_resize", _data("image_resize", file_of(halves()))))
    assert picture.size == (20, 10)


def _zip() -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("run.js", "alert(1)")
    return packed.getvalue()


def _with_wrong_checksum(content: bytes, chunk: bytes) -> bytes:
    at = content.index(chunk)
    end = at + 4 + int.from_bytes(content[at - 4 : at], "big")
    return content[:end] + bytes([content[end] ^ 1]) + content[end + 1 :]


_NOISE = {kind: file_of(noise((40, 30)), kind) for kind in KINDS}
_PNG, _JPEG = _NOISE["PNG"], _NOISE["JPEG"]
_METAFILE = b"\xd7\xcd\xc6\x9a" + bytes(60)
_GZIPPED_FITS = b"\x1f\x8b\x08\0\0\0\0\0\0\x03" + bytes(60)


@every_type
@pytest.mark.parametrize(
    ("image", "rule"),
    [
        pytest.param("not base64!", "pattern", id="T34-not-base64"),
        pytest.param("iVBORw0KGgo", "pattern", id="T34-base64-cut-off"),
        pytest.param(f"data:image/png;base64,{as_base64(_PNG)}", "pattern", id="T34-data-url"),
        pytest.param(f"{as_base64(_PNG)}\n", "pattern", id="T34-line-end"),
        pytest.param("", "minLength", id="T34-empty"),
        pytest.param("A" * (IMAGE_BASE64_MAX + 4), "maxLength", id="T05-one-too-long"),
    ],
)
async def test_what_is_no_base64_is_refused_at_once(counter: Counter, type_name: str, image: str, rule: str) -> None:
    data = _data(type_name, b"") | {"image": image}
    refusals = counter.refusals(type_name, data)
    assert {error.field for error in refusals} == {"/image"}
    assert rule in {error.rule for error in refusals}
    assert await counter.error_code(type_name, data) == "invalid_data"
    await _canary(counter)


@every_type
@pytest.mark.parametrize(
    ("content", "code"),
    [
        pytest.param(b"hello world", "invalid_image", id="T34-text"),
        pytest.param(b"\0\0\0", "invalid_image", id="T34-nothing"),
        pytest.param(b"GIF89a/*" + bytes(20) + b"*/=alert(1)", "invalid_image", id="T34-polyglot-gif-script"),
        pytest.param(_zip() + _PNG, "unsupported_format", id="T34-polyglot-zip-png"),
        pytest.param(PNG_START + _JPEG, "invalid_image", id="T34-another-format-than-it-says"),
        *(
            pytest.param(part[: len(part) // 2], "invalid_image", id=f"T35-half-{kind}")
            for kind, part in _NOISE.items()
        ),
        *(pytest.param(part[:-1], "invalid_image", id=f"T35-but-a-byte-{kind}") for kind, part in _NOISE.items()),
        pytest.param(_with_wrong_checksum(_PNG, b"IHDR"), "invalid_image", id="T35-checksum-of-header"),
        pytest.param(_with_wrong_checksum(_PNG, b"IDAT"), "invalid_image", id="T35-checksum-of-pixels"),
        pytest.param(png_file(png_header(0, 10), b""), "invalid_image", id="T35-no-width"),
        pytest.param(gif(1, screen=(10, 0)), "invalid_image", id="T35-no-height"),
        pytest.param(png_file(png_header(50_000, 50_000), bytes(1000)), "unsafe_image", id="T36-50000-square"),
        pytest.param(png_header(50_000, 50_000), "unsafe_image", id="T36-header-alone"),
        pytest.param(png_header(10_000, 5_001), "unsafe_image", id="T36-just-over"),
        pytest.param(webp(1, canvas=(16_383, 16_383)), "unsafe_image", id="T36-canvas"),
        pytest.param(png_text_bomb(), "unsafe_image", id="T37-text-bomb"),
        pytest.param(gif(3, last_frame=(65_535, 65_535)), "unsafe_image", id="T37-last-frame-gif"),
        pytest.param(webp(3, last_frame=(16_383, 16_383)), "unsafe_image", id="T37-last-frame-webp"),
        pytest.param(apng(1, frame_size=(60_000, 60_000)), "unsafe_image", id="T37-frame-apng"),
        pytest.param(jpeg_of_scans(5000), "unsafe_image", id="T37-scans"),
        pytest.param(_GZIPPED_FITS, "unsupported_format", id="T37-fits-gzip"),
        pytest.param(b"\xb1\x68\xde\x3a" + bytes(60), "unsupported_format", id="T37-dcx"),
        pytest.param(file_of(halves("F"), "SPIDER"), "invalid_image", id="T37-spider"),
        pytest.param(gif(100_000), "unsafe_image", id="T38-gif-of-100000-frames"),
        pytest.param(apng(1001), "unsafe_image", id="T38-apng"),
        pytest.param(webp(1001), "unsafe_image", id="T38-webp"),
        *(
            pytest.param(file_of(halves(), kind), "unsupported_format", id=f"T39-{kind}")
            for kind in ("TIFF", "EPS", "PDF", "ICO", "BMP", "PPM", "JPEG2000", "DDS")
        ),
        pytest.param(b"<svg xmlns='http://www.w3.org/2000/svg'/>", "unsupported_format", id="T39-SVG"),
        pytest.param(b"8BPS\0\1" + bytes(60), "unsupported_format", id="T39-PSD"),
        pytest.param(_METAFILE, "unsupported_format", id="T39-WMF"),
        pytest.param(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(60), "unsupported_format", id="T39-HEIC"),
    ],
)
async def test_files_that_are_no_good_are_refused(counter: Counter, type_name: str, content: bytes, code: str) -> None:
    data = _data(type_name, content)
    assert counter.refusals(type_name, data) == []
    assert await counter.error_code(type_name, data) == code
    await _canary(counter)


_TURNED = Image.Exif()
_TURNED[0x0112] = 6
_PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


@every_type
@pytest.mark.parametrize(
    ("content", "size"),
    [
        pytest.param(file_of(halves("CMYK"), "JPEG"), (40, 20), id="T40-cmyk"),
        pytest.param(file_of(halves("L").convert("I;16")), (40, 20), id="T40-16-bit"),
        pytest.param(file_of(halves("P")), (40, 20), id="T40-palette"),
        pytest.param(file_of(halves("RGBA")), (40, 20), id="T40-alpha"),
        pytest.param(file_of(halves("LA")), (40, 20), id="T40-grey-alpha"),
        pytest.param(file_of(halves("1")), (40, 20), id="T40-1-bit"),
        pytest.param(file_of(halves(), "JPEG", exif=_TURNED), (20, 40), id="T40-rotated"),
        pytest.param(file_of(halves(), icc_profile=_PROFILE), (40, 20), id="T40-icc"),
        pytest.param(file_of(halves(), icc_profile=b"nonsense"), (40, 20), id="T40-broken-icc"),
        pytest.param(file_of(halves(size=(1, 1))), (1, 1), id="T40-1x1"),
        pytest.param(file_of(halves(size=(1, 65_500))), (1, 65_500), id="T40-1x65500"),
        pytest.param(gif(1000), (1, 1), id="T38-as-many-frames-as-there-may-be"),
        pytest.param(file_of(halves()) + _zip(), (40, 20), id="T34-polyglot-png-zip"),
    ],
)
async def test_unusual_images_are_images(
    counter: Counter, type_name: str, content: bytes, size: tuple[int, int]
) -> None:
    result = await counter.result(type_name, _data(type_name, content))
    assert picture_of(result).size == (size if type_name == "apply_filter" else (20, 10))
    assert b"run.js" not in base64.b64decode(result["image"])


@every_type
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF"])
async def test_places_are_left_out(counter: Counter, type_name: str, kind: str) -> None:
    """T43"""
    exif = Image.Exif()
    exif[0x010E] = "at the mill"
    exif[0x8825] = {1: "N", 2: (52.0, 30.0, 0.0), 3: "E", 4: (13.0, 24.0, 0.0)}
    content = file_of(halves(), kind, exif=exif)
    assert Image.open(io.BytesIO(content)).getexif().get_ifd(0x8825)
    result = await counter.result(type_name, _data(type_name, content))
    assert not picture_of(result).getexif()
    assert b"at the mill" not in base64.b64decode(result["image"])


@pytest.mark.parametrize(
    ("type_name", "options", "field", "rule"),
    [
        *(
            pytest.param("image_resize", {"width": width}, "/width", rule, id=f"T41-width-{width}")
            for width, rule in ((0, "minimum"), (-1, "minimum"), (10**6, "maximum"), (1.5, "type"), ("10", "type"))
        ),
        pytest.param("image_resize", {"height": 10_001}, "/height", "maximum", id="T41-height-10001"),
        pytest.param("image_resize", {"mode": "crop"}, "/mode", "enum", id="T41-mode"),
        pytest.param("image_resize", {"box": [-1, 0, 5, 5]}, "/box", "unknown_field", id="T41-crop-outside"),
        pytest.param("image_resize", {"angle": 45}, "/angle", "unknown_field", id="T41-angle"),
        pytest.param("image_resize", {"width": 20_000, "height": 20_000}, "/width", "maximum", id="T42-20000-square"),
        *(
            pytest.param(name, {"quality": quality}, "/quality", rule, id=f"T41-quality-{quality}-{name}")
            for name in _OPTIONS
            for quality, rule in ((0, "minimum"), (101, "maximum"), (80.5, "type"), ("80", "type"))
        ),
        *(pytest.param(name, {"format": "GIF"}, "/format", "enum", id=f"T41-format-{name}") for name in _OPTIONS),
        pytest.param("apply_filter", {"filters": []}, "/filters", "minItems", id="T06-no-filter"),
        pytest.param(
            "apply_filter", {"filters": [{"name": "invert"}] * 17}, "/filters", "maxItems", id="T06-17-filters"
        ),
        *(
            pytest.param("apply_filter", {"filters": [{"name": "invert"}, step]}, f"/filters/1{field}", rule, id=row)
            for row, step, field, rule in (
                ("T41-filter-unknown", {"name": "blurr"}, "/name", "enum"),
                ("T41-filter-without-a-name", {"radius": 1}, "/name", "required"),
                ("T41-filter-as-a-text", "blur", "", "type"),
                ("T41-radius-0", {"name": "blur", "radius": 0}, "/radius", "exclusiveMinimum"),
                ("T41-radius-251", {"name": "blur", "radius": 251}, "/radius", "maximum"),
                ("T41-radius-of-invert", {"name": "invert", "radius": 1}, "/radius", "unknown_field"),
                ("T41-percent-0", {"name": "sharpen", "percent": 0}, "/percent", "minimum"),
                ("T41-threshold-256", {"name": "sharpen", "threshold": 256}, "/threshold", "maximum"),
                ("T41-no-factor", {"name": "contrast"}, "/factor", "required"),
                ("T41-factor-11", {"name": "brightness", "factor": 11}, "/factor", "maximum"),
                ("T41-bits-9", {"name": "posterize", "bits": 9}, "/bits", "maximum"),
            )
        ),
    ],
)
async def test_options_out_of_range_are_refused_at_once(
    counter: Counter, type_name: str, options: dict[str, Any], field: str, rule: str
) -> None:
    data = _data(type_name, file_of(halves()), **options)
    assert (field, rule) in [(error.field, error.rule) for error in counter.refusals(type_name, data)]
    assert await counter.error_code(type_name, data) == "invalid_data"


@pytest.mark.parametrize(
    ("type_name", "content", "options", "code"),
    [
        pytest.param(
            "image_resize",
            file_of(halves(size=(1, 1))),
            {"width": 10_000, "height": 10_000},
            "cost_too_high",
            id="T42-upscale",
        ),
        pytest.param(
            "apply_filter",
            file_of(Image.new("1", (8_000, 4_000))),
            {"filters": [{"name": "blur"}] * 16},
            "cost_too_high",
            id="T08-filters-times-pixels",
        ),
        pytest.param(
            "apply_filter", file_of(Image.new("1", (8_000, 4_000))), {"format": "AVIF"}, "cost_too_high", id="T08-avif"
        ),
        pytest.param(
            "apply_filter", file_of(halves(size=(1, 65_500))), {"format": "WEBP"}, "result_too_large", id="T40-side"
        ),
        pytest.param(
            "image_resize",
            file_of(noise((1500, 1500)), "JPEG", quality=50),
            {"width": 2000, "height": 2000, "format": "PNG"},
            "result_too_large",
            id="T60-result",
        ),
    ],
)
async def test_what_would_be_too_much_is_refused(
    counter: Counter, type_name: str, content: bytes, options: dict[str, Any], code: str
) -> None:
    data = _data(type_name, content, **options)
    assert counter.refusals(type_name, data) == []
    assert await counter.error_code(type_name, data) == code
    await _canary(counter)


@every_type
async def test_the_largest_file_that_may_be_sent_is_read(counter: Counter, type_name: str) -> None:
    """T05: as long as the schema allows; most of it belongs to no picture, and of that nothing is left."""
    png = file_of(halves())  # its header ends after 33 bytes
    rest = IMAGE_BASE64_MAX // 4 * 3 - len(png) - 12
    padded = png[:33] + png_chunk(b"seCr", bytes(rest)) + png[33:]
    data = _data(type_name, padded)
    assert len(data["image"]) == IMAGE_BASE64_MAX
    result = await counter.result(type_name, data)
    assert result["bytes"] < 1000


@pytest.mark.parametrize(
    ("type_name", "options"),
    [
        ("image_resize", {"width": 1000, "height": 1000}),
        ("apply_filter", {"filters": [{"name": "grayscale"}, {"name": "edges"}]}),
    ],
)
async def test_fifty_megapixels_are_done_within_the_limits(
    counter: Counter, type_name: str, options: dict[str, Any]
) -> None:
    """T36: as many as are taken. The worker's memory is limited to what the type says."""
    content = file_of(Image.new("RGB", (10_000, 5_000), "teal"), "JPEG", quality=50)
    result = await counter.result(type_name, _data(type_name, content) | options)
    assert result["width"] == (1000 if type_name == "image_resize" else 10_000)
