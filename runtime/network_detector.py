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
from runtime.inputs import check_number

DEFAULT_SIZE_WH = (640, 640)  # of networks that take any size
SCORE_THRESHOLD = 0.4
MOST_OVERLAP = 0.6  # IoU of two boxes that show two people, where the network leaves that to us

PICTURE_DTYPES, SIZE_DTYPES = ("float32", "float16", "uint8"), ("int64", "int32")

log = logging.getLogger(__name__)


class NetworkDetector:
    """Finds people in an image; safe to call from several threads.

    >>> detect = runtime.NetworkDetector("yolox_s.onnx")
    >>> print(detect)                       # what it was taken for, and how pictures are prepared
    >>> pose = runtime.Pose(detector=detect)

    Args:
        path: .onnx (onnxruntime) or .xml (OpenVINO), with an input (1, 3, H, W), and perhaps one (1, 2) of integers,
            which is told the width and height of what the first one gets.
        device: one of the engine's devices.
        threads: CPU threads; None = the CPUs that this program may use.
        family: "yolox", "yolox-decoded", "yolox-mmdeploy", "rtmdet", "yolo-end-to-end", "yolo", "detr" or
            "rtdetr"; None = told by its outputs, and by the file's name where two families have the same.
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
        self._check_arguments(preprocessing, input_size_wh, person_class, score_threshold, most_overlap)
        self.path = Path(path)
        self.network = open_network(self.path, device, threads)
        self.input, self._asks_size = self._check_inputs()
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
        sizes = [np.array([self.input_size_wh], dtype=one.dtype) for one in self._asks_size]
        try:
            return self.network.run(batch, *sizes)
        except Exception as error:
            raise ModelFileError(f"{self.path}: cannot run on {batch.dtype} {batch.shape}: {error}") from error

    def _check_inputs(self) -> tuple[NetworkInput, list[NetworkInput]]:
        """The one for pictures, and the one, if any, for their width and height; ModelFileError for any others."""
        pictures, *rest = self.network.inputs or [NetworkInput("", (), "")]
        is_picture = len(pictures.shape) == 4 and pictures.shape[0] in (1, None) and pictures.shape[1] in (3, None)
        is_size = all(one.dtype in SIZE_DTYPES and len(one.shape) == 2 and one.shape[1] in (2, None) for one in rest)
        if not is_picture or pictures.dtype not in PICTURE_DTYPES or len(rest) > 1 or not is_size:
            given = ", ".join(f"{one.name} {one.dtype} {one.shape}" for one in self.network.inputs)
            legal = "a detector has one, (1, 3, H, W), of pictures, and perhaps a second, (1, 2), of integers"
            raise ModelFileError(f"{self.path}: has the inputs {given}; {legal}")
        return pictures, rest

    @staticmethod
    def _check_arguments(preprocessing: Any, size_wh: Any, person_class: Any, score: Any, overlap: Any) -> None:
        """InputError names the argument and what is legal."""
        if not isinstance(preprocessing, Preprocessing | None):
            raise InputError(f"preprocessing is {preprocessing!r}, legal are None and a runtime.Preprocessing")
        if size_wh is not None:
            sides = list(size_wh) if isinstance(size_wh, tuple | list) else []
            if len(sides) != 2:
                raise InputError(f"input_size_wh is {size_wh!r}, legal are None and (width, height) in px")
            for side in sides:
                check_number("input_size_wh", side)
        if not isinstance(person_class, int | None) or isinstance(person_class, bool) or (person_class or 0) < 0:
            raise InputError(f"person_class is {person_class!r}, legal are None and integers from 0 on")
        for name, share in (("score_threshold", score), ("most_overlap", overlap)):
            if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share <= 1:
                raise InputError(f"{name} is {share!r}, legal are numbers in 0..1")

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
        family = recognise(outputs, self.input_size_wh, self.path.name)
        if family is None:
            legal = "; ".join(f"{family.name}: {family.outputs}" for family in FAMILIES)
            given = shapes_of(outputs)
            raise ModelFileError(f"{self.path}: no detector that is known here: outputs {given}. Known are {legal}")
        return family


def shapes_of(arrays: list[NDArray[Any]]) -> str:
    """ "(1, 100, 5), (1, 100)"."""
    return ", ".join(str(array.shape) for array in arrays)
