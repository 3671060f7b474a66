"""Skeletons on pictures: colours tell the body's sides apart, sizes follow the person's size."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from runtime.geometry import Image

SCORE_THRESHOLD = 0.3  # under it a key point is faint, under half of it hidden
COLOURS_BGR = {"left": (60, 150, 255), "right": (255, 170, 50), "middle": (130, 225, 130)}  # orange, blue, green
OUTLINE_BGR = (35, 30, 30)
FAINT_OPACITY = 0.35
FACE_ENDINGS, FACE_SHARE = ("nose", "eye", "ear"), 0.6  # points of the face lie close together: drawn smaller
LIMB_SHARE, MIN_LIMB_PX = 1 / 55, 1.0  # line width: of the pose's diagonal, and at least
SUBPIXEL_BITS = 4  # OpenCV draws at fractions of 1 / 2^4 px
MAX_COORDINATE_PX = 1e5

Color = tuple[int, int, int]


def draw_poses(
    image_bgr: Image,
    keypoints_xy: NDArray[np.float32],
    scores: NDArray[np.float32],
    names: Sequence[str],
    skeleton: Sequence[tuple[int, int]],
    threshold: float = SCORE_THRESHOLD,
) -> Image:
    """Draw N persons on a copy of the image.

    Args:
        image_bgr: (H, W, 3) uint8.
        keypoints_xy: (N, K, 2) px, continuous image coordinates.
        scores: (N, K) in [0, 1].
        names: K key-point names; the prefix left_ or right_ decides the colour.
        skeleton: limbs as index pairs.
        threshold: limbs whose worse end is under it are faint, under half of it hidden.
    """
    canvas = np.ascontiguousarray(image_bgr).copy()
    for person_xy, person_scores in zip(keypoints_xy, scores, strict=True):
        sure, shown = person_scores >= threshold, person_scores >= threshold / 2
        if (shown & ~sure).any():
            faint = canvas.copy()
            _draw_person(faint, person_xy, shown, names, skeleton)
            cv2.addWeighted(faint, FAINT_OPACITY, canvas, 1 - FAINT_OPACITY, 0, dst=canvas)
        _draw_person(canvas, person_xy, sure, names, skeleton)
    return canvas


def draw_text(image_bgr: Image, text: str) -> None:
    """Write one line into the top left corner, in place."""
    size = max(image_bgr.shape[0] / 720, 0.5)
    origin = (round(12 * size), round(30 * size))
    for color, thickness in ((OUTLINE_BGR, 4), ((255, 255, 255), 1)):
        cv2.putText(
            image_bgr,
            text,
            origin,
            cv2.FONT_HERSHEY_SIMPLEX,
            0.8 * size,
            color,
            round(thickness * size) or 1,
            cv2.LINE_AA,
        )


def side_of(name: str) -> str:
    """ "left", "right" or "middle", the person's own side."""
    prefix = name.split("_")[0]
    return prefix if prefix in ("left", "right") else "middle"


def limb_width_px(keypoints_xy: NDArray[np.float32], image_bgr: Image) -> float:
    """Line width that suits the person, a share of the pose's diagonal, and never outgrows the image."""
    extent = np.clip(keypoints_xy, -MAX_COORDINATE_PX, MAX_COORDINATE_PX)
    diagonal = float(np.linalg.norm(extent.max(axis=0) - extent.min(axis=0))) if len(extent) else 0.0
    largest = max(min(image_bgr.shape[:2]) * LIMB_SHARE, MIN_LIMB_PX)
    return float(np.clip(diagonal * LIMB_SHARE, MIN_LIMB_PX, largest))


def _draw_person(
    canvas: Image,
    keypoints_xy: NDArray[np.float32],
    shown: NDArray[np.bool_],
    names: Sequence[str],
    skeleton: Sequence[tuple[int, int]],
) -> None:
    """Limbs, then key points, in place: a dark outline under each."""
    sides = [side_of(name) for name in names]
    width = limb_width_px(keypoints_xy[shown], canvas)
    widths = [width * (FACE_SHARE if name.endswith(FACE_ENDINGS) else 1) for name in names]
    limbs = [(a, b) for a, b in skeleton if shown[a] and shown[b]]
    for share, dark in ((1.6, True), (1.0, False)):
        for a, b in limbs:
            color = OUTLINE_BGR if dark else COLOURS_BGR[sides[a] if sides[a] == sides[b] else "middle"]
            _line(canvas, keypoints_xy[a], keypoints_xy[b], color, share * min(widths[a], widths[b]))
    for index in np.flatnonzero(shown):
        _disc(canvas, keypoints_xy[index], OUTLINE_BGR, widths[index] * 1.2)
        _disc(canvas, keypoints_xy[index], COLOURS_BGR[sides[index]], widths[index] * 0.9)


def _line(canvas: Image, start: NDArray[np.float32], end: NDArray[np.float32], color: Color, width: float) -> None:
    cv2.line(canvas, _fixed(start), _fixed(end), color, max(round(width), 1), cv2.LINE_AA, SUBPIXEL_BITS)


def _disc(canvas: Image, center: NDArray[np.float32], color: Color, radius: float) -> None:
    fixed_radius = max(round(radius * 2**SUBPIXEL_BITS), 1)
    cv2.circle(canvas, _fixed(center), fixed_radius, color, cv2.FILLED, cv2.LINE_AA, SUBPIXEL_BITS)


def _fixed(point_xy: NDArray[np.float32]) -> tuple[int, int]:
    """Continuous px -> OpenCV's fixed-point pixel indices."""
    index = np.clip(point_xy, -MAX_COORDINATE_PX, MAX_COORDINATE_PX) - 0.5
    x, y = np.rint(index * 2**SUBPIXEL_BITS).astype(int).tolist()
    return x, y
