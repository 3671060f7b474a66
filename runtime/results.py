"""What a call gives back: key points in image pixels, with their boxes, names and times."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.draw import SCORE_THRESHOLD, draw_poses
from runtime.geometry import Image


@dataclass(frozen=True, eq=False)
class PoseResult:
    """N persons with K key points each. Coordinates are continuous image px: pixel (0, 0) has its centre at 0.5."""

    keypoints_xy: NDArray[np.float32]  # (N, K, 2) px, can lie outside the image
    scores: NDArray[np.float32]  # (N, K) in [0, 1], the network's confidence that the point is where it says
    boxes_xyxy: NDArray[np.float32]  # (N, 4) px, the boxes that were asked for
    names: tuple[str, ...]  # K key-point names
    skeleton: tuple[tuple[int, int], ...]  # limbs as index pairs
    image_size_wh: tuple[int, int]  # px
    timing_ms: dict[str, float]  # "crop", "inference", "decode": wall time of all persons together

    def __len__(self) -> int:
        """Number of persons."""
        return len(self.keypoints_xy)

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and numbers; the floats are exactly those of the arrays."""
        return {
            "image_size_wh": list(self.image_size_wh),
            "names": list(self.names),
            "persons": [
                {"box_xyxy": box.tolist(), "keypoints_xy": keypoints_xy.tolist(), "scores": scores.tolist()}
                for box, keypoints_xy, scores in zip(self.boxes_xyxy, self.keypoints_xy, self.scores, strict=True)
            ],
            "timing_ms": self.timing_ms,
        }

    def to_json(self) -> str:
        """`to_dict` as one line of JSON."""
        return json.dumps(self.to_dict())

    def draw(self, image_bgr: Image, threshold: float = SCORE_THRESHOLD) -> Image:
        """A copy of the image with the skeletons on it; key points with scores under `threshold` fade out."""
        return draw_poses(image_bgr, self.keypoints_xy, self.scores, self.names, self.skeleton, threshold)


@dataclass(frozen=True, eq=False)
class Frame:
    """One picture of a source with its result."""

    index: int  # 0-based place in the source
    time_s: float  # since the first frame; cameras: when the frame was read
    name: str  # file name of a picture; of anything else, the source's
    image: Image  # (H, W, 3) uint8 BGR
    result: PoseResult

    def to_json(self) -> str:
        """One line: `index`, `time_s`, `name` and the keys of `PoseResult.to_json`."""
        return json.dumps({"index": self.index, "time_s": self.time_s, "name": self.name, **self.result.to_dict()})

    def draw(self, threshold: float = SCORE_THRESHOLD) -> Image:
        """A copy of the frame's image with the skeletons on it."""
        return self.result.draw(self.image, threshold)
