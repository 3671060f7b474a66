"""How right key points are: AP and PCK of a network's outputs on annotated crops."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from runtime import geometry
from runtime.errors import InputError
from training import metrics
from training.data.calibration import Subjects
from training.data.persons import PersonSet

PCK_THRESHOLD = 0.2


class Accuracy(NamedTuple):
    """Figures in 0..100; None where the data do not define one."""

    ap: float | None  # COCO's, by object key-point similarity
    pck: float | None  # within 0.2 x torso


@dataclass(frozen=True)
class Labels:
    """The truth about N crops, with the key points that data and network share."""

    truth: PersonSet
    """N persons, key points in the order of `truth.names`."""
    columns: tuple[int, ...]
    """Where those names are among the network's."""
    matrices: NDArray[np.float64]
    """(N, 2, 3) from image px to crop px."""
    input_size_wh: tuple[int, int]
    """px, of the crops."""

    @classmethod
    def of(cls, subjects: Subjects, keypoint_names: tuple[str, ...], input_size_wh: tuple[int, int]) -> Labels | None:
        """The labels of crops for a network with those key points; None if there are none, or no shared name."""
        if subjects.truth is None:
            return None
        shared = tuple(name for name in subjects.truth.names if name in keypoint_names)
        columns = tuple(keypoint_names.index(name) for name in shared)
        return cls(subjects.truth.select(shared), columns, subjects.matrices, input_size_wh) if shared else None

    def accuracy(self, keypoints: NDArray[np.float32], scores: NDArray[np.float32]) -> Accuracy:
        """Of key points (N, K, 2), fractions of the crop, with scores (N, K), K the network's; NaN is never right."""
        names = self.truth.names
        results = self._results(np.nan_to_num(keypoints, nan=1e6), np.nan_to_num(scores))
        ap = metrics.average_precision(results, self.truth, names)["value"] if self.truth.labelled else None
        try:
            pck = metrics.measure(results, self.truth, names, "pck", PCK_THRESHOLD)["value"]
        except (InputError, ValueError):  # no torso, or nobody with a labelled point that is shared
            pck = None
        return Accuracy(ap, None if pck is None else float(pck))

    def _results(self, keypoints: NDArray[np.float32], scores: NDArray[np.float32]) -> list[dict[str, Any]]:
        """COCO results, one for each person, in pixel indices of the pictures."""
        lines = []
        for person, matrix, points, score in zip(self.truth.persons, self.matrices, keypoints, scores, strict=True):
            in_crop = points[list(self.columns)] * np.array(self.input_size_wh, dtype=np.float64)
            in_image = geometry.transform_points(in_crop, geometry.invert_matrix(matrix)) - 0.5
            shared = score[list(self.columns)]
            rows = np.column_stack([in_image, shared])
            whose = {"image_id": person.image_id, "annotation_id": person.annotation_id}
            lines.append({**whose, "category_id": 1, "keypoints": rows.ravel().tolist(), "score": float(shared.mean())})
        return lines
