"""Where a person is, from the last key points: boxes, likeness of boxes and poses, and who is who."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

CONFIDENT_SCORE = 0.2  # key points under it do not shape the box
MIN_CONFIDENT_SHARE = 0.3  # of the key points; with fewer, the person is lost
MIN_SIDE_PX = 16  # of a box that is worth a crop
MARGIN = 0.15  # of the pose's extent, on each edge: key points end before the body does
FOLLOW_RATE = 0.6  # share of the last pose in the next box; the rest is the previous box
SAME_OVERLAP = 0.85  # IoU from which on the box stays where it is
MIN_OVERLAP = 0.3  # IoU under which the box jumps instead of gliding
UNKNOWN_PRESENCE = 0.5  # mean score under which somebody is in doubt, for a network of which nobody measured it
LOST_BELOW = 0.05  # how far under the measured one the score of somebody who is followed may fall
DOUBT_ABOVE = 0.1  # how far above it somebody is still in doubt

Box = NDArray[np.float64]
Points = NDArray[np.float32]


class Limits(NamedTuple):
    """What the mean score of somebody's key points says, given a network's presence score."""

    found_from: float  # from here on, a find is somebody
    lost_below: float  # under it, who is followed is gone
    doubt_below: float  # under it, who is followed may be nobody

    @classmethod
    def of(cls, presence: float | None) -> Limits:
        """Of a network whose mean score is `presence` from somebody on; None if nobody measured it."""
        if presence is None:
            return cls(0.0, -LOST_BELOW, UNKNOWN_PRESENCE)
        return cls(presence, presence - LOST_BELOW, presence + DOUBT_ABOVE)


def box_around(keypoints_xy: Points, scores: Points, image_size_wh: tuple[int, int]) -> Box | None:
    """Box (4,) px around the confident key points (K, 2) with a margin, cut at the image's edges.

    None when the person is lost: too few confident key points, or a box too small to be a person.
    """
    pairs = zip(keypoints_xy.tolist(), scores.tolist(), strict=True)  # lists: faster than arrays of a few numbers
    points = [point for point, score in pairs if score >= CONFIDENT_SCORE]
    if not points or len(points) < MIN_CONFIDENT_SHARE * len(scores):
        return None
    xs, ys = zip(*points, strict=True)
    x1, y1, x2, y2 = min(xs), min(ys), max(xs), max(ys)
    margin = MARGIN * max(x2 - x1, y2 - y1)
    x1, y1 = max(x1 - margin, 0.0), max(y1 - margin, 0.0)
    x2, y2 = min(x2 + margin, image_size_wh[0]), min(y2 + margin, image_size_wh[1])
    return np.array([x1, y1, x2, y2]) if min(x2 - x1, y2 - y1) >= MIN_SIDE_PX else None


def glide(previous: Box, found: Box) -> Box:
    """The previous box while the found one hardly differs, one between the two, or the found one after a jump.

    A box that follows every tremble of the key points makes the crop, and so the next key points, tremble.
    """
    shared = overlap(previous, found)
    if shared >= SAME_OVERLAP:
        return previous
    return found if shared < MIN_OVERLAP else FOLLOW_RATE * found + (1 - FOLLOW_RATE) * previous


def overlap(first: Box, second: Box) -> float:
    """Intersection over union of two boxes (4,) xyxy."""
    a1, b1, a2, b2 = first.tolist()
    c1, d1, c2, d2 = second.tolist()
    shared = max(min(a2, c2) - max(a1, c1), 0.0) * max(min(b2, d2) - max(b1, d1), 0.0)
    union = (a2 - a1) * (b2 - b1) + (c2 - c1) * (d2 - d1) - shared
    return float(shared / union) if union > 0 else 0.0


def overlaps(first: Box, second: Box) -> NDArray[np.float64]:
    """Intersection over union of each of the boxes (M, 4) xyxy with each of (N, 4): (M, N)."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    shared = np.maximum(high - low, 0).prod(axis=2)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(axis=1) for boxes in (first, second)]
    union = areas[0][:, None] + areas[1][None] - shared
    shares: NDArray[np.float64] = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    return shares


def similarities(first: Points, second: Points, sigmas: NDArray[np.float64]) -> NDArray[np.float64]:
    """OKS of each pose (M, K, 2) with each of (N, K, 2), all points counted alike: (M, N).

    The scale is the root of the area of the box around the first pose's points, as in COCO's `area` of a person.
    """
    difference = np.subtract(first[:, None], second[None], dtype=np.float64)  # (M, N, K, 2)
    squared = np.einsum("mnkc,mnkc->mnk", difference, difference)
    sides = first.max(axis=1).astype(np.float64) - first.min(axis=1)  # (M, 2)
    areas = np.maximum(sides[:, 0] * sides[:, 1], 1.0)
    variances = (2 * sigmas) ** 2  # (K,)
    return np.exp(squared / (-2 * variances * areas[:, None, None])).sum(axis=2) / len(variances)  # type: ignore[no-any-return]


def matches(likeness: NDArray[np.float64], least: float) -> list[tuple[int, int]]:
    """Pairs (row, column) of a matrix, each row and column at most once: the most alike first, none under `least`."""
    pairs, rows, columns = [], set(), set()
    for index in np.argsort(-likeness, axis=None, kind="stable").tolist():
        row, column = divmod(index, likeness.shape[1])
        if likeness[row, column] < least:
            break
        if row not in rows and column not in columns:
            rows.add(row)
            columns.add(column)
            pairs.append((row, column))
    return pairs
