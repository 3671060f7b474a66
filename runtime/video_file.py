"""Video files, read to their end: behind a broken part too, which is reported."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from typing import TypeVar

import cv2
import numpy as np

from runtime.errors import InputError
from runtime.geometry import Image
from runtime.inputs import check_image
from runtime.pictures import IMAGE_EXTENSIONS, MAX_PIXELS
from runtime.source import DEFAULT_FPS, RawFrame, Source

VIDEO_EXTENSIONS = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg")
TEXT_CODEC = "ansi"  # FFmpeg paints text files
GAP_S, GAP_INTERVALS = 0.5, 4  # time stamps that jump by more than both are a gap
HOLE_INTERVALS = 2.5  # time stamps that jump by more leave out a frame or two
FEW_FRAMES = 2  # that many videos announce too many
EARLY_SHARE, EARLY_S = 0.1, 10.0  # of the announced length; whole films lack less, when they were trimmed or sound on
SLOWEST_FPS, FASTEST_FPS = 1 / 60, 1000.0  # a frame a minute is not nonsense
POLL_S = 0.1
COUNTED_ONLY = ".avi"  # without time stamps: frames that are missing in its middle are missing at its end

log = logging.getLogger(__name__)
T = TypeVar("T")


class VideoFile(Source):
    """Frames in order, with the file's own time stamps."""

    capture: cv2.VideoCapture
    is_remote: bool = False  # a read may wait for a network
    has_hole: bool = False  # in its time stamps, so far
    _reading: Future[Image | None] | None = None  # of a remote file: the last read, which may still be waiting

    def __iter__(self) -> Iterator[RawFrame]:
        index, num_frames, time_s, image = 0, 0, 0.0, None
        while True:
            following = self._read()
            found = self._behind_break(index, image) if following is None else None
            if found is not None:
                index, following = found
            if following is None:
                break
            stamp_s = self._stamp_s(num_frames, time_s)
            if num_frames and found is None:
                self._watch_time(time_s, stamp_s)
            image, time_s = following, stamp_s
            yield RawFrame(index, time_s, self.name, image)
            index, num_frames = index + 1, num_frames + 1
        self._check_end(num_frames, time_s)

    def _read(self, index: int | None = None) -> Image | None:
        """The next frame, or that of an index; None at the end, or where the file is broken."""

        def read() -> Image | None:
            """Jump, where asked to, and read."""
            if index is not None:
                self.capture.set(cv2.CAP_PROP_POS_FRAMES, index)
            return read_frame(self.capture)

        if not self.is_remote:
            return read()
        self._reading = in_a_thread(read)
        return answer_of(self._reading)

    def _stamp_s(self, num_frames: int, previous_s: float) -> float:
        """The file's own time stamp of the frame just read where it moves on, else one frame after the previous."""
        stamp_s = self.capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
        return stamp_s if num_frames == 0 or stamp_s > previous_s else previous_s + 1 / self.fps

    def _watch_time(self, previous_s: float, stamp_s: float) -> None:
        """Report a gap between two frames; remember a hole, which the number of frames may explain at the end."""
        self.has_hole |= stamp_s - previous_s > HOLE_INTERVALS / self.fps
        if stamp_s - previous_s > max(GAP_S, GAP_INTERVALS / self.fps):
            self.faults["gap in the video"] += 1
            log.warning("%s: no frame can be read between %.2f s and %.2f s", self.name, previous_s, stamp_s)

    def _behind_break(self, index: int, last: Image | None) -> tuple[int, Image] | None:
        """The first frame from `index` on that can be read by jumping there; None when the video is at its end.

        Steps double until a frame can be read, then halve back to the first one that can.
        """
        if last is None or self.count is None or index >= self.count:
            return None
        image = self._read(self.count - 1)
        if image is not None and np.array_equal(image, last):
            return None  # the end was reached: frames are missing before it
        unreadable, readable, step = index - 1, None, 1
        while readable is None and unreadable < self.count - 1:
            target = min(unreadable + step, self.count - 1)
            unreadable, readable = (target, None) if self._read(target) is None else (unreadable, target)
            step *= 2
        while readable is not None and readable - unreadable > 1:
            middle = (unreadable + readable) // 2
            unreadable, readable = (middle, readable) if self._read(middle) is None else (unreadable, middle)
        image = None if readable is None else self._read(readable)
        if readable is None or image is None or np.array_equal(image, last):
            return None
        self.faults["break in the video"] += 1
        log.warning("%s: broken at frame %d, goes on at frame %d of %d", self.name, index, readable, self.count)
        return readable, image

    def _check_end(self, num_frames: int, last_s: float) -> None:
        """Tell an end from a break: no frame at all, or clearly fewer than announced and a sign of where they were."""
        if num_frames == 0:
            raise InputError(f"video {self.name}: no frame can be read")
        missing = 0 if self.count is None else self.count - num_frames
        if missing > FEW_FRAMES and (self.faults or self.has_hole or self._ends_early(last_s)):
            self.faults["frames missing"] += missing
            log.warning("%s: %d of %d frames could be read", self.name, num_frames, self.count)

    def _ends_early(self, last_s: float) -> bool:
        """Whether the last frame is over before the announced end, by more than that of whole films."""
        announced_s = (self.count or 0) / self.fps
        allowed_s = 0.0 if self.name.lower().endswith(COUNTED_ONLY) else min(EARLY_SHARE * announced_s, EARLY_S)
        return announced_s - (last_s + 1 / self.fps) > allowed_s

    def close(self) -> None:
        """Let go of the file; one that is being read keeps its connection until that returns."""
        if self._reading is None or self._reading.done():
            self.capture.release()


