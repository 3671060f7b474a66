"""Where pictures come from: a file, folder, glob, video, camera or stream, each as numbered frames with time stamps."""

from __future__ import annotations

import glob
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import cv2
import numpy as np

from runtime.errors import InputError
from runtime.geometry import Image

IMAGE_EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
VIDEO_EXTENSIONS = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg")
LEGAL_SOURCES = "legal are a picture, a folder, a glob, a video file, a camera's number and a stream's URL"
STREAM_TIMEOUT_MS = 5000
DEFAULT_FPS = 30.0  # where a source does not know its own
ENDED_EARLY_SHARE = 0.9  # of the frames that a video announces

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class RawFrame:
    """A picture of a source, before anyone has looked at it."""

    index: int  # 0-based
    time_s: float  # since the first frame
    name: str  # file name of a picture; of anything else, the source's
    image: Image  # (H, W, 3) uint8 BGR


@dataclass
class Source:
    """Something opened that gives frames, once. Close it, or use it in a `with`."""

    kind: str  # "image", "folder", "video", "camera" or "stream"
    name: str
    fps: float = DEFAULT_FPS
    count: int | None = None  # frames that are announced; None for cameras and streams
    paths: list[Path] = field(default_factory=list)  # of pictures
    capture: cv2.VideoCapture | None = None  # of moving ones
    skipped: int = 0  # unreadable pictures of a folder, so far

    @property
    def is_continuous(self) -> bool:
        """Whether a frame shows the same scene as the one before it."""
        return self.capture is not None

    @property
    def is_live(self) -> bool:
        """Whether time passes for it while nobody reads."""
        return self.kind in ("camera", "stream")

    def __iter__(self) -> Iterator[RawFrame]:
        return self._captured() if self.capture is not None else self._pictures()

    def _pictures(self) -> Iterator[RawFrame]:
        """Read the pictures; in a folder, an unreadable one is reported and left out, unless all are."""
        index = 0
        for path in self.paths:
            try:
                image = read_image(path)
            except InputError as error:
                if self.kind == "image":
                    raise
                self.skipped += 1
                log.warning("skipped: %s", error)
                continue
            yield RawFrame(index, index / self.fps, path.name, image)
            index += 1
        if index == 0:
            raise InputError(f"{self.name}: none of its {len(self.paths)} pictures can be read")

    def _captured(self) -> Iterator[RawFrame]:
        index, time_s, started = 0, 0.0, 0.0
        assert self.capture is not None
        while True:
            read, image = self.capture.read()
            now = time.monotonic()
            if not read or image is None:
                break
            started = started or now
            time_s = now - started if self.is_live else self._stamp_s(index, time_s)
            yield RawFrame(index, time_s, self.name, np.asarray(image, dtype=np.uint8))
            index += 1
        self._check_end(index)

    def _stamp_s(self, index: int, previous_s: float) -> float:
        """The file's own time stamp of frame `index`, where it moves on; else one frame after the previous."""
        assert self.capture is not None
        stamp_s = self.capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
        return stamp_s if index == 0 or stamp_s > previous_s else previous_s + 1 / self.fps

    def _check_end(self, num_frames: int) -> None:
        """Tell an end from a break: no frame at all, a camera that stops, a video shorter than it says."""
        if num_frames == 0:
            raise InputError(f"{self.kind} {self.name}: no frame can be read")
        if self.is_live:
            raise InputError(f"{self.kind} {self.name}: gives no more frames after {num_frames}")
        if self.count is not None and num_frames < ENDED_EARLY_SHARE * self.count:
            log.warning("%s: ends at frame %d of %d, the rest cannot be read", self.name, num_frames, self.count)

    def close(self) -> None:
        """Let go of the camera or file."""
        if self.capture is not None:
            self.capture.release()

    def __enter__(self) -> Source:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_source(source: str | int | Path) -> Source:
    """Open what a user names: 0, "0", "clip.mp4", "photo.jpg", "folder", "folder/*.png", "rtsp://...".

    Raises:
        InputError: nothing there, or nothing that can be opened; the message names the source and what is legal.
    """
    text = str(source)
    if isinstance(source, bool) or not text:
        raise InputError(f"the source is {source!r}, {LEGAL_SOURCES}")
    if text.isdecimal():
        return _open_camera(int(text))
    if "://" in text:
        return _open_stream(text)
    path = Path(text)
    if path.is_dir():
        return _list_pictures(path, sorted(p for p in path.iterdir() if p.suffix.lower() in IMAGE_EXTENSIONS))
    if path.is_file():
        return _open_file(path)
    if glob.has_magic(text):
        return _list_pictures(path, sorted(Path(p) for p in glob.glob(text) if Path(p).is_file()))
    raise InputError(f"{text}: no such file or folder, {LEGAL_SOURCES}")


def read_image(path: Path) -> Image:
    """Decode a picture as (H, W, 3) uint8 BGR, turned the way its EXIF entry says; InputError if it is damaged."""
    try:
        encoded = np.frombuffer(path.read_bytes(), dtype=np.uint8)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    try:
        image = cv2.imdecode(encoded, cv2.IMREAD_COLOR) if encoded.size else None
    except cv2.error as error:
        raise InputError(f"{path}: cannot be decoded: {error.err}") from error
    if image is None:
        raise InputError(f"{path}: cannot be decoded: truncated, or not a picture")
    return image  # type: ignore[return-value]


def _list_pictures(path: Path, paths: list[Path]) -> Source:
    if not paths:
        raise InputError(f"{path}: no pictures there ({' '.join(IMAGE_EXTENSIONS)})")
    return Source("folder", str(path), count=len(paths), paths=paths)


def _open_file(path: Path) -> Source:
    if path.suffix.lower() in IMAGE_EXTENSIONS:
        return Source("image", str(path), count=1, paths=[path])
    capture = cv2.VideoCapture(str(path))
    if not capture.isOpened():
        legal = " ".join((*IMAGE_EXTENSIONS, *VIDEO_EXTENSIONS))
        raise InputError(f"{path}: cannot be opened as a video: damaged, or not one ({legal})")
    count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    return Source("video", str(path), fps=_fps_of(capture), count=count if count > 0 else None, capture=capture)


def _open_camera(number: int) -> Source:
    capture = cv2.VideoCapture(number)
    if not capture.isOpened():
        raise InputError(f"camera {number} cannot be opened: not there, in use, or not permitted; {LEGAL_SOURCES}")
    return Source("camera", str(number), fps=_fps_of(capture), capture=capture)


def _open_stream(url: str) -> Source:
    timeouts = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, STREAM_TIMEOUT_MS, cv2.CAP_PROP_READ_TIMEOUT_MSEC, STREAM_TIMEOUT_MS]
    capture = cv2.VideoCapture(url, cv2.CAP_FFMPEG, timeouts)
    if not capture.isOpened():
        raise InputError(f"{url}: the stream cannot be opened within {STREAM_TIMEOUT_MS / 1000:.0f} s")
    return Source("stream", url, fps=_fps_of(capture), capture=capture)


def _fps_of(capture: cv2.VideoCapture) -> float:
    fps = capture.get(cv2.CAP_PROP_FPS)
    return fps if 1 <= fps <= 1000 else DEFAULT_FPS
