"""Image files for tests: drawn, or put together byte by byte where no library would write them so."""

import base64
import io
import random
import struct
import zlib
from typing import Any

from PIL import Image, ImageDraw, PngImagePlugin

KINDS = ("JPEG", "PNG", "WEBP", "AVIF", "GIF")
PNG_START = b"\x89PNG\r\n\x1a\n"


def as_base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def file_of(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def picture_of(result: dict[str, Any]) -> Image.Image:
    """The image in a result, decoded, after a look at what the result says of it."""
    content = base64.b64decode(result["image"], validate=True)
    image = Image.open(io.BytesIO(content))
    image.load()
    assert (result["width"], result["height"]) == image.size
    assert result["format"] == image.format
    assert result["bytes"] == len(content)
    return image


def halves(mode: str = "RGB", size: tuple[int, int] = (40, 20)) -> Image.Image:
    """Left half red, right half blue."""
    image = Image.new("RGB", size, "red")
    ImageDraw.Draw(image).rectangle((size[0] // 2, 0, size[0], size[1]), fill="blue")
    return image.convert(mode)


def noise(size: tuple[int, int]) -> Image.Image:
    """The same for the same size, so that a failure can be seen again."""
    return Image.frombytes("RGB", size, random.Random(7).randbytes(3 * size[0] * size[1]))


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_header(width: int, height: int, *, bits: int = 8, colour_type: int = 2) -> bytes:
    """A PNG that states its size, and ends there."""
    return PNG_START + png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, 0))


def png_file(header: bytes, pixels: bytes, *chunks: bytes) -> bytes:
    return header + b"".join(chunks) + png_chunk(b"IDAT", zlib.compress(pixels)) + png_chunk(b"IEND", b"")


def png_with(*chunks: bytes) -> bytes:
    """A good PNG with more chunks before its pixels."""
    content = file_of(halves())
    pixels = content.index(b"IDAT") - 4
    return content[:pixels] + b"".join(chunks) + content[pixels:]


def png_text_bomb() -> bytes:
    info = PngImagePlugin.PngInfo()
    info.add_text("bomb", "x" * 3_000_000, zip=True)
    return file_of(halves(), pnginfo=info)


def apng(frames: int, *, frame_size: tuple[int, int] = (1, 1)) -> bytes:
    """An animation whose frames are the same; the decoder would not take its numbers, if it came to them."""
    control = png_chunk(b"fcTL", struct.pack(">IIIIIHHBB", 0, *frame_size, 0, 0, 1, 10, 0, 0))
    return png_with(png_chunk(b"acTL", struct.pack(">II", frames, 0)), control * frames)


def gif(frames: int, *, screen: tuple[int, int] = (1, 1), last_frame: tuple[int, int] = (1, 1)) -> bytes:
    """An animation in black; all frames but the last have one pixel."""

    def frame(width: int, height: int) -> bytes:
        return b"," + struct.pack("<4HB", 0, 0, width, height, 0) + b"\x02\x02\x44\x01\x00"

    palette = bytes(6)
    header = b"GIF89a" + struct.pack("<HHBBB", *screen, 0x80, 0, 0) + palette
    return header + frame(1, 1) * (frames - 1) + frame(*last_frame) + b";"


def webp(frames: int, *, canvas: tuple[int, int] = (1, 1), last_frame: tuple[int, int] = (1, 1)) -> bytes:
    """An animation whose frames are the same pixel, whatever size the last one states."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return kind + struct.pack("<I", len(body)) + body + bytes(len(body) % 2)

    def u24(*numbers: int) -> bytes:
        return b"".join(struct.pack("<I", number)[:3] for number in numbers)

    pixel = file_of(Image.new("RGB", (1, 1), "red"), "WEBP", lossless=True)[12:]

    def frame(width: int, height: int) -> bytes:
        return chunk(b"ANMF", u24(0, 0, width - 1, height - 1, 100) + b"\0" + pixel)

    body = chunk(b"VP8X", struct.pack("<I", 2) + u24(canvas[0] - 1, canvas[1] - 1)) + chunk(b"ANIM", bytes(6))
    body += frame(1, 1) * (frames - 1) + frame(*last_frame)
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body


def jpeg_of_scans(scans: int) -> bytes:
    """A progressive JPEG whose last scan is repeated until there are so many."""
    content = file_of(halves(), "JPEG", progressive=True)
    parts = content.removesuffix(b"\xff\xd9").split(b"\xff\xda")
    return b"\xff\xda".join([*parts, *[parts[-1]] * (scans + 1 - len(parts))]) + b"\xff\xd9"
