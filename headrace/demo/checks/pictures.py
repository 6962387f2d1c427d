"""Results about pictures."""

import base64
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from headrace.demo.checks.requirements import require


def picture_findings(result: Mapping[str, Any], before: bytes, *, size: tuple[int, int], target: Path) -> list[str]:
    """Compare the new picture with what was asked for, and write it to `target`."""
    after = base64.b64decode(result["image"], validate=True)
    found = _size_and_format(after)
    require(found == (size, result["format"]), f"image_resize made {found} and calls it {result['format']}")
    target.write_bytes(after)
    return [f"{_picture(before)} became {_picture(after)}"]


def sepia_findings(result: Mapping[str, Any], before: bytes, target: Path) -> list[str]:
    """Sepia leaves no pixel with more green than red, or more blue than green. The picture goes to `target`."""
    after = base64.b64decode(result["image"], validate=True)
    size, _ = _size_and_format(before)
    require(_size_and_format(after)[0] == size, "apply_filter changed the size of the picture")
    with Image.open(io.BytesIO(after)) as image:
        small = image.convert("RGB").resize((64, 48))
    pixels = [small.getpixel((x, y)) for x in range(64) for y in range(48)]
    # JPEG does not keep a colour exactly.
    slack = 6
    require(
        all(isinstance(p, tuple) and p[0] + slack >= p[1] and p[1] + slack >= p[2] for p in pixels),
        "apply_filter did not make the picture sepia",
    )
    target.write_bytes(after)
    return [f"{_picture(before)} became {_picture(after)}, in sepia and sharper"]


def _size_and_format(content: bytes) -> tuple[tuple[int, int], str | None]:
    """Decode the whole picture, not only its header."""
    with Image.open(io.BytesIO(content)) as image:
        image.load()
        return image.size, image.format


def _picture(content: bytes) -> str:
    (width, height), name = _size_and_format(content)
    return f"{width} x {height} {name} of {len(content) / 1024:,.0f} KiB"
