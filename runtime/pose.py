"""`Pose`: an artifact opened once, called with images."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.backends import Backend, engine_for, open_backend
from runtime.cropping import Cropper
from runtime.crowd import Crowd
from runtime.detections import Detect
from runtime.detectors import open_detector
from runtime.errors import InputError, ModelFileError
from runtime.following import AtEachSize, Follower, OnePerson
from runtime.identities import IDENTITIES, Identities, PoseIdentities, open_identities
from runtime.inputs import check_boxes, check_image, check_number
from runtime.live import Live, OnResult
from runtime.playback import See, Video
from runtime.results import PoseResult
from runtime.sidecar import Sidecar
from runtime.smoothing import Smoother, Smoothing
from runtime.video import Source, open_source

MODELS_DIR = Path(__file__).parent / "models"
PACKAGED_MODELS = ("edge-s.onnx", "edge-n.onnx", "tiny.onnx")  # the first that exists is the default
DETECT_EVERY = 10  # frames

AnySource = str | int | Path | Source


class Pose:
    """Key points of people in images, videos and cameras.

    >>> pose = runtime.Pose()                       # the packaged model; or Pose("pose.xml", device="cpu", threads=2)
    >>> result = pose(image_bgr)                    # one person, who fills the image
    >>> result = pose.find(image_bgr)               # one person somewhere in it, or nobody
    >>> result = pose(image_bgr, boxes_xyxy)        # one person per box
    >>> for frame in pose.video("clip.mp4"): ...    # every frame, following people
    >>> with pose.live(0, on_result) as live: ...   # always the newest frame

    Args:
        model: an artifact, or the name of a packaged one, such as "tiny"; None = the default one.
        device: one of the engine's devices; never replaced by another one. A detector's file runs there, too, or, where
            its engine has no such device, on the CPU, with a warning in the log.
        threads: CPU threads of the engine; None = the CPUs that this program may use.
        detector: who finds people: a network's file (ONNX or OpenVINO), "hog", or a callable that takes an image
            (H, W, 3) BGR and returns boxes (N, 4) px, or (N, 5) with scores. None = one person, without a detector.
        detect_every: in videos, the detector runs every so many frames.
        tracker: who gives the ids: "oks" (alike poses), or "bytetrack" of the package `trackers`.
        smoothing: of key points in videos; True = `Smoothing()`, False = none. Single images are never smoothed.
    Raises:
        ModelFileError: artifact or sidecar missing, damaged or unreadable.
        BackendUnavailable: engine, detector or tracker not installed, unknown or absent device.
        InputError: another argument that is not legal; the message names it.
    """

    def __init__(
        self,
        model: str | Path | None = None,
        device: str = "cpu",
        threads: int | None = None,
        *,
        detector: Any = None,
        detect_every: int = DETECT_EVERY,
        tracker: str = IDENTITIES[0],
        smoothing: bool | Smoothing = True,
    ) -> None:
        if not isinstance(model, str | Path | None):
            raise InputError(f"model is {model!r}, legal are None and the path of an artifact")
        path = packaged_model(model)
        self.engine = engine_for(path)
        self.path = path
        self.device = device
        self.sidecar = Sidecar.read(path)
        self.sidecar.verify(path)
        self.smoothing = check_smoothing(smoothing)
        self.detect_every = check_number("detect_every", detect_every)
        self.tracker = tracker
        open_identities(tracker, self.sidecar.sigmas, 1.0)
        self.detect: Detect | None = open_detector(detector, device, threads)
        self.backend: Backend | None = open_backend(path, device, threads)
        self._cropper = Cropper(self.sidecar.input_size_wh, self.sidecar.input_dtype, self.sidecar.padding)

    def __call__(self, image_bgr: NDArray[Any], boxes_xyxy: Any = None) -> PoseResult:
        """Estimate one pose per box; stateless, and safe to call from several threads.

        Args:
            image_bgr: (H, W, 3) uint8 BGR; gray, BGRA and uint16 are brought to it.
            boxes_xyxy: (N, 4) px around one person each; (0, 4) runs nothing. None = who the detector finds, and
                without a detector one box, the whole image.
        Raises:
            InputError: an image or box that cannot be used; the message names it and what is legal.
        """
        if boxes_xyxy is not None or self.detect is None:
            return self._estimate(image_bgr, boxes_xyxy)
        image, started = check_image(image_bgr), time.perf_counter()
        boxes = self.detect(image).boxes_xyxy
        detect_ms = (time.perf_counter() - started) * 1000
        result = self._estimate(image, boxes)
        return replace(result, timing_ms={"detect": detect_ms, **result.timing_ms})

    def find(self, image_bgr: NDArray[Any]) -> PoseResult:
        """One person somewhere in a picture, without a detector; 0 persons where nobody is found. Stateless.

        Looks at the whole picture and at dozens of windows of three sizes, then closer at the best: as many runs of the
        engine. With a detector it finds everybody, as a call does.

        Raises:
            InputError: an image that cannot be used.
        """
        if self.detect is not None:
            return self(image_bgr)
        return self._one_person(PoseIdentities(self.sidecar.sigmas)).find(check_image(image_bgr))

    def video(self, source: AnySource) -> Video:
        """Every frame of a video, camera, stream, picture, folder or glob, in order: an iterator, and a `with`.

        In moving pictures people are followed, have ids and are smoothed. Pictures of a folder have nothing to do with
        each other: each one is answered as by `find`.

        Raises:
            InputError: at once, when the source cannot be opened.
        """
        opened = source if isinstance(source, Source) else open_source(source)
        return Video(opened, self.watch(opened))

    def live(self, source: AnySource, on_result: OnResult | None = None) -> Live:
        """Always the newest frame of a camera, stream or video; frames that come meanwhile are dropped and counted.

        The source is read in its own thread, a video at its own pace. `on_result(frame)` is called in another one, in
        order; when it returns False, it was the last. Without `on_result`, iterate over what comes back.

        Raises:
            InputError: at once, when the source cannot be opened or is no moving picture, or for another `on_result`.
        """
        if on_result is not None and not callable(on_result):
            raise InputError(f"on_result is {on_result!r}, legal are None and a callable that takes a frame")
        opened = source if isinstance(source, Source) else open_source(source)
        if not opened.is_continuous:
            raise InputError(
                f"{opened.name}: live needs a camera, stream or video, not a source of the kind '{opened.kind}'"
            )
        return Live(opened, self.watch(opened), on_result)

    def watch(self, source: Source) -> See:
        """What answers this source's frames one after the other: follows and smooths where they move."""
        if not source.is_continuous:
            return lambda image, time_s: self.find(image)
        identities = open_identities(self.tracker, self.sidecar.sigmas, source.fps)
        return AtEachSize(lambda: self._steady(self._follower(identities))).see

    def _steady(self, follower: Follower) -> See:
        """What it sees, smoothed where that is wanted."""
        if self.smoothing is None:
            return follower.see
        smoother = Smoother(self.smoothing)
        return lambda image, time_s: smoother.smooth(follower.see(image, time_s), time_s)

    def _follower(self, identities: Identities) -> Follower:
        """Who follows one person, or with a detector several."""
        if self.detect is None:
            return self._one_person(identities)
        sigmas, presence = self.sidecar.sigmas, self.sidecar.presence_score
        return Crowd(self._estimate, self.detect, self.detect_every, identities, sigmas, presence)

    def _one_person(self, identities: Identities) -> OnePerson:
        """Who follows one person, or finds one."""
        width, height = self.sidecar.input_size_wh
        padding, presence = self.sidecar.padding, self.sidecar.presence_score
        return OnePerson(self._estimate, identities, width / height, padding, presence)

    def _estimate(self, image_bgr: NDArray[Any], boxes_xyxy: Any) -> PoseResult:
        """One pose per box, None = the whole image."""
        image = check_image(image_bgr)
        image_size_wh = (image.shape[1], image.shape[0])
        boxes = check_boxes(boxes_xyxy, image_size_wh)
        started = time.perf_counter()
        rows = -(-len(boxes) // self.sidecar.batch) * self.sidecar.batch  # whole batches
        crops, regions = self._cropper.cut(image, boxes, rows)
        cut = time.perf_counter()
        keypoints, scores = self._infer(crops, len(boxes))
        inferred = time.perf_counter()
        keypoints_xy = self._cropper.to_image(keypoints, regions)
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

    def _infer(self, crops: NDArray[Any], num_boxes: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Key points (N, K, 2) in fractions of the crop and scores (N, K); ModelFileError for any others."""
        backend, batch = self.backend, self.sidecar.batch
        if backend is None:
            raise InputError("this Pose is closed")
        try:  # nothing else between two runs: what the engine leaves of the caches is slow to come back
            outputs = [backend.infer(crops[start : start + batch]) for start in range(0, len(crops), batch)]
        except Exception as error:
            given = f"{crops.dtype} crops {(batch, *crops.shape[1:])}"
            raise ModelFileError(f"{self.path}: {self.engine.name} cannot run it on {given}: {error}") from error
        expected = (batch, len(self.sidecar.keypoint_names))
        for keypoints, scores in outputs:
            if keypoints.shape != (*expected, 2) or scores.shape != expected:
                given = f"key points {keypoints.shape} and scores {scores.shape}"
                raise ModelFileError(f"{self.path}: gives {given}, its sidecar says (batch, key points) = {expected}")
        if not outputs:
            return np.zeros((0, expected[1], 2), np.float32), np.zeros((0, expected[1]), np.float32)
        keypoints, scores = (np.concatenate(parts, dtype=np.float32) for parts in zip(*outputs, strict=True))
        if not (np.isfinite(keypoints).all() and np.isfinite(scores).all()):
            raise ModelFileError(f"{self.path}: gives key points or scores that are not finite")
        return keypoints[:num_boxes], scores[:num_boxes]

    def close(self) -> None:
        """Give the engine's memory back; a second time does nothing."""
        if self.backend is not None:
            self.backend.close()
            self.backend = self.detect = None

    def __enter__(self) -> Pose:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def packaged_model(model: str | Path | None = None) -> Path:
    """The artifact that `model` names: a path, or a packaged one's name ("tiny"); None is the default one."""
    if f"{model}.onnx" in PACKAGED_MODELS and (MODELS_DIR / f"{model}.onnx").is_file():
        return MODELS_DIR / f"{model}.onnx"
    if model is not None:
        path = Path(model)
        if not path.suffix and not os.path.exists(path):
            names = ", ".join(sorted(found.stem for found in MODELS_DIR.glob("*.onnx")))
            raise ModelFileError(f"{path}: no such artifact, and no packaged model; those are {names}")
        return path
    for name in PACKAGED_MODELS:
        if (MODELS_DIR / name).is_file():
            return MODELS_DIR / name
    raise ModelFileError(f"no packaged model in {MODELS_DIR} ({', '.join(PACKAGED_MODELS)}): name an artifact")


def check_smoothing(smoothing: bool | Smoothing) -> Smoothing | None:
    """What `smoothing=` means; InputError for anything else."""
    if isinstance(smoothing, bool):
        return Smoothing() if smoothing else None
    if not isinstance(smoothing, Smoothing):
        raise InputError(f"smoothing is {smoothing!r}, legal are True, False and a runtime.Smoothing")
    return smoothing


def _durations_ms(started: float, **ends: float) -> dict[str, float]:
    """Milliseconds between consecutive points in time, by name."""
    durations = {}
    for name, end in ends.items():
        durations[name], started = (end - started) * 1000, end
    return durations
