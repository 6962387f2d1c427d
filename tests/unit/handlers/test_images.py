"""Images of all accepted kinds come in as they should look, and go out without a trace; the rest is refused."""

import base64
import contextlib
import io
import struct
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageCms, PngImagePlugin
from pydantic import ValidationError

from execution_service.handlers.image_files import INPUT_PIXELS_MAX
from execution_service.handlers.images import (
    ImageData,
    ImageStoppedError,
    OutputFormat,
    check_result,
    image_result,
    read_image,
    report,
)
from headrace.tasks import PermanentError, TaskContext
from tests.support.pictures import (
    KINDS,
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
    png_with,
    webp,
)

RED, BLUE, GREY, SEE_THROUGH = (255, 0, 0), (0, 0, 255), (200, 200, 200), (0, 0, 0, 0)


def _read(content: bytes) -> Image.Image:
    return read_image(ImageData(image=as_base64(content)))[0]


def _refusal(content: bytes) -> str:
    with pytest.raises(PermanentError) as refused:
        _read(content)
    return refused.value.code


def _colours(image: Image.Image) -> list[tuple[int, ...]]:
    """The colours left and right in the middle."""
    shown = image.convert("RGB")
    y = image.height // 2
    return [_colour(shown, x, y) for x in (image.width // 10, image.width - 1 - image.width // 10)]


def _colour(image: Image.Image, x: int, y: int) -> tuple[int, ...]:
    value = image.getpixel((x, y))
    assert isinstance(value, tuple)
    return value


@pytest.mark.parametrize("kind", KINDS)
def test_every_accepted_format_is_read(kind: str) -> None:
    image = _read(file_of(halves(), kind))
    left, right = _colours(image)
    assert image.size == (40, 20)
    assert left == pytest.approx(RED, abs=3)
    assert right == pytest.approx(BLUE, abs=3)


@pytest.mark.parametrize(("kind", "target"), [(kind, "PNG" if kind == "GIF" else kind) for kind in KINDS])
def test_without_a_format_the_result_has_that_of_the_source_and_a_gif_becomes_a_png(kind: str, target: str) -> None:
    data = ImageData(image=as_base64(file_of(halves(), kind)))
    assert read_image(data)[1] == target
    assert read_image(data.model_copy(update={"format": OutputFormat.WEBP}))[1] == "WEBP"


@pytest.mark.parametrize(
    ("content", "mode", "colours"),
    [
        pytest.param(file_of(halves("1")), "L", None, id="1 bit"),
        pytest.param(file_of(Image.new("L", (40, 20), 200)), "L", [GREY, GREY], id="grey"),
        pytest.param(file_of(Image.new("LA", (40, 20), (200, 90))), "RGBA", [GREY, GREY], id="grey with alpha"),
        pytest.param(
            file_of(Image.new("I", (40, 20), 200 * 256 + 255).convert("I;16")), "L", [GREY, GREY], id="16 bit"
        ),
        pytest.param(file_of(halves("P")), "RGB", [RED, BLUE], id="palette"),
        pytest.param(file_of(halves("P"), "GIF"), "RGB", [RED, BLUE], id="palette of a GIF"),
        pytest.param(file_of(halves("RGBA")), "RGBA", [RED, BLUE], id="alpha"),
        pytest.param(file_of(halves("RGBA"), "WEBP", lossless=True), "RGB", [RED, BLUE], id="opaque WebP"),
    ],
)
def test_every_kind_of_pixel_is_read(content: bytes, mode: str, colours: list[tuple[int, ...]] | None) -> None:
    image = _read(content)
    assert (image.mode, image.size) == (mode, (40, 20))
    if colours is not None:
        assert _colours(image) == colours


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr"])
def test_every_kind_of_pixel_of_a_jpeg_is_read(mode: str) -> None:
    image = _read(file_of(halves(mode), "JPEG", quality=95))
    left, right = _colours(image)
    assert image.mode == "RGB"
    assert left == pytest.approx(RED, abs=8)
    assert right == pytest.approx(BLUE, abs=8)


def test_a_colour_that_stands_for_transparency_is_transparent() -> None:
    for mode, key, other in (("RGB", (255, 0, 0), (0, 0, 255)), ("L", 10, 200), ("1", 0, 255)):
        image = Image.new(mode, (2, 1), other)
        image.putpixel((0, 0), key)
        read = _read(file_of(image, transparency=key))
        assert (_colour(read, 0, 0)[3], _colour(read, 1, 0)[3]) == (0, 255), mode


def test_transparency_keyed_in_16_bits_is_left_out() -> None:
    pixels = struct.pack(">BHH", 0, 0x8000, 0x1000)
    image = _read(png_file(png_header(2, 1, bits=16, colour_type=0), pixels, png_chunk(b"tRNS", b"\x80\0")))
    assert (image.mode, image.getpixel((0, 0)), image.getpixel((1, 0))) == ("L", 0x80, 0x10)


def test_the_palette_of_a_gif_can_be_transparent() -> None:
    image = Image.new("P", (2, 1), 1)
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putpixel((0, 0), 0)
    read = _read(file_of(image, "GIF", transparency=0))
    assert (_colour(read, 0, 0)[3], _colour(read, 1, 0)) == (0, (0, 0, 255, 255))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF"])
def test_the_rotation_of_a_camera_is_applied(kind: str, orientation: int) -> None:
    corner = Image.new("L", (40, 20), 0)
    corner.paste(255, (0, 0, 20, 10))
    # What a camera stores that is held so: the way back to an upright image (TIFF 6.0, tag 274).
    turn = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = corner.transpose(turn[orientation]) if orientation > 1 else corner
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = _read(file_of(stored, kind, exif=exif)).convert("L")
    assert image.size == (40, 20)
    assert [image.getpixel(at) > 128 for at in ((10, 5), (30, 5), (10, 15), (30, 15))] == [True, False, False, False]  # type: ignore[operator]


def test_colours_are_converted_to_srgb() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    # A profile whose red is blue, and the other way round.
    swapped = profile.replace(b"rXYZ", b"____").replace(b"bXYZ", b"rXYZ").replace(b"____", b"bXYZ")
    left, right = _colours(_read(file_of(halves(), icc_profile=swapped)))
    assert left == pytest.approx(BLUE, abs=2)
    assert right == pytest.approx(RED, abs=2)
    glass = _read(file_of(Image.new("RGBA", (4, 4), (255, 0, 0, 90)), icc_profile=swapped))
    assert _colour(glass, 1, 1) == pytest.approx((0, 0, 255, 90), abs=2)


def test_broken_profiles_do_not_matter() -> None:
    for profile in (b"nonsense", bytes(128)):
        assert _colours(_read(file_of(halves(), icc_profile=profile))) == [RED, BLUE]


@pytest.mark.parametrize(
    "exif",
    [
        pytest.param(b"Exif\0\0II*\0\xff\xff\xff\xff", id="pointing nowhere"),
        # Turned by 90 degrees, and with a width that is a text: Pillow fails when it writes that back.
        pytest.param(
            b"Exif\0\0MM\0*\0\0\0\x08\0\x02\x01\0\0\x02\0\0\0\x02x\0\0\0\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0",
            id="of a wrong type",
        ),
    ],
)
def test_broken_exif_data_do_not_matter(exif: bytes) -> None:
    assert sorted(_read(file_of(halves(), "JPEG", exif=exif)).size) == [20, 40]


def test_of_an_animation_the_first_frame_is_taken() -> None:
    frames = [Image.new("RGB", (10, 10), colour) for colour in ("red", "lime", "blue")]
    for kind in ("GIF", "WEBP", "PNG", "AVIF"):
        image = _read(file_of(frames[0], kind, save_all=True, append_images=frames[1:], duration=50))
        assert _colours(image)[0] == pytest.approx(RED, abs=3), kind


def test_of_a_jpeg_with_others_attached_the_first_is_taken() -> None:
    others = [Image.new("RGB", (64, 64), "lime"), Image.new("RGB", (10, 10), "blue")]
    content = file_of(Image.new("RGB", (10, 10), "red"), "MPO", save_all=True, append_images=others)
    assert Image.open(io.BytesIO(content)).format == "MPO"
    image = _read(content)
    assert image.size == (10, 10)
    assert _colours(image)[0] == pytest.approx(RED, abs=3)


@pytest.mark.parametrize("at_least", [(10, 10), (100, 20), (300, 100)])
def test_a_jpeg_is_read_at_no_less_than_twice_the_size_that_is_needed(at_least: tuple[int, int]) -> None:
    data = ImageData(image=as_base64(file_of(halves(size=(1601, 803)), "JPEG")))
    image, _ = read_image(data, at_least=at_least)
    assert image.width >= min(1601, 2 * max(at_least))
    assert image.height >= min(803, 2 * max(at_least))
    assert (image.width < 1601) == (at_least == (10, 10) or at_least == (100, 20))


@pytest.mark.parametrize("kind", KINDS)
def test_no_file_that_is_cut_off_gives_an_image(kind: str) -> None:
    content = file_of(noise((16, 12)), kind)
    assert _read(content).size == (16, 12)
    assert {_refusal(content[:length]) for length in range(1, len(content))} == {"invalid_image"}


def test_no_png_with_a_changed_byte_gives_an_image() -> None:
    content = file_of(halves())
    for at in range(len(content)):
        damaged = bytearray(content)
        damaged[at] ^= 1
        assert _refusal(bytes(damaged)) in ("invalid_image", "unsafe_image"), at


def test_pixels_that_are_missing_in_a_whole_file_are_noticed() -> None:
    assert _refusal(png_file(png_header(4, 4), bytes(20))) == "invalid_image"
    assert _refusal(png_header(4, 4) + png_chunk(b"IEND", b"")) == "invalid_image"


def test_a_palette_that_is_missing_is_noticed() -> None:
    assert _refusal(png_file(png_header(2, 1, colour_type=3), bytes(3))) == "invalid_image"


@pytest.mark.parametrize("size", [(0, 10), (10, 0), (0, 0)])
def test_images_without_pixels_are_invalid(size: tuple[int, int]) -> None:
    jpeg = file_of(halves(), "JPEG").replace(struct.pack(">HH", 20, 40), struct.pack(">HH", *size), 1)
    for content in (png_file(png_header(*size), b"\0"), gif(1, screen=size), gif(2, last_frame=size), jpeg):
        assert _refusal(content) == "invalid_image"


@pytest.mark.parametrize("size", [(50_000, 50_000), (10_000, 5_001), (2**31 - 1, 1), (65_535, 65_535)])
def test_too_many_pixels_are_refused_from_the_header(size: tuple[int, int]) -> None:
    assert _refusal(png_header(*size)) == "unsafe_image"


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(gif(1, screen=(65_535, 65_535)), id="screen of a GIF"),
        pytest.param(gif(3, last_frame=(65_535, 65_535)), id="last frame of a GIF"),
        pytest.param(webp(1, canvas=(16_383, 16_383)), id="canvas of a WebP"),
        pytest.param(webp(3, last_frame=(16_383, 16_383)), id="last frame of a WebP"),
        pytest.param(apng(1, frame_size=(60_000, 60_000)), id="frame of an APNG"),
        pytest.param(b"\xff\xd8\xff\xc0\0\x0b\x08\xff\xff\xff\xff\x01\x01\x11\0", id="JPEG"),
        pytest.param(b"RIFF\x1e\0\0\0WEBPVP8L\x12\0\0\0\x2f\xff\xff\xff\x0f" + bytes(13), id="lossless WebP"),
        pytest.param(
            b"RIFF\x1e\0\0\0WEBPVP8 \x12\0\0\0\x10\0\0\x9d\x01\x2a\xff\x3f\xff\x3f" + bytes(8), id="lossy WebP"
        ),
    ],
)
def test_too_many_pixels_are_seen_in_every_frame(content: bytes) -> None:
    assert _refusal(content) == "unsafe_image"


