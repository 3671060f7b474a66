"""What a call gives back: key points in image pixels, with their boxes, names and times."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.draw import DEFAULT_STYLE, Style, draw_poses
from runtime.errors import BackendUnavailable
from runtime.geometry import Image

SUPERVISION = "supervision>=0.29"  # the first with KeyPoints(keypoint_confidence=)


@dataclass(frozen=True, eq=False)
class PoseResult:
    """N persons with K key points each. Coordinates are continuous image px: pixel (0, 0) has its centre at 0.5.

    A score is the network's estimate of the key point's OKS: near 1 = within a fraction of what annotators differ by,
    0.6 = one such spread away, near 0 = far off, hidden or outside the crop. It is no probability of being visible.
    """

    keypoints_xy: NDArray[np.float32]  # (N, K, 2) px, can lie outside the image
    scores: NDArray[np.float32]  # (N, K) in [0, 1], the expected OKS of each key point
    boxes_xyxy: NDArray[np.float32]  # (N, 4) px, where the persons were looked for
    names: tuple[str, ...]  # K key-point names
    skeleton: tuple[tuple[int, int], ...]  # limbs as index pairs
    image_size_wh: tuple[int, int]  # px
    timing_ms: dict[str, float]  # wall time of all persons: "crop", "inference", "decode"; "detect" with a detector
    ids: NDArray[np.int64] | None = None  # (N,) from 1 on, the same person's from frame to frame; None: not followed

    def __len__(self) -> int:
        """Number of persons."""
        return len(self.keypoints_xy)

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and numbers; the floats are exactly those of the arrays. Persons have an "id" if followed."""
        persons: list[dict[str, Any]] = [
            {"box_xyxy": box.tolist(), "keypoints_xy": keypoints_xy.tolist(), "scores": scores.tolist()}
            for box, keypoints_xy, scores in zip(self.boxes_xyxy, self.keypoints_xy, self.scores, strict=True)
        ]
        for person, identity in zip(persons, [] if self.ids is None else self.ids.tolist(), strict=False):
            person["id"] = identity
        return {
            "image_size_wh": list(self.image_size_wh),
            "names": list(self.names),
            "persons": persons,
            "timing_ms": self.timing_ms,
        }

    def to_json(self) -> str:
        """`to_dict` as one line of JSON."""
        return json.dumps(self.to_dict())

    def to_coco(self, image_id: int = 0, category_id: int = 1) -> list[dict[str, Any]]:
        """N entries of a COCO key-point results file, ready for `json.dump` and pycocotools' `loadRes`.

        `keypoints` are K times x, y (pixel indices, so 0.5 less than `keypoints_xy`) and the point's score; `score` is
        the mean of them; `bbox` is the box as x, y, width, height.
        """
        entries = []
        for box, keypoints_xy, scores in zip(self.boxes_xyxy, self.keypoints_xy, self.scores, strict=True):
            triplets = np.column_stack([keypoints_xy.astype(np.float64) - 0.5, scores])
            entries.append(
                {
                    "image_id": image_id,
                    "category_id": category_id,
                    "keypoints": triplets.ravel().tolist(),
                    "score": float(scores.mean()),
                    "bbox": [*box[:2].tolist(), *(box[2:] - box[:2]).tolist()],
                }
            )
        return entries

    def to_supervision(self) -> Any:
        """`supervision.KeyPoints` with scores, class 0, boxes in `data["xyxy"]` and ids in `data["tracker_id"]`.

        Raises:
            BackendUnavailable: supervision is not installed.
        """
        try:
            import supervision
        except ImportError as error:
            message = f'to_supervision needs supervision ({error}): pip install "{SUPERVISION}"'
            raise BackendUnavailable(message) from error
        followed = {} if self.ids is None else {"tracker_id": self.ids.copy()}
        return supervision.KeyPoints(
            xy=self.keypoints_xy.copy(),
            keypoint_confidence=self.scores.copy(),
            detection_confidence=self.scores.mean(axis=1),
            class_id=np.zeros(len(self), dtype=int),
            data={"xyxy": self.boxes_xyxy.copy(), **followed},
        )

    def draw(self, image_bgr: Image, threshold: float | None = None, style: Style = DEFAULT_STYLE) -> Image:
        """A copy of the image with the skeletons on it; key points with scores under the threshold fade out.

        Args:
            image_bgr: (H, W, 3) uint8 BGR; gray, BGRA and uint16 are brought to it, as in a call.
            threshold: None = the style's.
            style: colours, widths, thresholds and skeleton.
        Raises:
            InputError: another image, threshold or style; the message names it.
        """
        persons = (self.keypoints_xy, self.scores, self.names, self.skeleton)
        return draw_poses(image_bgr, *persons, threshold, style, self.ids)


@dataclass(frozen=True, eq=False)
class Frame:
    """One picture of a source with its result."""

    index: int  # 0-based place in the source
    time_s: float  # since the first frame; cameras: when the frame was read
    name: str  # file name of a picture; of anything else, the source's
    image: Image  # (H, W, 3) uint8 BGR
    result: PoseResult
    latency_ms: float = 0.0  # from the moment the frame had been read to its result

    def to_json(self) -> str:
        """One line: `index`, `time_s`, `name` and the keys of `PoseResult.to_json`."""
        return json.dumps({"index": self.index, "time_s": self.time_s, "name": self.name, **self.result.to_dict()})

    def draw(self, threshold: float | None = None, style: Style = DEFAULT_STYLE) -> Image:
        """A copy of the frame's image with the skeletons on it."""
        return self.result.draw(self.image, threshold, style)
