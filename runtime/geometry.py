"""Crop geometry: one matrix cuts the crop, its inverse carries the key points back.

Coordinates are continuous: the centre of the pixel in column i, row j is (i + 0.5, j + 0.5), and an image
spans [0, width] x [0, height]. Only `warp_image` shifts the matrix to OpenCV's pixel indices.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from runtime.errors import InputError

Array = NDArray[np.float64]
Image = NDArray[np.uint8]
MAX_COORDINATE_PX = 1e6  # beyond it a box is a mistake, and OpenCV's fixed point overflows


def box_to_center_scale(box_xyxy: Array, input_size_wh: tuple[int, int], padding: float = 1.25) -> tuple[Array, Array]:
    """Extend a box to the crop's aspect ratio, then by `padding` (paper, section 4.1).

    Args:
        box_xyxy: (4,) px, continuous image coordinates.
        input_size_wh: crop size (width, height) in px.
        padding: factor on both sides of the extended box; 1.25 leaves a margin of one eighth on each edge.
    Returns:
        center (2,) px and scale (2,) px: width and height of the region that the crop shows.
    """
    x, y, width, height = _extended([float(v) for v in box_xyxy], input_size_wh, padding)
    return np.array([x, y]), np.array([width, height])


def warp_matrix(
    center: Array, scale: Array, input_size_wh: tuple[int, int], rotation_deg: float = 0.0, flip: bool = False
) -> Array:
    """Matrix (2, 3) that maps image coordinates to crop coordinates, both continuous, in px.

    Args:
        center: (2,) px, the image point that lands in the crop's middle.
        scale: (2,) px, width and height of the image region that the crop shows.
        input_size_wh: crop size (width, height) in px.
        rotation_deg: counter-clockwise turn of the content as seen on screen.
        flip: mirror the crop left to right (after the rotation).
    """
    width, height = input_size_wh
    angle = np.deg2rad(rotation_deg)
    rotation = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])  # y points down
    linear = np.diag([width / scale[0], height / scale[1]]) @ rotation
    if flip:
        linear = np.diag([-1.0, 1.0]) @ linear
    offset = np.array([width / 2, height / 2]) - linear @ np.asarray(center, dtype=np.float64)
    return np.column_stack([linear, offset])


def crop_region(
    box_xyxy: Sequence[float], input_size_wh: tuple[int, int], padding: float
) -> tuple[float, float, float, float]:
    """What the crop of a box shows, as x1, y1, x2, y2 px of the image: `box_to_center_scale`'s answer in plain floats.

    A crop that is not turned maps this region onto itself: `warp_matrix` of center and scale does the same.
    """
    x, y, width, height = _extended(box_xyxy, input_size_wh, padding)
    return x - width / 2, y - height / 2, x + width / 2, y + height / 2


def _extended(
    box_xyxy: Sequence[float], input_size_wh: tuple[int, int], padding: float
) -> tuple[float, float, float, float]:
    """Centre, width and height of a box brought to the crop's aspect ratio and padded, in px."""
    x1, y1, x2, y2 = box_xyxy
    aspect = input_size_wh[0] / input_size_wh[1]
    width = max(x2 - x1, (y2 - y1) * aspect)
    return (x1 + x2) / 2, (y1 + y2) / 2, width * padding, width / aspect * padding


def invert_matrix(matrix: Array) -> Array:
    """Inverse (..., 2, 3) of affine matrices (..., 2, 3)."""
    linear = np.linalg.inv(matrix[..., :2])
    return np.concatenate([linear, -linear @ matrix[..., 2:]], axis=-1)


def transform_points(points_xy: Array, matrix: Array) -> Array:
    """Apply a matrix (2, 3) to points (..., 2); same frame in as the matrix's source, out as its target."""
    return np.asarray(points_xy, dtype=np.float64) @ matrix[:, :2].T + matrix[:, 2]


def warp_image(image: Image, matrix: Array, input_size_wh: tuple[int, int], out: Image | None = None) -> Image:
    """Cut the crop (H, W, 3) uint8 that `matrix` describes; bilinear, black outside the image."""
    shifted = matrix.copy()  # index = continuous - 0.5 on both sides
    shifted[:, 2] += 0.5 * (matrix[:, 0] + matrix[:, 1]) - 0.5
    return cv2.warpAffine(image, shifted, input_size_wh, dst=out, flags=cv2.INTER_LINEAR)  # type: ignore[return-value]


def refuse_bad_boxes(boxes_xyxy: Array, image_size_wh: tuple[int, int]) -> None:
    """InputError names the first of the boxes (N, 4) px that no crop can be cut for, and says why."""
    for row, box in enumerate(boxes_xyxy.tolist()):
        problem = box_problem(box, image_size_wh)
        if problem:
            raise InputError(f"boxes_xyxy[{row}] is {box}: {problem}")


def box_problem(box_xyxy: Sequence[float], image_size_wh: tuple[int, int]) -> str:
    """Why a box, x1, y1, x2, y2 px, cannot be used, "" if it can."""
    x1, y1, x2, y2 = box_xyxy
    width, height = image_size_wh
    if not all(map(math.isfinite, box_xyxy)):
        return "not finite"
    if x2 <= x1 or y2 <= y1:
        return "inverted or empty, legal is x1 < x2 and y1 < y2"
    if x2 <= 0 or y2 <= 0 or x1 >= width or y1 >= height:
        return f"fully outside the image of {width} x {height} px"
    if max(map(abs, box_xyxy)) > MAX_COORDINATE_PX:
        return f"further than {MAX_COORDINATE_PX:.0f} px from the image's corner"
    if max(x2 - x1, y2 - y1) < 1:
        return "smaller than a pixel"
    return ""
