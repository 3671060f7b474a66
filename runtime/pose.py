"""`Pose`: an artifact opened once, called with images."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.backends import Backend, engine_for, open_backend
from runtime.errors import InputError, ModelFileError
from runtime.geometry import Image, box_to_center_scale, invert_matrix, transform_points, warp_image, warp_matrix
from runtime.inputs import check_boxes, check_image
from runtime.results import Frame, PoseResult
from runtime.sidecar import Sidecar
from runtime.tracking import Follower
from runtime.video import Source, open_source

MODELS_DIR = Path(__file__).parent / "models"
PACKAGED_MODELS = ("edge-s.onnx", "tiny.onnx")  # the first that exists is the default


class Pose:
    """Key points of people in images.

    >>> pose = runtime.Pose()                       # the packaged model; or Pose("pose.xml", device="cpu", threads=2)
    >>> result = pose(image_bgr)                    # one person, whole image
    >>> result = pose(image_bgr, boxes_xyxy)        # one person per box
    >>> for frame in pose.video("clip.mp4"): ...    # follows one person from frame to frame

    Raises:
        ModelFileError: artifact or sidecar missing, damaged or unreadable.
        BackendUnavailable: engine not installed, unknown or absent device.
    """

    def __init__(self, model: str | Path | None = None, device: str = "cpu", threads: int | None = None) -> None:
        path = packaged_model() if model is None else Path(model)
        self.engine = engine_for(path)
        self.path = path
        self.device = device
        self.sidecar = Sidecar.read(path)
        self.sidecar.verify(path)
        self.backend: Backend | None = open_backend(path, device, threads)

    def __call__(self, image_bgr: NDArray[Any], boxes_xyxy: Any = None) -> PoseResult:
        """Estimate one pose per box; stateless, and safe to call from several threads.

        Args:
            image_bgr: (H, W, 3) uint8 BGR; gray, BGRA and uint16 are brought to it.
            boxes_xyxy: (N, 4) px around one person each, None = one box, the whole image. (0, 4) runs nothing.
        Raises:
            InputError: an image or box that cannot be used; the message names it and what is legal.
        """
        image = check_image(image_bgr)
        image_size_wh = (image.shape[1], image.shape[0])
        boxes = check_boxes(boxes_xyxy, image_size_wh)
        started = time.perf_counter()
        crops, matrices = self._cut(image, boxes)
        cut = time.perf_counter()
        keypoints, scores = self._infer(crops, len(boxes))
        inferred = time.perf_counter()
        keypoints_xy = self._to_image(keypoints, matrices)
        decoded = time.perf_counter()
        return PoseResult(
            keypoints_xy=keypoints_xy,
            scores=scores,
            boxes_xyxy=boxes.astype(np.float32),
            names=self.sidecar.keypoint_names,
            skeleton=self.sidecar.skeleton,
            image_size_wh=image_size_wh,
            timing_ms=_durations_ms(started, crop=cut, inference=inferred, decode=decoded),
        )

    def video(self, source: str | int | Path | Source) -> Iterator[Frame]:
        """Every frame of a video, camera, stream, picture, folder or glob, in order, following one person.

        Pictures of a folder have nothing to do with each other: there each one is seen whole.

        Raises:
            InputError: at once, when the source cannot be opened.
        """
        return self._frames(source if isinstance(source, Source) else open_source(source))

    def _frames(self, source: Source) -> Iterator[Frame]:
        follower = Follower()
        with source:
            for raw in source:
                result = self(raw.image, follower.boxes_xyxy)
                if source.is_continuous:
                    follower.update(result)
                yield Frame(raw.index, raw.time_s, raw.name, raw.image, result)

    def _cut(self, image: Image, boxes: NDArray[np.float64]) -> tuple[NDArray[Any], list[NDArray[np.float64]]]:
        """Crops (M, 3, H, W), M = N rounded up to whole batches, filled with zeros; N matrices image -> crop."""
        batch, size_wh = self.sidecar.batch, self.sidecar.input_size_wh
        rows = -(-len(boxes) // batch) * batch
        crops = np.zeros((rows, 3, size_wh[1], size_wh[0]), dtype=self.sidecar.input_dtype)
        matrices = []
        for row, box in enumerate(boxes):
            matrices.append(warp_matrix(*box_to_center_scale(box, size_wh, self.sidecar.padding), size_wh))
            crop = warp_image(image, matrices[-1], size_wh)  # (H, W, 3) BGR
            crops[row] = crop[:, :, ::-1].transpose(2, 0, 1)
        return crops, matrices

    def _infer(self, crops: NDArray[Any], num_boxes: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Key points (N, K, 2) in fractions of the crop and scores (N, K), batch by batch."""
        num_keypoints, batch = len(self.sidecar.keypoint_names), self.sidecar.batch
        keypoints = np.empty((len(crops), num_keypoints, 2), dtype=np.float32)
        scores = np.empty((len(crops), num_keypoints), dtype=np.float32)
        for start in range(0, len(crops), batch):
            rows = slice(start, start + batch)
            keypoints[rows], scores[rows] = self._infer_batch(crops[rows])
        return keypoints[:num_boxes], scores[:num_boxes]

    def _infer_batch(self, crops: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """One run of the engine; ModelFileError when model and sidecar contradict each other."""
        if self.backend is None:
            raise InputError("this Pose is closed")
        try:
            keypoints, scores = self.backend.infer(crops)
        except Exception as error:
            given = f"{crops.dtype} crops {crops.shape}"
            raise ModelFileError(f"{self.path}: {self.engine.name} cannot run it on {given}: {error}") from error
        self._check_outputs(keypoints, scores)
        return keypoints, scores

    def _check_outputs(self, keypoints: NDArray[np.float32], scores: NDArray[np.float32]) -> None:
        expected = (self.sidecar.batch, len(self.sidecar.keypoint_names))
        if keypoints.shape != (*expected, 2) or scores.shape != expected:
            given = f"key points {keypoints.shape} and scores {scores.shape}"
            raise ModelFileError(f"{self.path}: gives {given}, its sidecar says (batch, key points) = {expected}")
        if not (np.isfinite(keypoints).all() and np.isfinite(scores).all()):
            raise ModelFileError(f"{self.path}: gives key points or scores that are not finite")

    def _to_image(self, keypoints: NDArray[np.float32], matrices: list[NDArray[np.float64]]) -> NDArray[np.float32]:
        """Fractions of the crops (N, K, 2) -> image px (N, K, 2), through the inverse of each crop's matrix."""
        keypoints_xy = np.empty_like(keypoints)
        for row, matrix in enumerate(matrices):
            crop_xy = keypoints[row] * np.array(self.sidecar.input_size_wh, dtype=np.float64)
            keypoints_xy[row] = transform_points(crop_xy, invert_matrix(matrix))
        return keypoints_xy

    def close(self) -> None:
        """Give the engine's memory back; a second time does nothing."""
        if self.backend is not None:
            self.backend.close()
            self.backend = None

    def __enter__(self) -> Pose:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def packaged_model() -> Path:
    """The default artifact that comes with the package."""
    for name in PACKAGED_MODELS:
        if (MODELS_DIR / name).is_file():
            return MODELS_DIR / name
    raise ModelFileError(f"no packaged model in {MODELS_DIR} ({', '.join(PACKAGED_MODELS)}): name an artifact")


def _durations_ms(started: float, **ends: float) -> dict[str, float]:
    """Milliseconds between consecutive points in time, by name."""
    durations = {}
    for name, end in ends.items():
        durations[name], started = (end - started) * 1000, end
    return durations
