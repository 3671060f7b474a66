"""What `detector=` may be: a network's file, "hog", or any callable that returns boxes."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from runtime.backends import ENGINES
from runtime.detections import Detect, Detections, check_detections
from runtime.errors import BackendUnavailable, InputError
from runtime.geometry import Image
from runtime.network_detector import NetworkDetector

LEGAL_DETECTORS = 'legal are None, a file (.onnx, .xml), "hog" and a callable: image (H, W, 3) BGR -> boxes (N, 4) px'
HOG_STRIDE_PX, HOG_PADDING_PX, HOG_SCALE, HOG_LEAST = (8, 8), (32, 32), 1.05, 0.3

log = logging.getLogger(__name__)


def open_detector(detector: Any, device: str = "cpu", threads: int | None = None) -> Detect | None:
    """The detector that `detector=` names; None for None.

    Args:
        detector: what `Pose` takes.
        device: of the pose's engine; a file whose engine has no such device runs on the CPU, which is logged.
        threads: CPU threads of the engine.
    Raises:
        InputError: something else than what is legal.
        BackendUnavailable: an engine, or OpenCV's HOG, is not there.
        ModelFileError: a file that is no detector.
    """
    if detector is None:
        return None
    if isinstance(detector, str) and detector == "hog":
        return HogDetector()
    if isinstance(detector, str | Path) and str(detector):
        return NetworkDetector(detector, device_for(Path(detector), device), threads)
    if isinstance(detector, NetworkDetector):
        return detector  # its boxes have been checked
    if callable(detector):
        return lambda image: check_detections(detector(image), (image.shape[1], image.shape[0]))
    raise InputError(f"detector is {detector!r}, {LEGAL_DETECTORS}")


def device_for(path: Path, device: str) -> str:
    """The device where a detector's engine has it, else the CPU: the detector's engine need not be that of the pose."""
    for engine in ENGINES:
        if path.suffix == engine.extension and device not in engine.devices:
            devices = ", ".join(engine.devices)
            log.warning("detector %s runs on cpu: %s has %s, no %s", path, engine.name, devices, device)
            return "cpu"
    return device


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
        boxes_xywh, margins = self.hog.detectMultiScale(
            image, winStride=HOG_STRIDE_PX, padding=HOG_PADDING_PX, scale=HOG_SCALE
        )
        boxes = np.asarray(boxes_xywh, dtype=np.float64).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        scores = np.asarray(margins, dtype=np.float64).reshape(-1)
        sure = scores >= HOG_LEAST
        return check_detections(np.column_stack([boxes, scores])[sure], (image.shape[1], image.shape[0]))
