"""What image files say of themselves, read without decoding a pixel: their format, their size, their frames.

Decoders allocate what the first header asks for, some of them already when they open a file, and look at the rest only
when they come to it. So the file is walked from header to header first, and whatever is too large, cut off or endless
is refused before a decoder sees it. After the specifications: JPEG (ITU-T T.81, 1992, annex B), PNG (W3C, third edition
with APNG, 2025, sections 5 and 11), GIF89a (CompuServe, 1990), WebP (RFC 9649). For AVIF the decoder does the same
itself, when it opens a file.
"""

import re
import struct
import zlib
from collections.abc import Callable, Iterator

from headrace.tasks import PermanentError

INPUT_PIXELS_MAX = 50_000_000
FRAMES_MAX = 1000
# A scan may have a few bytes and makes the decoder go over all pixels; encoders write about ten.
SCANS_MAX = 100

Size = tuple[int, int]

# Brands in the first box of ISO base media files (ISO/IEC 14496-12), which AVIF and HEIC are.
_AVIF_BRANDS = (b"avif", b"avis")
_HEIC_BRANDS = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")

_OTHER_FORMATS = {
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",
    b"%!PS": "PostScript",
    b"\xc5\xd0\xd3\xc6": "PostScript",
    b"%PDF": "PDF",
    b"<svg": "SVG",
    b"<?xml": "SVG",
    b"<!DOCTYPE svg": "SVG",
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
    b"\xb1\x68\xde\x3a": "DCX",
    b"icns": "ICNS",
    b"P1": "PBM",
    b"P2": "PGM",
    b"P3": "PPM",
    b"P4": "PBM",
    b"P5": "PGM",
    b"P6": "PPM",
    b"PK\3\4": "ZIP",
    b"\x1f\x8b": "gzip",
}


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
    if content[4:8] == b"ftyp":
        brands = _brands(content)
        if any(brand in _AVIF_BRANDS for brand in brands):
            return "AVIF"
        if any(brand in _HEIC_BRANDS for brand in brands):
            raise PermanentError("unsupported_format", "HEIC files are not taken in.")
    text = content[:100].lstrip(b"\xef\xbb\xbf \t\r\n")
    for start, name in _OTHER_FORMATS.items():
        if content.startswith(start) or text.startswith(start):
            raise PermanentError("unsupported_format", f"{name} files are not taken in.")
    raise PermanentError("invalid_image", "The data are not an image file of a known format.")


def check_headers(content: bytes, source_format: str) -> None:
    """Refuse a file whose headers are broken, cut off, or ask for too much, in any of its frames.

    PermanentError `invalid_image` or `unsafe_image`.
    """
    walk = _WALKS.get(source_format)
    if walk is None:
        return
    try:
        for number, size in enumerate(walk(content)):
            check_frames(number)  # the first header is that of the whole image
            check_size(size)
    except (struct.error, IndexError) as error:
        raise PermanentError("invalid_image", "The image file is cut off, or its headers are broken.") from error


def check_size(size: Size) -> None:
    """Refuse an image or a frame of this size: PermanentError `invalid_image` without pixels, `unsafe_image`."""
    width, height = size
    if width < 1 or height < 1:
        raise PermanentError("invalid_image", "The image has no pixels.")
    if width * height > INPUT_PIXELS_MAX:
        raise PermanentError(
            "unsafe_image", f"The image has {width} × {height} pixels, more than {INPUT_PIXELS_MAX:,} in all."
        )


def check_frames(count: int) -> None:
    """Refuse an animation of so many frames: PermanentError `unsafe_image`."""
    if count > FRAMES_MAX:
        raise PermanentError("unsafe_image", f"The animation has more than {FRAMES_MAX:,} frames.")


def _brands(content: bytes) -> list[bytes]:
    """Return the major brand and those that the file says it is compatible with."""
    end = min(int.from_bytes(content[:4], "big"), 256)
    return [content[8:12], *(content[start : start + 4] for start in range(16, end, 4))]