def test_too_many_pixels_of_an_avif_are_refused_when_it_is_opened() -> None:
    content = file_of(halves(), "AVIF")
    assert _refusal(content.replace(struct.pack(">II", 40, 20), struct.pack(">II", 10_000, 5_001))) == "unsafe_image"


def test_a_thousand_frames_are_taken_and_no_more() -> None:
    assert _read(gif(1000)).size == _read(webp(1000)).size == (1, 1)
    assert {_refusal(content) for content in (gif(1001), webp(1001), apng(1001))} == {"unsafe_image"}


def test_a_hundred_scans_are_taken_and_no_more() -> None:
    assert _read(jpeg_of_scans(100)).size == (40, 20)
    assert _refusal(jpeg_of_scans(101)) == "unsafe_image"


def test_text_that_swells_up_is_refused() -> None:
    swollen = zlib.compress(bytes(3_000_000))
    assert _refusal(png_text_bomb()) == "unsafe_image"
    assert _refusal(png_with(png_chunk(b"iCCP", b"name\0\0" + swollen))) == "unsafe_image"
    text = png_chunk(b"zTXt", b"key\0\0" + zlib.compress(bytes(1_000_000)))
    assert _refusal(png_with(text * 100)) == "unsafe_image"
    profile = png_chunk(b"iCCP", b"name\0\0" + zlib.compress(bytes(1000)))
    assert _refusal(png_with(profile, profile)) == "invalid_image"


