"""Hides parts of a crop: erased rectangles and circles, and things cut from other pictures in front of the person."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from runtime import geometry

Image = NDArray[Any]  # uint8; OpenCV does not say so
Array = NDArray[np.float64]
Patch = Callable[[tuple[int, int]], Image]
"""From (width, height) px to pixels (height, width, 3) RGB."""

MOST_HOLES, MOST_OCCLUDERS = 3, 2
HOLE_SIDES = 0.1, 0.4  # over the crop's width
OCCLUDER_SIDES = 0.15, 0.6
SPREAD = 0.1  # of occluders around key points, over the crop's width
REGION_SIDES = 0.15, 0.5  # of the piece that is cut out of another person's box, over the box's longer side


def erase(image: Image, rng: np.random.Generator) -> Image:
    """A copy of a crop (H, W, 3) with 1..MOST_HOLES holes, anywhere, each a rectangle or circle with its own fill."""
    erased, (height, width) = image.copy(), image.shape[:2]
    for _ in range(rng.integers(1, MOST_HOLES + 1)):
        size_wh = _size(rng, HOLE_SIDES, width)
        mask = np.full(size_wh[::-1], 255, np.uint8)
        if rng.random() < 0.5:
            size_wh = (size_wh[0], size_wh[0])
            mask = cv2.circle(np.zeros(size_wh, np.uint8), (size_wh[0] // 2,) * 2, size_wh[0] // 2, 255, -1)
        _lay_over(erased, _fill(image, size_wh, rng), mask, rng.uniform((0, 0), (width, height)))
    return erased


def paste(image: Image, keypoints_xy: Array, patch: Patch, rng: np.random.Generator) -> Image:
    """A copy of a crop (H, W, 3) with 1..MOST_OCCLUDERS things on it, each near one of the points (N, 2) px."""
    pasted, (height, width) = image.copy(), image.shape[:2]
    inside = keypoints_xy[((keypoints_xy >= 0) & (keypoints_xy <= (width, height))).all(1)]
    for _ in range(rng.integers(1, MOST_OCCLUDERS + 1)):
        center = inside[rng.integers(len(inside))] if len(inside) else np.array([width / 2, height / 2])
        size_wh = _size(rng, OCCLUDER_SIDES, width)
        mask = _outline(size_wh, rng)
        _lay_over(pasted, patch(size_wh), mask, center + rng.normal(0, SPREAD * width, 2))
    return pasted


def piece_of(image: Image, box_xyxy: Array, size_wh: tuple[int, int], rng: np.random.Generator) -> Image:
    """A turned and perhaps mirrored piece (height, width, 3) RGB of a box (4,) px in another picture, BGR."""
    size = np.array(image.shape[1::-1], dtype=np.float64)
    side = rng.uniform(*REGION_SIDES) * float((box_xyxy[2:] - box_xyxy[:2]).max())
    shape = np.array([1.0, size_wh[1] / size_wh[0]])
    region = shape * float(np.clip(side, 2, size.min() / np.linalg.norm(shape)))  # inside, however it is turned
    reach = np.linalg.norm(region) / 2
    center = np.clip(rng.uniform(box_xyxy[:2], box_xyxy[2:]), reach, size - reach)
    matrix = geometry.warp_matrix(center, region, size_wh, rng.uniform(-45, 45), bool(rng.random() < 0.5))
    return geometry.warp_image(image, matrix, size_wh)[:, :, ::-1]


def rendered_piece(rng: np.random.Generator, size_wh: tuple[int, int]) -> Image:
    """Smooth random colours (height, width, 3), for where there is no other picture."""
    coarse = rng.integers(0, 256, (*rng.integers(1, 5, 2), 3), dtype=np.uint8)
    return cv2.resize(coarse, size_wh, interpolation=cv2.INTER_LINEAR)


def _fill(image: Image, size_wh: tuple[int, int], rng: np.random.Generator) -> Image:
    """(height, width, 3) of noise, of the mean colour, or of another piece of the same crop."""
    width, height = size_wh
    kind = rng.integers(3)
    if kind == 0:
        return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    if kind == 1:
        return np.full((height, width, 3), np.rint(cv2.mean(image)[:3]), np.uint8)
    left, top = (
        int(rng.integers(0, max(have - want, 0) + 1)) for have, want in zip(image.shape[1::-1], size_wh, strict=True)
    )
    piece = image[top : top + height, left : left + width]
    return piece if piece.shape[:2] == (height, width) else cv2.resize(piece, size_wh)


def _outline(size_wh: tuple[int, int], rng: np.random.Generator) -> Image:
    """Mask (height, width) uint8 of a rectangle, an ellipse or a polygon; every other one has a soft edge."""
    width, height = size_wh
    mask, kind, soft = np.zeros((height, width), np.uint8), rng.integers(3), rng.random() < 0.5
    margin = min(size_wh) // 8 if soft else 0
    if kind == 0:
        mask[margin : height - margin, margin : width - margin] = 255
    elif kind == 1:
        axes = (width // 2 - margin, height // 2 - margin)
        cv2.ellipse(mask, (width // 2, height // 2), axes, 0, 0, 360, 255, -1)
    else:
        corners = rng.uniform((margin, margin), (width - margin, height - margin), (8, 2))
        cv2.fillConvexPoly(mask, cv2.convexHull(corners.astype(np.int32)), 255)
    return cv2.blur(mask, (2 * margin + 1, 2 * margin + 1), borderType=cv2.BORDER_CONSTANT) if soft else mask


def _lay_over(image: Image, patch: Image, mask: Image, center_xy: Array) -> None:
    """Blend a patch (h, w, 3) into an image around a point (2,) px, as far as the mask (h, w) says; in place."""
    (height, width), (rows, columns) = mask.shape, image.shape[:2]
    left, top = (int(v) for v in np.floor(center_xy - (width / 2, height / 2)))
    x0, y0, x1, y1 = max(left, 0), max(top, 0), min(left + width, columns), min(top + height, rows)
    if x0 >= x1 or y0 >= y1:
        return
    window = image[y0:y1, x0:x1]
    part = slice(y0 - top, y1 - top), slice(x0 - left, x1 - left)
    share = mask[part][..., None].astype(np.uint16)
    window[:] = ((255 - share) * window + share * patch[part] + 127) // 255


def _size(rng: np.random.Generator, sides: tuple[float, float], width: int) -> tuple[int, int]:
    """(width, height) px, each side for itself, in shares of a crop's width; at least 2."""
    across, down = (max(2, round(side * width)) for side in rng.uniform(*sides, 2))
    return across, down