def _jpeg_sizes(content: bytes) -> Iterator[Size]:
    """The size of the image. What follows its end is never looked at: previews, depth maps and films of cameras."""
    position, scans = 2, 0
    while found := _JPEG_MARKER.search(content, position):
        marker, position = found[1][0], found.end()
        if marker == _JPEG_END:
            return
        if marker in _JPEG_FRAMES:
            height, width = struct.unpack_from(">HH", content, position + 3)
            yield width, height
        elif marker == _JPEG_SCAN:
            scans += 1
            if scans > SCANS_MAX:
                raise PermanentError("unsafe_image", f"The image is built up in more than {SCANS_MAX} scans.")
        (length,) = struct.unpack_from(">H", content, position)
        position += length
    raise PermanentError("invalid_image", "The image file is cut off.")


# In the data of a scan, FF is followed by 0 where it is data, or by a restart marker.
_JPEG_MARKER = re.compile(rb"\xff([^\x00\x01\xff\xd0-\xd8])")
_JPEG_END = 0xD9
_JPEG_SCAN = 0xDA
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


def _png_sizes(content: bytes) -> Iterator[Size]:
    """The size of the image and of each frame. All checksums are checked, as decoders leave out those of the pixels."""
    position, kind, profiles = 8, b"", 0
    while kind != b"IEND":
        length, kind = struct.unpack_from(">I4s", content, position)
        start, end = position + 8, position + 8 + length
        if kind == b"IHDR":
            yield struct.unpack_from(">II", content, start)
        elif kind == b"fcTL":
            yield struct.unpack_from(">II", content, start + 4)
        elif kind == b"iCCP":
            profiles += 1
            if profiles > 1:
                # The decoder would inflate every one of them.
                raise PermanentError("invalid_image", "The PNG has more than one colour profile.")
        (checksum,) = struct.unpack_from(">I", content, end)
        if checksum != zlib.crc32(memoryview(content)[start - 4 : end]):
            raise PermanentError("invalid_image", f"The checksum of chunk {kind!r} is wrong.")
        position = end + 4


def _gif_sizes(content: bytes) -> Iterator[Size]:
    """The size of the screen, and how far over it each frame reaches, since decoders enlarge the screen for it."""
    yield struct.unpack_from("<HH", content, 6)
    position = 13 + _gif_palette_bytes(content[10])
    while (block := content[position]) != _GIF_END:
        if block == _GIF_FRAME:
            left, top, width, height, flags = struct.unpack_from("<4HB", content, position + 1)
            yield (left + width, top + height) if width and height else (0, 0)
            position += 11 + _gif_palette_bytes(flags)
        elif block == _GIF_EXTENSION:
            position += 2
        elif block:
            raise PermanentError("invalid_image", f"The GIF has an unknown block of type {block}.")
        # A stray 0 between blocks, as some programs leave it, ends an empty list of parts.
        while part_bytes := content[position]:
            position += 1 + part_bytes
        position += 1


_GIF_END = 0x3B
_GIF_FRAME = 0x2C
_GIF_EXTENSION = 0x21


def _gif_palette_bytes(flags: int) -> int:
    return 3 * 2 ** ((flags & 7) + 1) if flags & 0x80 else 0


def _webp_sizes(content: bytes) -> Iterator[Size]:
    """The size of the image and of each frame."""
    end = 8 + struct.unpack_from("<I", content, 4)[0]
    if end > len(content):
        raise PermanentError("invalid_image", "The image file is cut off.")
    position = 12
    while position < end:
        kind, length = struct.unpack_from("<4sI", content, position)
        start = position + 8
        if kind == b"VP8 ":
            width, height = struct.unpack_from("<HH", content, start + 6)
            yield width & 0x3FFF, height & 0x3FFF
        elif kind == b"VP8L":
            bits = _uint(content, start + 1, 4)
            yield (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        elif kind == b"VP8X":
            yield _uint(content, start + 4, 3) + 1, _uint(content, start + 7, 3) + 1
        elif kind == b"ANMF":
            yield _uint(content, start + 6, 3) + 1, _uint(content, start + 9, 3) + 1
        position = start + length + length % 2


def _uint(content: bytes, start: int, size: int) -> int:
    return int.from_bytes(content[start : start + size], "little")


_WALKS: dict[str, Callable[[bytes], Iterator[Size]]] = {
    "JPEG": _jpeg_sizes,
    "PNG": _png_sizes,
    "GIF": _gif_sizes,
    "WEBP": _webp_sizes,
}