@pytest.mark.parametrize("kind", ["TIFF", "BMP", "EPS", "PDF", "ICO", "PPM", "JPEG2000", "DDS", "SPIDER"])
def test_other_formats_are_refused(kind: str) -> None:
    code = "invalid_image" if kind == "SPIDER" else "unsupported_format"  # it has no mark of its own
    assert _refusal(file_of(halves("F" if kind == "SPIDER" else "RGB"), kind)) == code


@pytest.mark.parametrize(
    "start",
    [
        *(b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"\xef\xbb\xbf <?xml version='1.0'?>", b"8BPS\0\1"),
        *(b"\xd7\xcd\xc6\x9a\0\0", b"SIMPLE  =", b"\x1f\x8b\x08\0", b"\xb1\x68\xde\x3a", b"\xff\x0a", b"PK\3\4"),
        b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
    ],
)
def test_other_formats_are_known_by_their_first_bytes(start: bytes) -> None:
    assert _refusal(start + bytes(100)) == "unsupported_format"


@pytest.mark.parametrize(
    "content", [b"a", b"hello world", b"GIF89a/*", b"\xff\xd8\xff", b"\0\0\0\x18ftypisom" + bytes(40)]
)
def test_what_is_no_image_is_told_so(content: bytes) -> None:
    assert _refusal(content) == "invalid_image"


