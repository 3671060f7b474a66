"""Cameras and streams that may fail: what they do wrong is noticed, reported, and answered by reconnecting."""

from __future__ import annotations

import logging
import math
import re
import threading
import time
from collections.abc import Callable, Iterator
from itertools import chain, repeat

import cv2

from runtime.camera_reader import CameraReader, Picture
from runtime.errors import InputError
from runtime.source import RawFrame, Source
from runtime.video_file import open_video

SILENCE_S = 1.5  # without a frame, and a camera is taken for blocked
LONGEST_SILENCE_S = 60.0  # of a camera that was taken for blocked before it had given two frames in quick succession
EMPTY_S = 0.5  # of reads that give nothing, and it is taken for gone
FROZEN_S = 1.5  # of the same picture, in every eighth row and column: sensors are never that quiet
FIRST_FRAME_S = 6.0  # cameras and streams take their time to start
RETRY_S = 60.0  # how long a lost camera is looked for
BACK_OFF_S = (0.25, 0.5, 1.0, 2.0, 4.0)  # between attempts; the last one repeats
MAX_HANGING_READERS = 3  # threads of earlier attempts that still wait for an answer
STREAM_TIMEOUT_MS = 5000
PASSWORD = r"^([^:/]+://[^:/@]*:).*@"  # and what comes before it

Opener = Callable[[], cv2.VideoCapture]

log = logging.getLogger(__name__)


class Camera(Source):
    """A camera ("camera") or network stream ("stream") that is read in a thread of its own.

    Iterating gives the newest frame each time; those that nobody asked for in time are missing in `RawFrame.index`. A
    camera that blocks, gives nothing or shows a frozen picture is opened again, with growing pauses, for `retry_s`.
    `close` may be called from any thread, and ends the iteration. One that nobody holds any more closes itself.
    """

    def __init__(self, kind: str, name: str, opener: Opener, reader: CameraReader, retry_s: float) -> None:
        super().__init__(kind, name, fps=reader.fps)
        self.opener, self.reader, self.retry_s = opener, reader, retry_s
        self._first = 0  # index of the present connection's first frame
        self._hanging: list[CameraReader] = []
        self._closing = threading.Event()
        self._shown, self._shown_since_s = b"", 0.0  # what the picture looks like, and since when
        self._still = b""  # a picture that stayed the same through a reconnection
        self._silence_s, self._newest_s = SILENCE_S, -math.inf  # what is normal for it; when the newest frame was read

    def __iter__(self) -> Iterator[RawFrame]:
        size_wh, started_s = (0, 0), 0.0
        for picture in iter(self._next, None):
            started_s = started_s or picture.time_s
            size_wh = self._report_size(picture, size_wh)
            is_frozen = self._is_frozen(picture)  # asked now: whoever gets the picture may draw on it
            yield RawFrame(self._first + picture.number, picture.time_s - started_s, self.name, picture.image)
            if is_frozen:
                self._reconnect("picture frozen", f"shows the same picture for {FROZEN_S} s")

    def _next(self) -> Picture | None:
        """The newest picture, of a new connection if need be; None when closed."""
        while not self._closing.is_set():
            silence_s = self._silence_s if self.reader.number else max(FIRST_FRAME_S, self._silence_s)
            picture = self.reader.newest(silence_s, EMPTY_S)
            if picture is not None:
                if picture.time_s - self._newest_s < SILENCE_S / 2:
                    self._silence_s = SILENCE_S
                self._newest_s = picture.time_s
                return picture
            if self._closing.is_set():
                break
            if self.reader.is_empty:
                self._reconnect("no frames", "gives no more frames")
            else:
                self._silence_s = min(2 * self._silence_s, LONGEST_SILENCE_S)  # perhaps it is slow
                self._reconnect("blocked", f"gives no frame for {silence_s:g} s")
        return None

    def _reconnect(self, fault: str, problem: str) -> None:
        """Open the camera again and again until it gives a frame; InputError after `retry_s`, or for huge frames."""
        self.faults[fault] += 1
        self._newest_s = -math.inf
        log.warning("%s %s: %s; opening it again", self.kind, self.name, problem)
        self._first += self.reader.number
        lost_s = time.monotonic()
        for pause_s in chain(BACK_OFF_S, repeat(BACK_OFF_S[-1])):
            self._put_away(self.reader)
            if time.monotonic() + pause_s - lost_s > self.retry_s:
                gone = f"not back within {self.retry_s:g} s"
                raise InputError(f"{self.kind} {self.name}: {problem} after {self._first} frames, {gone}")
            if self._closing.wait(pause_s):
                return
            if len(self._hanging) < MAX_HANGING_READERS:
                self.reader = CameraReader(self.opener)
                if self.reader.wait_for_frame(max(FIRST_FRAME_S, self._silence_s)):
                    break
                refuse_large(self.reader, f"{self.kind} {self.name}")
        self.faults["reconnected"] += 1
        log.warning("%s %s: back after %.1f s", self.kind, self.name, time.monotonic() - lost_s)

    def _put_away(self, reader: CameraReader) -> None:
        """Stop a reader; one that hangs in the driver is left alone and remembered until it ends."""
        if not reader.stop() and reader not in self._hanging:
            self._hanging.append(reader)
        self._hanging = [other for other in self._hanging if other.is_alive()]

    def _is_frozen(self, picture: Picture) -> bool:
        """Whether the same picture has come for FROZEN_S; one that survives a reconnection is a still scene."""
        looks = picture.image[::8, ::8].tobytes()
        if looks != self._shown:
            self._shown, self._shown_since_s = looks, picture.time_s
            self._still = self._still if looks == self._still else b""
            return False
        if looks == self._still or picture.time_s - self._shown_since_s < FROZEN_S:
            return False
        self._still, self._shown = looks, b""
        return True

    def _report_size(self, picture: Picture, previous_wh: tuple[int, int]) -> tuple[int, int]:
        size_wh = (picture.image.shape[1], picture.image.shape[0])
        if previous_wh not in ((0, 0), size_wh):
            self.faults["size changed"] += 1
            old, new = (f"{width} x {height} px" for width, height in (previous_wh, size_wh))
            log.warning("%s %s: frames are %s large, they were %s", self.kind, self.name, new, old)
        return size_wh

    def close(self) -> None:
        """Let go of the camera; where the driver hangs, its thread is left behind and ends with the program."""
        if not self._closing.is_set():
            self._closing.set()
            self.reader.stop()

    def __del__(self) -> None:
        self.reader.stopping = True  # nobody has it any more: the thread lets go of the camera after its next read


