"""Images come out in the size asked for; what would be too much is refused before the work."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw
from pydantic import ValidationError

from execution_service.handlers.image_resize import ImageResizeData, Mode, fill_box, fit_size, image_resize
from execution_service.handlers.images import ImageStoppedError, OutputFormat
from headrace.tasks import PermanentError, TaskContext
from tests.support.pictures import KINDS, as_base64, file_of, halves, noise, picture_of


def _resized(
    content: bytes,
    width: int = 20,
    height: int = 20,
    mode: Mode = Mode.FIT,
    kind: OutputFormat | None = OutputFormat.PNG,
    context: TaskContext | None = None,
) -> Image.Image:
    data = ImageResizeData(image=as_base64(content), width=width, height=height, mode=mode, format=kind)
    return picture_of(image_resize(data, context or TaskContext()).model_dump())


def _pixel(image: Image.Image, x: int, y: int) -> tuple[int, ...]:
    value = image.convert("RGB").getpixel((x, y))
    assert isinstance(value, tuple)
    return value


@pytest.mark.parametrize("source", KINDS)
@pytest.mark.parametrize("target", [None, *OutputFormat])
def test_every_format_can_be_turned_into_every_other(source: str, target: OutputFormat | None) -> None:
    image = _resized(file_of(halves(), source), kind=target)
    assert image.format == target or (target is None and image.format == ("PNG" if source == "GIF" else source))
    assert image.size == (20, 10)
    assert _pixel(image, 3, 5) == pytest.approx((255, 0, 0), abs=15)
    assert _pixel(image, 16, 5) == pytest.approx((0, 0, 255), abs=15)


@pytest.mark.parametrize(
    ("mode", "box", "size"),
    [
        (Mode.FIT, (30, 30), (30, 15)),
        (Mode.FIT, (100, 30), (60, 30)),
        (Mode.FILL, (30, 30), (30, 30)),
        (Mode.EXACT, (30, 31), (30, 31)),
    ],
)
def test_each_mode_gives_the_size_it_promises(mode: Mode, box: tuple[int, int], size: tuple[int, int]) -> None:
    assert _resized(file_of(halves()), *box, mode).size == size


def test_filling_keeps_the_middle() -> None:
    for across in (True, False):
        stripes = Image.new("RGB", (90, 30) if across else (30, 90), "red")
        ImageDraw.Draw(stripes).rectangle((30, 0, 59, 29) if across else (0, 30, 29, 59), fill="lime")
        image = _resized(file_of(stripes), 30, 30, Mode.FILL)
        assert image.getcolors() == [(900, (0, 255, 0))]


def test_the_proportions_are_those_of_the_upright_image() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90° clockwise
    image = _resized(file_of(halves(), "JPEG", exif=exif), 20, 40)
    assert image.size == (20, 40)
    assert _pixel(image, 10, 3)[0] > 200
    assert _pixel(image, 10, 36)[2] > 200


def test_hidden_colours_do_not_shine_through_transparency() -> None:
    image = Image.new("RGBA", (40, 40), (0, 255, 0, 0))
    ImageDraw.Draw(image).rectangle((0, 0, 19, 39), fill=(255, 0, 0, 255))
    small = _resized(file_of(image), 10, 10)
    seen = [small.getpixel((x, 5)) for x in range(10)]
    assert all(pixel[1] < 10 for pixel in seen if isinstance(pixel, tuple) and pixel[3] > 0)


def test_light_and_dark_lines_become_their_mean() -> None:
    lines = Image.new("L", (64, 64), 0)
    for x in range(0, 64, 2):
        lines.paste(200, (x, 0, x + 1, 64))
    small = _resized(file_of(lines), 8, 8)
    assert small.mode == "L"
    assert small.getpixel((4, 4)) == pytest.approx(100, abs=2)


@pytest.mark.parametrize("size", [(1, 1), (1, 65_500), (65_500, 1), (3, 7)])
@pytest.mark.parametrize("mode", list(Mode))
def test_extreme_proportions_work(size: tuple[int, int], mode: Mode) -> None:
    image = _resized(file_of(Image.new("RGB", size, "red")), 50, 20, mode)
    assert _pixel(image, 0, 0) == (255, 0, 0)


@pytest.mark.parametrize(
    ("mode", "height", "target"),
    [
        *((mode, 10_000, OutputFormat.PNG) for mode in Mode),
        (Mode.EXACT, 5_001, OutputFormat.JPEG),
        (Mode.EXACT, 2_501, OutputFormat.AVIF),
    ],
)
def test_a_result_of_too_many_pixels_is_refused(mode: Mode, height: int, target: OutputFormat) -> None:
    with pytest.raises(PermanentError) as refused:
        _resized(file_of(Image.new("L", (1, 1))), 10_000, height, mode, target)
    assert refused.value.code == "cost_too_high"


def test_a_box_may_be_larger_than_the_result() -> None:
    assert _resized(file_of(Image.new("L", (1, 20))), 10_000, 10_000).size == (500, 10_000)


def test_progress_is_told_and_a_cancel_is_heard() -> None:
    said: list[str] = []
    _resized(file_of(halves()), context=TaskContext(on_progress=lambda _, message: said.append(message)))
    assert said == ["read 40 × 20 pixels", "resized to 20 × 10"]
    with pytest.raises(ImageStoppedError):
        _resized(file_of(halves()), context=TaskContext(is_cancelled=lambda: True))


@pytest.mark.parametrize(
    "change",
    [
        *({"width": value} for value in (0, -1, 10_001, 10**6, 1.5, "10", True, None)),
        *({"height": value} for value in (0, -1, 10_001)),
        *({"mode": "stretch"}, {"angle": 3}),
    ],
)
def test_options_out_of_range_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ImageResizeData.model_validate({"image": "AAAA", "width": 1, "height": 1, **change})


_SIDE = st.integers(1, 10_000)
_SIZE = st.tuples(_SIDE, _SIDE)


@given(_SIZE, _SIZE)
def test_fitting_keeps_proportions_within_the_size(source: tuple[int, int], target: tuple[int, int]) -> None:
    width, height = fit_size(source, target)
    scale = min(target[0] / source[0], target[1] / source[1])
    assert 1 <= width <= target[0]
    assert 1 <= height <= target[1]
    assert width == target[0] or height == target[1]
    assert math.isclose(width, source[0] * scale, abs_tol=1)
    assert math.isclose(height, source[1] * scale, abs_tol=1)


@given(_SIZE, _SIZE)
def test_filling_cuts_within_the_source(source: tuple[int, int], target: tuple[int, int]) -> None:
    left, top, right, bottom = fill_box(source, target)
    assert 0 <= left < right <= source[0] + 1e-9
    assert 0 <= top < bottom <= source[1] + 1e-9
    assert right - left == pytest.approx(source[0]) or bottom - top == pytest.approx(source[1])
    assert (right - left) * target[1] == pytest.approx((bottom - top) * target[0])
    assert left + right == pytest.approx(source[0])
    assert top + bottom == pytest.approx(source[1])


_SMALL = st.integers(1, 60)


@given(source=st.tuples(_SMALL, _SMALL), target=st.tuples(_SMALL, _SMALL), kind=st.sampled_from(["PNG", "JPEG"]))
def test_every_mode_keeps_its_promise_for_every_size(
    source: tuple[int, int], target: tuple[int, int], kind: str
) -> None:
    content = file_of(Image.new("L", source, 77), kind)
    assert _resized(content, *target, Mode.EXACT).size == _resized(content, *target, Mode.FILL).size == target
    width, height = _resized(content, *target, Mode.FIT).size
    scale = min(target[0] / source[0], target[1] / source[1])
    assert max(width - target[0], height - target[1]) == 0
    assert math.isclose(width, source[0] * scale, abs_tol=1)
    assert math.isclose(height, source[1] * scale, abs_tol=1)


@pytest.mark.parametrize("source", [(1999, 1003), (1003, 1999), (2048, 129)])
def test_a_jpeg_that_is_read_at_a_fraction_keeps_its_proportions(source: tuple[int, int]) -> None:
    content = file_of(noise((50, 50)).resize(source), "JPEG")
    for side in range(1, 60, 7):
        scale = side / max(source)
        width, height = _resized(content, side, side).size
        assert max(width, height) == side
        assert math.isclose(width, source[0] * scale, abs_tol=1)
        assert math.isclose(height, source[1] * scale, abs_tol=1)
