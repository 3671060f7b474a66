"""A person detector of somebody else's, as an ONNX or OpenVINO file, run by our engines."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.backends.network import NetworkInput, open_network
from runtime.detections import Detections, check_detections
from runtime.detector_families import FAMILIES, Family, Preprocessing, recognise, suppress
from runtime.errors import InputError, ModelFileError
from runtime.geometry import Image

DEFAULT_SIZE_WH = (640, 640)  # of networks that take any size
SCORE_THRESHOLD = 0.4
MOST_OVERLAP = 0.6  # IoU of two boxes that show two people, where the network leaves that to us

log = logging.getLogger(__name__)


class NetworkDetector:
    """Finds people in an image; safe to call from several threads.

    >>> detect = runtime.NetworkDetector("yolox_s.onnx")
    >>> print(detect)                       # what it was taken for, and how pictures are prepared
    >>> pose = runtime.Pose(detector=detect)

    Args:
        path: .onnx (onnxruntime) or .xml (OpenVINO), with one input (1, 3, H, W).
        device: one of the engine's devices.
        threads: CPU threads; None = the CPUs that this program may use.
        family: "yolox", "yolox-decoded", "rtmdet", "yolo-end-to-end", "yolo" or "detr"; None = told by its outputs.
        preprocessing: None = what the family's exporter assumes.
        input_size_wh: of networks that take any size; None = 640 x 640.
        person_class: None = 0, and 1 where a DETR has 91 or 92 classes.
        score_threshold: boxes under it are left out.
        most_overlap: IoU over which the less sure of two boxes is left out, in families that give several per person.
    Raises:
        ModelFileError: no detector of a known family; the message lists them with their outputs.
        BackendUnavailable: engine or device not there.
        InputError: another argument that is not legal.
    """

    def __init__(
        self,
        path: str | Path,
        device: str = "cpu",
        threads: int | None = None,
        *,
        family: str | None = None,
        preprocessing: Preprocessing | None = None,
        input_size_wh: tuple[int, int] | None = None,
        person_class: int | None = None,
        score_threshold: float = SCORE_THRESHOLD,
        most_overlap: float = MOST_OVERLAP,
    ) -> None:
        self.path = Path(path)
        self.network = open_network(self.path, device, threads)
        self.input = self._check_input()
        self.input_size_wh = self._size_wh(input_size_wh)
        self.person_class, self.score_threshold, self.most_overlap = person_class, score_threshold, most_overlap
        trial = self._run(np.full((1, 3, *self.input_size_wh[::-1]), 0, dtype=self.input.dtype))
        self.family = self._named(family) if family is not None else self._recognised(trial)
        self.preprocessing = preprocessing or self.family.preprocessing
        self._decode(trial)  # a family or class that does not fit shows here and not with the first picture
        log.info("%s", self)

    def __str__(self) -> str:
        done = self.preprocessing
        return (
            f"{self.path.name}: taken for {self.family.name} by its outputs {self.family.outputs}; "
            f"pictures are scaled to {self.input_size_wh} px ({done.fit}), {done.channels}, mean {done.mean}, "
            f"std {done.std}"
        )

    def __call__(self, image: Image) -> Detections:
        """People in an image (H, W, 3) uint8 BGR."""
        batch, scale, offset = self.preprocessing.apply(image, self.input_size_wh, self.input.dtype)
        boxes, scores = self._decode(self._run(batch))
        boxes = (boxes - np.tile(offset, 2)) / np.tile(scale, 2)
        return check_detections(np.column_stack([boxes, scores]), (image.shape[1], image.shape[0]))

    def _decode(self, outputs: list[NDArray[Any]]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Boxes (N, 4) in px of the input and their scores, without the unsure and the double ones."""
        try:
            boxes, scores = self.family.decode(outputs, self.input_size_wh, self.person_class)
        except (IndexError, ValueError) as error:
            problem = f"outputs {shapes_of(outputs)} are not those of {self.family.name}"
            raise ModelFileError(f"{self.path}: {problem}: {error}") from error
        sure = scores >= self.score_threshold
        boxes, scores = boxes[sure], scores[sure]
        if not np.isfinite(boxes).all():
            raise ModelFileError(f"{self.path}: gives boxes that are not finite")
        if self.family.suppress:
            kept = suppress(boxes, scores, self.most_overlap)
            boxes, scores = boxes[kept], scores[kept]
        return boxes, scores

    def _run(self, batch: NDArray[Any]) -> list[NDArray[Any]]:
        try:
            return self.network.run(batch)
        except Exception as error:
            raise ModelFileError(f"{self.path}: cannot run on {batch.dtype} {batch.shape}: {error}") from error

    def _check_input(self) -> NetworkInput:
        """Its one input; ModelFileError when that is no picture."""
        inputs = self.network.inputs
        given = ", ".join(f"{one.name} {one.dtype} {one.shape}" for one in inputs)
        shape = inputs[0].shape if inputs else ()
        legal = len(inputs) == 1 and len(shape) == 4 and shape[0] in (1, None) and shape[1] in (3, None)
        if not legal or inputs[0].dtype not in ("float32", "float16", "uint8"):
            raise ModelFileError(f"{self.path}: has the inputs {given}; a detector has one, (1, 3, H, W), of pictures")
        return inputs[0]

    def _size_wh(self, wanted: tuple[int, int] | None) -> tuple[int, int]:
        height, width = self.input.shape[2:]
        fixed = (width or (wanted or DEFAULT_SIZE_WH)[0], height or (wanted or DEFAULT_SIZE_WH)[1])
        if wanted is not None and tuple(wanted) != fixed:
            raise InputError(f"input_size_wh is {wanted}, {self.path} is made for {fixed}")
        return fixed

    def _named(self, name: str) -> Family:
        for family in FAMILIES:
            if family.name == name:
                return family
        raise InputError(f"family is {name!r}, legal are {', '.join(family.name for family in FAMILIES)}")

    def _recognised(self, outputs: list[NDArray[Any]]) -> Family:
        family = recognise(outputs, self.input_size_wh)
        if family is None:
            legal = "; ".join(f"{family.name}: {family.outputs}" for family in FAMILIES)
            given = shapes_of(outputs)
            raise ModelFileError(f"{self.path}: no detector that is known here: outputs {given}. Known are {legal}")
        return family


def shapes_of(arrays: list[NDArray[Any]]) -> str:
    """ "(1, 100, 5), (1, 100)"."""
    return ", ".join(str(array.shape) for array in arrays)
