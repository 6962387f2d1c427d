"""Draws a water mill at dusk: hills, a house, the headrace, and a wheel with its buckets."""

import math

from PIL import Image, ImageDraw

_SKY_TOP, _SKY_LOW = (24, 38, 78), (244, 176, 122)
_HILL_FAR, _HILL_NEAR = (74, 84, 112), (44, 62, 66)
_WALL, _ROOF, _WINDOW = (196, 178, 150), (96, 50, 42), (255, 214, 120)
_WOOD, _WOOD_LIGHT, _WATER, _FOAM = (70, 46, 30), (124, 84, 52), (70, 130, 170), (214, 236, 246)
_BUCKETS = 18
_SPOKES = 9
# Everything is drawn this much larger and then made smaller: that smooths its edges.
_OVERSAMPLING = 2

Point = tuple[float, float]


def draw_mill(size: tuple[int, int]) -> Image.Image:
    """Return the picture; always the same one for the same size."""
    width, height = size[0] * _OVERSAMPLING, size[1] * _OVERSAMPLING
    image = _sky(width, height)
    draw = ImageDraw.Draw(image)
    _hills(draw, width, height)
    _house(draw, width, height)
    _stream(draw, width, height)
    _wheel(draw, (width * 0.52, height * 0.62), height * 0.25)
    return image.resize(size, Image.Resampling.LANCZOS)


def _sky(width: int, height: int) -> Image.Image:
    column = Image.new("RGB", (1, height))
    for y in range(height):
        share = y / (height - 1)
        column.putpixel((0, y), _mix(_SKY_TOP, _SKY_LOW, share))
    image = column.resize((width, height))
    draw = ImageDraw.Draw(image)
    left, top, size = width * 0.13, height * 0.18, height * 0.12
    draw.ellipse((left, top, left + size, top + size), fill=(252, 236, 200))
    return image


def _mix(first: tuple[int, int, int], second: tuple[int, int, int], share: float) -> tuple[int, int, int]:
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(first, second, strict=True))
    return red, green, blue


def _hills(draw: ImageDraw.ImageDraw, width: int, height: int) -> None:
    for color, level, swing, waves in ((_HILL_FAR, 0.55, 0.07, 2.2), (_HILL_NEAR, 0.70, 0.04, 3.4)):
        ridge: list[Point] = [
            (x, height * (level - swing * math.sin(waves * math.pi * x / width + level)))
            for x in range(0, width + 1, max(1, width // 200))
        ]
        draw.polygon([*ridge, (width, height), (0, height)], fill=color)


def _house(draw: ImageDraw.ImageDraw, width: int, height: int) -> None:
    left, right, top, ground = width * 0.62, width * 0.92, height * 0.42, height * 0.84
    draw.rectangle((left, top, right, ground), fill=_WALL)
    middle = (left + right) / 2
    draw.polygon([(left - width * 0.03, top), (middle, height * 0.24), (right + width * 0.03, top)], fill=_ROOF)
    pane = width * 0.035
    for column in (0.25, 0.55, 0.82):
        for row in (0.2, 0.55):
            x, y = left + (right - left) * column, top + (ground - top) * row
            draw.rectangle((x, y, x + pane, y + pane * 1.3), fill=_WINDOW, outline=_WOOD, width=max(1, width // 400))


def _stream(draw: ImageDraw.ImageDraw, width: int, height: int) -> None:
    """The headrace comes from the left on its posts; the tailrace leaves below the wheel."""
    level, bed = height * 0.335, height * 0.36
    for x in (0.05, 0.18, 0.31, 0.44):
        draw.rectangle((width * x, bed, width * (x + 0.012), height * 0.86), fill=_WOOD)
    draw.rectangle((0, level, width * 0.50, bed), fill=_WOOD_LIGHT)
    draw.rectangle((0, level - height * 0.012, width * 0.50, level), fill=_WATER)
    draw.rectangle((0, height * 0.84, width, height), fill=_WATER)
    for number in range(14):
        x, y = width * (number * 0.37 % 1.0), height * (0.86 + number * 0.009)
        draw.line((x, y, x + width * 0.09, y), fill=_FOAM, width=max(1, height // 400))


def _wheel(draw: ImageDraw.ImageDraw, center: Point, radius: float) -> None:
    thick = max(2, round(radius * 0.05))
    for number in range(_BUCKETS):
        angle = 2 * math.pi * number / _BUCKETS
        corners = [
            _at(center, radius * far, angle + turn) for far, turn in ((0.86, 0), (1.1, 0.05), (1.1, 0.2), (0.86, 0.13))
        ]
        # The water of the headrace fills the buckets that go down.
        fill = _WATER if -math.pi / 2 < math.atan2(math.sin(angle), math.cos(angle)) < math.pi / 2.6 else _WOOD_LIGHT
        draw.polygon(corners, fill=fill, outline=_WOOD, width=max(1, thick // 3))
    for share in (1.0, 0.86):
        _ring(draw, center, radius * share, thick)
    for number in range(_SPOKES):
        angle = 2 * math.pi * number / _SPOKES
        draw.line((*center, *_at(center, radius * 0.9, angle)), fill=_WOOD, width=thick)
    hub = radius * 0.12
    draw.ellipse((center[0] - hub, center[1] - hub, center[0] + hub, center[1] + hub), fill=_WOOD)


def _ring(draw: ImageDraw.ImageDraw, center: Point, radius: float, thick: int) -> None:
    box = (center[0] - radius, center[1] - radius, center[0] + radius, center[1] + radius)
    draw.ellipse(box, outline=_WOOD, width=thick)


def _at(center: Point, distance: float, angle: float) -> Point:
    return center[0] + distance * math.cos(angle), center[1] + distance * math.sin(angle)
