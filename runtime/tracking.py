"""Following one person: the whole frame first, then a box around the last pose."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from runtime.results import PoseResult

CONFIDENT_SCORE = 0.2  # key points under it do not shape the box
MIN_CONFIDENT_SHARE = 0.3  # of the key points; with fewer, the person is lost
MIN_SIDE_PX = 16  # of a box that is worth a crop
MARGIN = 0.15  # of the pose's extent, on each edge: key points end before the body does
FOLLOW_RATE = 0.6  # share of the last pose in the next box; the rest is the previous box
MIN_OVERLAP = 0.3  # IoU under which the box jumps instead of gliding

Box = NDArray[np.float64]


class Follower:
    """Remembers where the person is. One per video: give `boxes_xyxy` to the next call, its result to `update`."""

    def __init__(self) -> None:
        self.box_xyxy: Box | None = None  # (4,) px; None = unknown, search the whole frame

    @property
    def boxes_xyxy(self) -> Box | None:
        """(1, 4) px, or None for the whole frame."""
        return None if self.box_xyxy is None else self.box_xyxy[None]

    def update(self, result: PoseResult) -> None:
        """Move on to the box of this result's first person."""
        found = box_around(result.keypoints_xy[0], result.scores[0], result.image_size_wh)
        self.box_xyxy = found if found is None or self.box_xyxy is None else glide(self.box_xyxy, found)


def box_around(
    keypoints_xy: NDArray[np.float32], scores: NDArray[np.float32], image_size_wh: tuple[int, int]
) -> Box | None:
    """Box (4,) px around the confident key points (K, 2) with a margin, cut at the image's edges.

    None when the person is lost: too few confident key points, or a box too small to be a person.
    """
    confident = scores >= CONFIDENT_SCORE
    if confident.sum() < MIN_CONFIDENT_SHARE * len(scores):
        return None
    points = keypoints_xy[confident].astype(np.float64)
    low, high = points.min(axis=0), points.max(axis=0)
    margin = MARGIN * (high - low).max()
    low, high = np.maximum(low - margin, 0), np.minimum(high + margin, image_size_wh)
    return np.concatenate([low, high]) if (high - low).min() >= MIN_SIDE_PX else None


def glide(previous: Box, found: Box) -> Box:
    """A box between the two, unless they hardly overlap."""
    return found if overlap(previous, found) < MIN_OVERLAP else FOLLOW_RATE * found + (1 - FOLLOW_RATE) * previous


def overlap(first: Box, second: Box) -> float:
    """Intersection over union of two boxes (4,) xyxy."""
    sides = np.minimum(first[2:], second[2:]) - np.maximum(first[:2], second[:2])
    shared = float(np.prod(np.maximum(sides, 0)))
    union = float(np.prod(first[2:] - first[:2]) + np.prod(second[2:] - second[:2])) - shared
    return shared / union if union > 0 else 0.0
