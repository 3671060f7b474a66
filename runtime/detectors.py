"""What `detector=` may be: a network's file, "hog", or any callable that returns boxes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from runtime.errors import BackendUnavailable, InputError
from runtime.geometry import Image, box_problem

LEGAL_DETECTORS = 'legal are None, a file (.onnx, .xml), "hog" and a callable: image (H, W, 3) BGR -> boxes (N, 4) px'
HOG_STRIDE_PX, HOG_SCALE, HOG_LEAST = (8, 8), 1.05, 0.3


class Detections(NamedTuple):
    """N persons, the surest first."""

    boxes_xyxy: NDArray[np.float64]  # (N, 4) px
    scores: NDArray[np.float64]  # (N,) in [0, 1] by most networks; 1 where the detector gives none


Detect = Callable[[Image], Detections]


def open_detector(detector: Any, device: str = "cpu", threads: int | None = None) -> Detect | None:
    """The detector that `detector=` names; None for None.

    Raises:
        InputError: something else than what is legal.
        BackendUnavailable: an engine, or OpenCV's HOG, is not there.
        ModelFileError: a file that is no detector.
    """
    if detector is None:
        return None
    if detector == "hog":
        return HogDetector()
    if callable(detector):
        return lambda image: check_detections(detector(image), (image.shape[1], image.shape[0]))
    raise InputError(f"detector is {detector!r}, {LEGAL_DETECTORS}")


def check_detections(found: Any, image_size_wh: tuple[int, int]) -> Detections:
    """What a callable returned: boxes (N, 4), or (N, 5) with scores, cut at the image's edges.

    Boxes outside the image or without area are left out: a detector may give them, a crop has no use for them.

    Raises:
        InputError: no array of that shape, or numbers that are not finite.
    """
    if isinstance(found, Detections):
        found = np.column_stack([found.boxes_xyxy, found.scores])
    try:
        rows = np.array([] if found is None else found, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"the detector gave no array (N, 4) of numbers: {error}") from error
    if rows.size == 0:
        rows = rows.reshape(0, 5)
    if rows.ndim != 2 or rows.shape[1] not in (4, 5) or not np.isfinite(rows).all():
        raise InputError(f"the detector gave {rows.shape}, legal are finite boxes (N, 4), or (N, 5) with scores")
    boxes = np.clip(rows[:, :4], 0, [*image_size_wh, *image_size_wh])
    scores = rows[:, 4] if rows.shape[1] == 5 else np.ones(len(rows))
    usable = [row for row in np.argsort(-scores, kind="stable") if not box_problem(boxes[row], image_size_wh)]
    return Detections(boxes[usable], scores[usable])


class HogDetector:
    """OpenCV 4's pedestrian detector (Dalal and Triggs, 2005): upright people from about 100 px height on. Slow."""

    def __init__(self) -> None:
        if not hasattr(cv2, "HOGDescriptor"):
            raise BackendUnavailable(
                f'OpenCV {cv2.__version__} has no HOG detector, OpenCV 4 has: pip install "opencv-python<5"'
            )
        self.hog = cv2.HOGDescriptor()
        self.hog.setSVMDetector(cv2.HOGDescriptor.getDefaultPeopleDetector())

    def __call__(self, image: Image) -> Detections:
        """Boxes with the classifier's margin as score, not limited to 1."""
        boxes_xywh, margins = self.hog.detectMultiScale(image, winStride=HOG_STRIDE_PX, scale=HOG_SCALE)
        boxes = np.asarray(boxes_xywh, dtype=np.float64).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        scores = np.asarray(margins, dtype=np.float64).reshape(-1)
        sure = scores >= HOG_LEAST
        return check_detections(np.column_stack([boxes, scores])[sure], (image.shape[1], image.shape[0]))
