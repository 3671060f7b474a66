"""Following several people: a detector every n frames, boxes around the last key points in between."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from runtime.detections import Detect
from runtime.following import Estimate
from runtime.geometry import Image
from runtime.identities import Identities
from runtime.results import PoseResult
from runtime.tracking import MIN_OVERLAP, Box, Limits, box_around, glide, matches, overlaps, similarities

SAME_POSE_OKS = 0.7  # two poses of one frame that are this alike show one person
MOST_MISSES = 3  # detections in a row that do not find somebody who is in doubt


class Crowd:
    """Remembers where the people are. One per video.

    A detected box that overlaps a followed one replaces it; the others are new people. Somebody whom the detector
    misses is followed all the same, until the key points are lost, their mean score falls clearly below the network's
    presence score, or, while it is hardly above, MOST_MISSES detections in a row have not found them.

    Args:
        estimate: key points of an image for boxes.
        detect: who finds people.
        detect_every: frames from one detection to the next.
        identities: who gets which number.
        sigmas: K OKS sigmas.
        presence: mean score from which on a crop shows somebody; None if nobody measured it for this network.
    """

    def __init__(
        self, estimate: Estimate, detect: Detect, detect_every: int, identities: Identities, sigmas: Sequence[float],
        presence: float | None = None,
    ) -> None:  # fmt: skip
        self._estimate, self._detect, self._detect_every = estimate, detect, detect_every
        self._identities, self._sigmas, self._limits = identities, np.array(sigmas), Limits.of(presence)
        self._frames = 0
        self.boxes_xyxy: Box = np.zeros((0, 4))  # px, of those who are followed
        self._misses: list[int] = []  # detections in a row that did not find them

    def see(self, image: Image, time_s: float) -> PoseResult:
        """Everybody in the next frame, with ids."""
        started = time.perf_counter()
        if self._frames % self._detect_every == 0:
            self.boxes_xyxy, is_found = merge(self.boxes_xyxy, self._detect(image).boxes_xyxy)
            earlier = self._misses + [0] * (len(is_found) - len(self._misses))
            self._misses = [0 if found else misses + 1 for found, misses in zip(is_found, earlier, strict=True)]
        detect_ms = (time.perf_counter() - started) * 1000
        self._frames += 1
        result = self._estimate(image, self.boxes_xyxy)
        rows, self.boxes_xyxy = self._followed(result)
        self._misses = [self._misses[row] for row in rows]
        keypoints_xy, scores = result.keypoints_xy[rows], result.scores[rows]
        return replace(
            result,
            keypoints_xy=keypoints_xy,
            scores=scores,
            boxes_xyxy=result.boxes_xyxy[rows],
            ids=self._identities.assign(keypoints_xy, scores, self.boxes_xyxy, time_s),
            timing_ms={"detect": detect_ms, **result.timing_ms},
        )

    def _followed(self, result: PoseResult) -> tuple[list[int], Box]:
        """Rows of those who are not lost and not there twice, and their next boxes (M, 4) px."""
        boxes: dict[int, Box] = {}  # by row, the surest first
        alike = (similarities(result.keypoints_xy, result.keypoints_xy, self._sigmas) > SAME_POSE_OKS).tolist()
        means = result.scores.mean(axis=1)
        for row in np.argsort(-means, kind="stable").tolist():
            is_doubtful = self._misses[row] >= MOST_MISSES and means[row] < self._limits.doubt_below
            if is_doubtful or means[row] < self._limits.lost_below:
                continue
            found = box_around(result.keypoints_xy[row], result.scores[row], result.image_size_wh)
            if found is not None and not any(alike[surer][row] for surer in boxes):
                boxes[row] = glide(self.boxes_xyxy[row], found)
        rows = sorted(boxes)
        return rows, np.array([boxes[row] for row in rows]).reshape(-1, 4)


def merge(followed: Box, detected: Box) -> tuple[Box, list[bool]]:
    """Followed boxes (M, 4), each replaced by the detected one (N, 4) that overlaps it most, then the new ones.

    With it, for each of them, whether it was detected.
    """
    boxes, is_found = followed.copy(), [False] * len(followed)
    pairs = matches(overlaps(followed, detected), MIN_OVERLAP)
    for row, column in pairs:
        boxes[row], is_found[row] = detected[column], True
    new = sorted(set(range(len(detected))) - {column for _, column in pairs})
    return np.concatenate([boxes, detected[new]]), is_found + [True] * len(new)