@pytest.mark.parametrize(
    "text", ["", "!", "AAA", "AAAA=", "A===", "AA=A", "äöüß", "aGVsbG8=\n", "data:image/png;base64,AAAA"]
)
def test_what_is_no_base64_is_not_even_data(text: str) -> None:
    with pytest.raises(ValidationError):
        ImageData(image=text)


@pytest.mark.parametrize(
    "option",
    [{"quality": 0}, {"quality": 101}, {"quality": 8.5}, {"quality": "80"}, {"format": "GIF"}, {"format": "jpeg"}],
)
def test_options_out_of_range_are_refused(option: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ImageData.model_validate({"image": "AAAA", **option})


_DAMAGE = st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.binary(max_size=4), st.integers(0, 4)), max_size=6)
_VICTIMS = {kind: file_of(noise((16, 12)), kind) for kind in KINDS}


@given(kind=st.sampled_from(KINDS), damage=_DAMAGE)
def test_a_damaged_file_gives_an_image_or_a_reason(kind: str, damage: list[tuple[float, bytes, int]]) -> None:
    content = _VICTIMS[kind]
    for place, new, gone in damage:
        at = int(place * len(content))
        content = content[:at] + new + content[at + gone :]
    with contextlib.suppress(PermanentError):
        image = _read(content)
        assert image.mode in ("L", "RGB", "RGBA")
        assert 1 <= image.width * image.height <= INPUT_PIXELS_MAX


