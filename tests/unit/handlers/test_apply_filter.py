"""Each filter does what its text says to every pixel, a chain does one after the other, and transparency stays."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError

from execution_service.handlers.apply_filter import (
    FILTERED_PIXELS_MAX,
    FILTERS_MAX,
    ApplyFilterData,
    apply_filter,
    check_cost,
)
from execution_service.handlers.images import ImageStoppedError
from headrace.tasks import PermanentError, TaskContext
from tests.support.pictures import KINDS, as_base64, file_of, halves, noise, picture_of

Step = dict[str, Any]


def _filtered(
    image: Image.Image, *steps: Step, kind: str = "PNG", context: TaskContext | None = None, **options: Any
) -> Image.Image:
    data = {"image": as_base64(file_of(image, kind)), "filters": [*steps], **options}
    return picture_of(apply_filter(ApplyFilterData.model_validate(data), context or TaskContext()).model_dump())


def _grey(*rows: list[int]) -> Image.Image:
    image = Image.new("L", (len(rows[0]), len(rows)))
    image.putdata([value for row in rows for value in row])
    return image


def _rows(image: Image.Image) -> list[list[int]]:
    assert image.mode == "L"
    values = list(image.tobytes())
    return [values[start : start + image.width] for start in range(0, len(values), image.width)]


def _one_pixel(colour: tuple[int, int, int], step: Step) -> tuple[int, ...]:
    value = _filtered(Image.new("RGB", (1, 1), colour), step).convert("RGB").getpixel((0, 0))
    assert isinstance(value, tuple)
    return value


@pytest.mark.parametrize(
    ("step", "colour", "expected"),
    [
        # Luma of ITU-R BT.709: 0.2126 R + 0.7152 G + 0.0722 B.
        ({"name": "grayscale"}, (255, 0, 0), (54, 54, 54)),
        ({"name": "grayscale"}, (0, 255, 0), (182, 182, 182)),
        ({"name": "grayscale"}, (0, 0, 255), (18, 18, 18)),
        ({"name": "grayscale"}, (10, 200, 100), (152, 152, 152)),
        # 0.393, 0.769, 0.189; 0.349, 0.686, 0.168; 0.272, 0.534, 0.131.
        ({"name": "sepia"}, (100, 0, 0), (39, 35, 27)),
        ({"name": "sepia"}, (0, 100, 0), (77, 69, 53)),
        ({"name": "sepia"}, (0, 0, 100), (19, 17, 13)),
        ({"name": "sepia"}, (255, 255, 255), (255, 255, 239)),
        ({"name": "invert"}, (0, 100, 255), (255, 155, 0)),
        ({"name": "brightness", "factor": 1.5}, (0, 100, 200), (0, 150, 255)),
        ({"name": "brightness", "factor": 0}, (10, 100, 200), (0, 0, 0)),
        ({"name": "contrast", "factor": 2}, (0, 100, 200), (0, 73, 255)),
        ({"name": "contrast", "factor": 0.5}, (0, 100, 255), (64, 114, 191)),
        ({"name": "contrast", "factor": 0}, (0, 100, 255), (128, 128, 128)),
        ({"name": "posterize", "bits": 1}, (127, 128, 255), (0, 255, 255)),
        ({"name": "posterize", "bits": 2}, (63, 64, 191), (0, 85, 170)),
        ({"name": "posterize", "bits": 8}, (1, 128, 254), (1, 128, 254)),
    ],
)
def test_filters_of_single_colours(step: Step, colour: tuple[int, int, int], expected: tuple[int, int, int]) -> None:
    assert _one_pixel(colour, step) == expected


def test_edges_are_bright_and_areas_black() -> None:
    square = _grey(*([10, 10, 10, 10, 10], [10, 10, 10, 10, 10], [10, 10, 40, 10, 10], *[[10, 10, 10, 10, 10]] * 2))
    assert _rows(_filtered(square, {"name": "edges"})) == [
        [0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0],  # 8 · 10 - 7 · 10 - 40 = -30
        [0, 0, 240, 0, 0],  # 8 · 40 - 8 · 10
        [0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0],
    ]


def test_edges_at_the_border_are_those_of_an_image_that_goes_on_there() -> None:
    assert _rows(_filtered(_grey([10, 10, 10, 40]), {"name": "edges"})) == [[0, 0, 0, 90]]  # 8·40 - 5·40 - 3·10
    assert _filtered(Image.new("RGB", (7, 5), "white"), {"name": "edges"}).getcolors() == [(35, (0, 0, 0))]
    assert _rows(_filtered(_grey([200]), {"name": "edges"})) == [[0]]


def test_a_relief_is_lit_from_the_upper_left() -> None:
    square = _grey([0, 0, 0, 0], [0, 50, 50, 0], [0, 50, 50, 0], [0, 0, 0, 0])
    assert _rows(_filtered(square, {"name": "emboss"})) == [
        [128, 128, 128, 128],
        [128, 178, 178, 128],
        [128, 178, 128, 78],
        [128, 128, 78, 78],
    ]


@pytest.mark.parametrize("radius", [1.0, 2.0, 5.0])
def test_a_blurred_edge_is_the_integral_of_a_gaussian(radius: float) -> None:
    edge = Image.new("L", (100, 20))
    edge.paste(255, (50, 0, 100, 20))
    blurred = _rows(_filtered(edge, {"name": "blur", "radius": radius}))[10]
    ideal = [127.5 * (1 + math.erf((x + 0.5 - 50) / (radius * math.sqrt(2)))) for x in range(100)]
    assert blurred == pytest.approx(ideal, abs=5)


def test_sharpening_adds_the_difference_to_what_is_blurred() -> None:
    edge = Image.new("L", (40, 8), 100)
    edge.paste(140, (20, 0, 40, 8))
    blurred = _rows(_filtered(edge, {"name": "blur", "radius": 2.0}))[4]
    sharp = _rows(_filtered(edge, {"name": "sharpen", "radius": 2.0, "percent": 100, "threshold": 0}))[4]
    original = _rows(edge)[4]
    assert sharp == pytest.approx([2 * value - soft for value, soft in zip(original, blurred, strict=True)], abs=1)
    assert min(sharp) < 100 < 140 < max(sharp)
    assert _filtered(edge, {"name": "sharpen", "threshold": 40}).tobytes() == edge.tobytes()


def test_an_even_area_is_left_alone_by_blur_and_sharpen_up_to_its_edges() -> None:
    for step in ({"name": "blur", "radius": 250}, {"name": "sharpen", "percent": 1000}):
        assert _filtered(Image.new("RGB", (9, 4), (10, 120, 250)), step).getcolors() == [(36, (10, 120, 250))]


_ALL: tuple[Step, ...] = (
    {"name": "blur"},
    {"name": "sharpen"},
    {"name": "edges"},
    {"name": "emboss"},
    {"name": "grayscale"},
    {"name": "sepia"},
    {"name": "invert"},
    {"name": "contrast", "factor": 1.7},
    {"name": "brightness", "factor": 0.6},
    {"name": "posterize", "bits": 3},
)


@pytest.mark.parametrize("step", _ALL, ids=lambda step: str(step["name"]))
def test_no_filter_touches_transparency(step: Step) -> None:
    opaque = noise((12, 9))
    glass = opaque.copy()
    glass.putalpha(noise((12, 9)).getchannel(0))
    result = _filtered(glass, step)
    assert result.mode == "RGBA"
    assert result.getchannel("A").tobytes() == glass.getchannel("A").tobytes()
    # Colours are treated as if there were no transparency, also those that are not seen.
    assert result.convert("RGB").tobytes() == _filtered(opaque, step).convert("RGB").tobytes()


@pytest.mark.parametrize("step", _ALL, ids=lambda step: str(step["name"]))
@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (2, 2)])
def test_every_filter_takes_images_of_every_shape(step: Step, size: tuple[int, int]) -> None:
    assert _filtered(Image.new("RGB", size, "teal"), step).size == size


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("target", [None, "JPEG", "PNG", "WEBP", "AVIF"])
def test_every_format_can_be_filtered_into_every_other(kind: str, target: str | None) -> None:
    result = _filtered(halves(), {"name": "invert"}, kind=kind, format=target)
    assert result.format == (target or ("PNG" if kind == "GIF" else kind))
    assert result.convert("RGB").getpixel((3, 10)) == pytest.approx((0, 255, 255), abs=10)


def test_the_result_is_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = {"image": as_base64(file_of(halves(), "JPEG", exif=exif)), "filters": [{"name": "invert"}]}
    assert apply_filter(ApplyFilterData.model_validate(data), TaskContext()).width == 20


def test_the_order_of_filters_counts() -> None:
    image = Image.new("L", (1, 1), 100)
    dark, turned = {"name": "brightness", "factor": 0.5}, {"name": "invert"}
    assert _rows(_filtered(image, dark, turned)) == [[205]]
    assert _rows(_filtered(image, turned, dark)) == [[78]]


def test_progress_is_told_and_a_cancel_is_heard_after_every_filter() -> None:
    said: list[str] = []
    context = TaskContext(on_progress=lambda _, message: said.append(message), is_cancelled=lambda: len(said) == 2)
    with pytest.raises(ImageStoppedError):
        _filtered(halves(), {"name": "blur"}, {"name": "invert"}, {"name": "sepia"}, context=context)
    assert said == ["read 40 × 20 pixels", "applied blur"]


def test_the_cost_of_a_chain_is_bounded_and_named() -> None:
    check_cost(FILTERED_PIXELS_MAX // FILTERS_MAX, FILTERS_MAX)
    with pytest.raises(
        PermanentError, match="16 filters times 25,000,001 pixels are 400,000,016, more than 400,000,000"
    ):
        check_cost(FILTERED_PIXELS_MAX // FILTERS_MAX + 1, FILTERS_MAX)


_PIXELS = st.tuples(
    st.sampled_from(["L", "RGB", "RGBA"]), st.integers(1, 8), st.integers(1, 8), st.binary(min_size=256, max_size=256)
).map(lambda drawn: Image.frombytes(drawn[0], drawn[1:3], drawn[3][: len(drawn[0]) * drawn[1] * drawn[2]]))


def _step(*names: str, **parameters: st.SearchStrategy[Any]) -> st.SearchStrategy[Step]:
    return st.fixed_dictionaries({"name": st.sampled_from(names), **parameters})


_RADIUS = st.floats(0.1, 250)
_STEPS = st.one_of(
    _step("edges", "emboss", "grayscale", "sepia", "invert"),
    _step("blur", radius=_RADIUS),
    _step("sharpen", radius=_RADIUS, percent=st.integers(1, 1000), threshold=st.integers(0, 255)),
    _step("contrast", "brightness", factor=st.floats(0, 10)),
    _step("posterize", bits=st.integers(1, 8)),
)


def _same(one: Image.Image, other: Image.Image) -> bool:
    return one.size == other.size and one.convert("RGBA").tobytes() == other.convert("RGBA").tobytes()


@given(_PIXELS)
def test_inverting_twice_changes_nothing(image: Image.Image) -> None:
    assert _same(_filtered(image, {"name": "invert"}, {"name": "invert"}), image)


@given(
    _PIXELS, st.sampled_from([{"name": "grayscale"}, *({"name": "posterize", "bits": bits} for bits in range(1, 9))])
)
def test_grayscale_and_posterize_change_nothing_the_second_time(image: Image.Image, step: Step) -> None:
    assert _same(_filtered(image, step, step), _filtered(image, step))


@given(_PIXELS, _step("contrast", "brightness", factor=st.just(1)))
def test_a_factor_of_one_changes_nothing(image: Image.Image, step: Step) -> None:
    assert _same(_filtered(image, step), image)


@given(_PIXELS, st.lists(_STEPS, min_size=1, max_size=4))
def test_a_chain_is_one_filter_after_the_other(image: Image.Image, steps: list[Step]) -> None:
    one_by_one = image
    for step in steps:
        one_by_one = _filtered(one_by_one, step)
    assert _same(_filtered(image, *steps), one_by_one)


@pytest.mark.parametrize(
    "filters",
    [
        [],
        [{"name": "invert"}] * 17,
        "invert",
        ["invert"],
        [None],
        [{}],
        [{"name": "blurr"}],
        [{"name": "Blur"}],
        [{"name": None}],
        [{"name": "invert", "radius": 1}],
        *([{"name": "blur", "radius": radius}] for radius in (0, -1, 250.1, "2", None, True, math.nan, math.inf)),
        *([{"name": "sharpen", "percent": percent}] for percent in (0, 1001, 1.5)),
        *([{"name": "sharpen", "threshold": threshold}] for threshold in (-1, 256)),
        *([{"name": name}] for name in ("contrast", "brightness", "posterize")),
        *([{"name": "contrast", "factor": factor}] for factor in (-0.1, 10.1, "1")),
        *([{"name": "posterize", "bits": bits}] for bits in (0, 9, 2.5)),
    ],
)
def test_wrong_filters_are_refused(filters: Any) -> None:
    with pytest.raises(ValidationError):
        ApplyFilterData.model_validate({"image": "AAAA", "filters": filters})
