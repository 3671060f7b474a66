"""How large a picture is, from the first bytes of its file and without decoding: PNG, JPEG, BMP, WebP, TIFF.

Only what can be measured is decoded. Everything else that OpenCV knows (JPEG 2000, OpenEXR, PNM, AVIF, ...) is refused,
whatever its name ends with, because a file of a few bytes can announce gigabytes.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

FORMATS = "PNG, JPEG, BMP, WebP and TIFF"
JPEG_FRAMES = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # SOF markers: between them lie tables of other kinds
JPEG_ALONE = {0x01, *range(0xD0, 0xD9)}  # markers without a length
TIFF_VALUES = {1: "B", 3: "H", 4: "I", 16: "Q"}  # entry type -> struct code: BYTE, SHORT, LONG, LONG8
TIFF_SIDES = {256: "width", 257: "height", 322: "tile width", 323: "tile height"}
MAX_TIFF_ENTRIES = 4096


def is_picture(encoded: bytes) -> bool:
    """Whether a file's first 16 bytes, or more, are those of such a picture."""
    return any(is_format(encoded) for is_format, _ in _FORMATS)


def picture_size_wh(encoded: bytes) -> tuple[int, int] | None:
    """Width and height in px that the header announces; None for an unknown format or a header that is cut off.

    Of a tiled TIFF it is the larger of picture and tile, because a decoder holds a whole tile.
    """
    for is_format, measure in _FORMATS:
        if is_format(encoded):
            try:
                return measure(encoded)
            except (struct.error, IndexError):
                return None
    return None


def _png(encoded: bytes) -> tuple[int, int]:
    width, height = struct.unpack_from(">II", encoded, 16)
    return width, height


def _jpeg(encoded: bytes) -> tuple[int, int] | None:
    """Walk the segments to the frame header; a thumbnail inside a segment is jumped over."""
    position = 2
    while encoded[position] == 0xFF:
        marker = encoded[position + 1]
        if marker == 0xFF:  # fill byte
            position += 1
        elif marker in JPEG_FRAMES:
            height, width = struct.unpack_from(">HH", encoded, position + 5)
            return width, height
        else:
            length = 0 if marker in JPEG_ALONE else struct.unpack_from(">H", encoded, position + 2)[0]
            position += 2 + length
    return None


def _bmp(encoded: bytes) -> tuple[int, int]:
    """Rows from the top down have a negative height."""
    (header_size,) = struct.unpack_from("<I", encoded, 14)
    width, height = struct.unpack_from("<HH" if header_size == 12 else "<ii", encoded, 18)
    return abs(width), abs(height)


def _webp(encoded: bytes) -> tuple[int, int] | None:
    chunk = encoded[12:16]
    if chunk == b"VP8X":  # canvas of the extended form
        return 1 + int.from_bytes(encoded[24:27], "little"), 1 + int.from_bytes(encoded[27:30], "little")
    if chunk == b"VP8L":  # two numbers of 14 bits
        (bits,) = struct.unpack_from("<I", encoded, 21)
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    width, height = struct.unpack_from("<HH", encoded, 26)  # VP8: two bits of scale above each
    return (width & 0x3FFF, height & 0x3FFF) if chunk == b"VP8 " else None


def _tiff(encoded: bytes) -> tuple[int, int] | None:
    """The first directory; in BigTIFF counts and offsets have eight bytes."""
    order = "<" if encoded[:2] == b"II" else ">"
    big = struct.unpack_from(order + "H", encoded, 2)[0] == 43
    start = struct.unpack_from(order + ("Q" if big else "I"), encoded, 8 if big else 4)[0]
    count = struct.unpack_from(order + ("Q" if big else "H"), encoded, start)[0]
    sides: dict[str, int] = {}
    for entry in range(min(count, MAX_TIFF_ENTRIES)):
        at = start + (8 + 20 * entry if big else 2 + 12 * entry)
        tag, kind = struct.unpack_from(order + "HH", encoded, at)
        if tag in TIFF_SIDES and kind in TIFF_VALUES:
            side = struct.unpack_from(order + TIFF_VALUES[kind], encoded, at + (12 if big else 8))[0]
            sides[TIFF_SIDES[tag]] = max(side, sides.get(TIFF_SIDES[tag], 0))  # of a tag that is there twice
    if not {"width", "height"} <= set(sides):
        return None
    return max(sides["width"], sides.get("tile width", 0)), max(sides["height"], sides.get("tile height", 0))


_FORMATS: tuple[tuple[Callable[[bytes], bool], Callable[[bytes], tuple[int, int] | None]], ...] = (
    (lambda encoded: encoded[:8] == b"\x89PNG\r\n\x1a\n" and encoded[12:16] == b"IHDR", _png),
    (lambda encoded: encoded[:3] == b"\xff\xd8\xff", _jpeg),
    (lambda encoded: encoded[:2] == b"BM", _bmp),
    (lambda encoded: encoded[:4] == b"RIFF" and encoded[8:12] == b"WEBP", _webp),
    (lambda encoded: encoded[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), _tiff),
)