def open_camera(number: int, retry_s: float = RETRY_S) -> Camera:
    """Open a local camera.

    Raises:
        InputError: it is not there, in use, or not permitted, or its frames are larger than MAX_PIXELS.
    """
    camera = connect("camera", str(number), lambda: cv2.VideoCapture(number), retry_s)
    if camera is None:
        raise InputError(f"camera {number} cannot be opened: not there, in use, or not permitted")
    return camera


def open_stream(url: str, retry_s: float = RETRY_S) -> Source:
    """Open a network stream; a URL of a file with a known number of frames is a video.

    Raises:
        InputError: nothing answers within STREAM_TIMEOUT_MS, or its frames are larger than MAX_PIXELS.
    """
    name = without_password(url)
    timeouts = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, STREAM_TIMEOUT_MS, cv2.CAP_PROP_READ_TIMEOUT_MSEC, STREAM_TIMEOUT_MS]
    stream = connect("stream", name, lambda: cv2.VideoCapture(url, cv2.CAP_FFMPEG, timeouts), retry_s)
    if stream is None:
        raise InputError(f"{name}: the stream cannot be opened: no video within {STREAM_TIMEOUT_MS / 1000:.0f} s")
    if stream.reader.announced > 0:
        stream.close()
        return open_video(url, name, timeouts)
    return stream


def without_password(url: str) -> str:
    """The URL as it may be shown: `rtsp://me:secret@host/` -> `rtsp://me:***@host/`.

    All up to the last "@" is hidden: a password may hold what ends the host's part of a proper URL, such as "/" or "#".
    """
    return re.sub(PASSWORD, r"\1***@", url, flags=re.DOTALL)


def connect(kind: str, name: str, opener: Opener, retry_s: float = RETRY_S) -> Camera | None:
    """A camera whose reader has opened it; None when that failed or took too long, InputError for huge frames."""
    reader = CameraReader(opener)
    if not reader.wait_until_open(FIRST_FRAME_S):
        reader.stop()
        refuse_large(reader, f"{kind} {name}")
        return None
    return Camera(kind, name, opener, reader, retry_s)


def refuse_large(reader: CameraReader, name: str) -> None:
    """InputError for a connection that announced frames larger than MAX_PIXELS, of which none has been read."""
    if reader.too_large:
        raise InputError(f"{name}: {reader.too_large}")
