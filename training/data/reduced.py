"""Decodes JPEG pictures at 1/2, 1/4 or 1/8 of their size, where a crop shows no more than that.

A JPEG decoder makes such a picture from 4x4, 2x2 or 1x1 coefficients of each 8x8 block: it is faster, the pixels are
means of squares, and so continuous coordinates are the picture's own divided by the reduction. Only training reads
this way; evaluation cuts the whole picture, as the runtime does.
"""

from __future__ import annotations

import struct

import cv2
import numpy as np
from numpy.typing import NDArray

from training.data.picture import Picture, decode, read_encoded

FLAGS = {8: cv2.IMREAD_REDUCED_COLOR_8, 4: cv2.IMREAD_REDUCED_COLOR_4, 2: cv2.IMREAD_REDUCED_COLOR_2}
NO_FRAME = (0xC4, 0xC8, 0xCC)  # markers among C0..CF that are tables and extensions


def reduction_for(matrix: NDArray[np.float64]) -> int:
    """1, 2, 4 or 8: how much smaller a picture may be before it is coarser than the crop of a matrix (2, 3)."""
    scale = float(np.sqrt(abs(np.linalg.det(matrix[:, :2]))))  # crop px per picture px
    return next((reduction for reduction in FLAGS if reduction * scale <= 1), 1)


def read_reduced(path: Picture, reduction: int) -> tuple[NDArray[np.uint8], int]:
    """A picture (H, W, 3) uint8 BGR, and how much smaller it is: `reduction`, or 1 where that would not be exact.

    Raises:
        InputError: it is missing, damaged or truncated.
    """
    encoded = read_encoded(path)
    if reduction not in FLAGS or not _is_exact(encoded, reduction):
        return decode(encoded, path), 1
    return decode(encoded, path, FLAGS[reduction]), reduction


def _is_exact(encoded: bytes, reduction: int) -> bool:
    """Whether decoding divides coordinates by the reduction and does nothing else.

    Other formats are resized to rounded sizes. In a JPEG, blocks that the edge cuts shift the picture if EXIF then asks
    to turn or mirror it.
    """
    size_wh = jpeg_size_wh(encoded)
    return size_wh is not None and (b"Exif\0\0" not in encoded or not any(side % reduction for side in size_wh))


def jpeg_size_wh(encoded: bytes) -> tuple[int, int] | None:
    """Width and height px that a JPEG's frame header tells; None for other formats and broken files."""
    place = 2 if encoded.startswith(b"\xff\xd8") else len(encoded)
    while place + 9 <= len(encoded) and encoded[place] == 0xFF:
        marker = encoded[place + 1]
        if 0xC0 <= marker <= 0xCF and marker not in NO_FRAME:
            height, width = struct.unpack(">HH", encoded[place + 5 : place + 9])
            return width, height
        (length,) = struct.unpack(">H", encoded[place + 2 : place + 4])
        place += 2 + length
    return None
