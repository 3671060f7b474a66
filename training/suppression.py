"""OKS-NMS: of predictions that show the same person, the best stays.

Source: Papandreou et al., "Towards Accurate Multi-person Pose Estimation in the Wild" (2017), section 2.2: greedy
suppression as for boxes, with object key-point similarity instead of overlap. SimpleBaseline's published COCO figures,
which the paper compares with, use a threshold of 0.9. Deviation: the scale is the mean of the two boxes' areas times
COCO's average of annotation over box area, so that a similarity means what it means in AP.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from runtime.skeleton import sigmas
from training.data.persons import AREA_OF_BOX, Array

OKS_NMS = 0.9
"""Predictions more similar than this are of one person."""


def suppress(
    keypoints_xy: Array, scores: Array, boxes_xyxy: Array, names: Sequence[str], threshold: float
) -> list[int]:
    """Rows to keep of the N predictions on one image, best score first.

    Args:
        keypoints_xy: (N, K, 2) px.
        scores: (N,), of the whole predictions.
        boxes_xyxy: (N, 4) px, where the predictions were asked for.
        names: the K key points.
        threshold: a prediction goes if its similarity to a better one that stays is above this; 1 keeps all.
    """
    areas = AREA_OF_BOX * (boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]).prod(1)
    kept: list[int] = []
    for row in np.argsort(-scores, kind="stable"):
        alike = similarity(keypoints_xy[row], keypoints_xy[kept], (areas[row] + areas[kept]) / 2, names)
        if not (alike > threshold).any():
            kept.append(int(row))
    return kept


def similarity(keypoints_xy: Array, others_xy: Array, areas: Array, names: Sequence[str]) -> Array:
    """OKS (M,) of one prediction (K, 2) to M others (M, K, 2) px, at scales `areas` (M,) square px, in [0, 1]."""
    squared = ((others_xy - keypoints_xy) ** 2).sum(-1)
    variance = (2 * np.array(sigmas(names))) ** 2
    return np.exp(-squared / (2 * areas[:, None] * variance)).mean(1)  # type: ignore[no-any-return]
