"""A predictor that knows the truth."""

from __future__ import annotations

import numpy as np

from training.data.reading import load_persons


class Oracle:
    """Knows the truth of a data set, and adds an offset."""

    def __init__(self, spec, offset_px=0.0):
        self.people = load_persons(spec).persons
        self.names = load_persons(spec).names
        self.offset_px = offset_px

    def __call__(self, image_bgr, boxes_xyxy):
        nearest = [min(self.people, key=lambda p: np.abs(p.box_xyxy - box).sum()) for box in boxes_xyxy]
        keypoints_xy = np.stack([p.keypoints_xy for p in nearest]) + self.offset_px
        return keypoints_xy, np.full(keypoints_xy.shape[:2], 0.5)