def open_video(path: str, name: str = "", timeouts: Sequence[int] = ()) -> VideoFile:
    """Open a file, or the URL of one.

    Args:
        path: file or URL.
        name: what to call it; "" = the path.
        timeouts: of a URL, as OpenCV's parameters.
    Raises:
        InputError: it is no video that OpenCV knows, or its frames are larger than MAX_PIXELS.
    """
    name = name or path
    if timeouts:
        capture = answer_of(in_a_thread(lambda: cv2.VideoCapture(path, cv2.CAP_FFMPEG, list(timeouts))))
    else:
        capture = cv2.VideoCapture(path)
    if not capture.isOpened():
        raise InputError(
            f"{name}: cannot be opened: damaged, or neither a video ({' '.join(VIDEO_EXTENSIONS)}, ...) nor a picture "
            f"({' '.join(IMAGE_EXTENSIONS)})"
        )
    if int(capture.get(cv2.CAP_PROP_FOURCC)) == cv2.VideoWriter.fourcc(*TEXT_CODEC):
        capture.release()
        raise InputError(f"{name}: is text, not a video")
    too_large = too_large_to_read(capture)
    if too_large:
        capture.release()
        raise InputError(f"{name}: {too_large}")
    count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    video = VideoFile("video", name, fps=fps_of(capture), count=count if count > 0 else None)
    video.capture, video.is_remote = capture, bool(timeouts)
    return video


def in_a_thread(call: Callable[[], T]) -> Future[T]:
    """The answer of a call that may wait for a network, when it comes."""
    future: Future[T] = Future()

    def work() -> None:
        """The thread."""
        try:
            future.set_result(call())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=work, daemon=True).start()
    return future


def answer_of(future: Future[T]) -> T:
    """Wait for it; Ctrl-C is heard meanwhile."""
    while not future.done():
        with contextlib.suppress(TimeoutError):
            future.result(POLL_S)
    return future.result()


def read_frame(capture: cv2.VideoCapture) -> Image | None:
    """The next frame as BGR; None when there is none or it is no picture."""
    try:
        read, image = capture.read()
        return check_image(image) if read and image is not None else None
    except (cv2.error, InputError):
        return None


def too_large_to_read(capture: cv2.VideoCapture) -> str:
    """Which size a capture announces and which is legal; "" when it is legal."""
    width, height = (int(capture.get(which)) for which in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
    if width * height <= MAX_PIXELS:
        return ""
    return f"has {width} x {height} px, legal are {MAX_PIXELS // 10**6} megapixels at most"


def fps_of(capture: cv2.VideoCapture) -> float:
    """Frames per second that a capture announces, or DEFAULT_FPS where that is nonsense."""
    fps = capture.get(cv2.CAP_PROP_FPS)
    return fps if SLOWEST_FPS <= fps <= FASTEST_FPS else DEFAULT_FPS