# --- what goes out


def _written(image: Image.Image, target: OutputFormat, quality: int | None = None) -> Image.Image:
    return picture_of(image_result(image, target, quality).model_dump())


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
    result = image_result(_read(file_of(halves(), kind, **options) + b"a secret appendix"), target, None)
    image = picture_of(result.model_dump())
    assert not image.getexif()
    assert not {"icc_profile", "exif", "xmp", "Comment", "comment"} & set(image.info)
    assert b"secret" not in base64.b64decode(result.image)


def test_transparency_becomes_white_where_the_format_has_none() -> None:
    glass = Image.new("RGBA", (20, 20), (255, 0, 0, 0))
    for target in (OutputFormat.PNG, OutputFormat.WEBP, OutputFormat.AVIF):
        assert _colour(_written(glass, target), 5, 5)[3] == 0
    assert min(_colour(_written(glass, OutputFormat.JPEG), 5, 5)) > 250


@pytest.mark.parametrize("target", [OutputFormat.JPEG, OutputFormat.WEBP, OutputFormat.AVIF])
def test_more_quality_makes_larger_files(target: OutputFormat) -> None:
    image = noise((60, 60))
    sizes = [image_result(image, target, quality).bytes for quality in (1, 30, None, 100)]
    assert sizes == sorted(set(sizes))


def test_a_png_is_exact_whatever_the_quality() -> None:
    image = noise((20, 20))
    for quality in (1, 100):
        assert _written(image, OutputFormat.PNG, quality).tobytes() == image.tobytes()


def test_a_result_that_could_not_be_stored_is_refused() -> None:
    with pytest.raises(PermanentError) as refused:
        image_result(noise((1600, 1600)), OutputFormat.PNG, None)
    assert refused.value.code == "result_too_large"


@pytest.mark.parametrize(
    ("target", "size", "code"),
    [
        (OutputFormat.JPEG, (65_501, 1), "result_too_large"),
        (OutputFormat.WEBP, (1, 16_384), "result_too_large"),
        (OutputFormat.AVIF, (32_769, 1), "result_too_large"),
        (OutputFormat.JPEG, (10_000, 5_001), "cost_too_high"),
        (OutputFormat.PNG, (10_000, 5_001), "cost_too_high"),
        (OutputFormat.WEBP, (5_000, 5_001), "cost_too_high"),
        (OutputFormat.AVIF, (5_000, 5_001), "cost_too_high"),
    ],
)
def test_sizes_that_cannot_be_written_are_refused(target: OutputFormat, size: tuple[int, int], code: str) -> None:
    with pytest.raises(PermanentError) as refused:
        check_result(size, target)
    assert refused.value.code == code


@pytest.mark.parametrize(
    ("target", "size"),
    [
        (OutputFormat.JPEG, (65_500, 1)),
        (OutputFormat.PNG, (1, 100_000)),
        (OutputFormat.WEBP, (16_383, 1)),
        (OutputFormat.AVIF, (1, 32_768)),
        *((target, (1, 1)) for target in OutputFormat),
    ],
)
def test_the_longest_sides_can_be_written_and_read_again(target: OutputFormat, size: tuple[int, int]) -> None:
    check_result(size, target)
    result = image_result(Image.new("RGB", size, "red"), target, None)
    assert _read(base64.b64decode(result.image)).size == size


def test_cancelled_work_stops_at_the_next_report() -> None:
    said: list[tuple[float, str]] = []
    context = TaskContext(on_progress=lambda fraction, message: said.append((fraction, message)))
    report(context, 0.5, "half")
    assert said == [(0.5, "half")]
    with pytest.raises(ImageStoppedError):
        report(TaskContext(is_cancelled=lambda: True), 0.5, "half")
