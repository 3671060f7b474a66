"""The thread that reads a camera, so that nobody waits inside a driver."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import cv2

from runtime.geometry import Image
from runtime.video_file import fps_of, read_frame, too_large_to_read

EMPTY_PAUSE_S = 0.01  # between reads that give nothing
STOP_S = 0.3  # that a reader is given to come back from the driver


@dataclass(frozen=True, eq=False)
class Picture:
    """One frame as it came."""

    number: int  # 0-based, of this connection
    time_s: float  # of a monotonic clock
    image: Image  # (H, W, 3) uint8 BGR


class CameraReader(threading.Thread):
    """Opens a capture and reads it until told to stop; holds the newest picture only.

    Calls into drivers can hang for ever, and releasing a capture from outside while it is read can crash: so this
    thread alone touches the capture, and is a daemon that no one has to wait for.
    """

    def __init__(self, opener: Callable[[], cv2.VideoCapture]) -> None:
        super().__init__(name="camera", daemon=True)
        self.opener = opener
        self.changed = threading.Condition()
        self.state = "opening"  # then "open", at last "closed"
        self.stopping = False
        self.slot: Picture | None = None
        self.number = 0  # pictures so far
        self.dropped = 0  # of them, replaced before anyone took them
        self.empty_since_s: float | None = None  # None = the last read gave a picture
        self.fps, self.announced = 0.0, 0
        self.too_large = ""  # the announced size and the legal one; then nothing is read
        self.start()

    @property
    def is_empty(self) -> bool:
        """Whether the capture answers, but with nothing."""
        return self.empty_since_s is not None or self.state == "closed"

    def run(self) -> None:
        """Open, read, release."""
        capture = None
        try:
            capture = self.opener()
            if capture.isOpened():
                self.fps, self.announced = fps_of(capture), int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
                self.too_large = too_large_to_read(capture)
                if not self.too_large:
                    self._set_state("open")
                    self._read_until_stopped(capture)
        except cv2.error:
            pass  # said by the state: this connection is closed
        finally:
            if capture is not None:
                capture.release()
            self._set_state("closed")

    def _read_until_stopped(self, capture: cv2.VideoCapture) -> None:
        while not self.stopping:
            image = read_frame(capture)
            with self.changed:
                if image is None:
                    self.empty_since_s = self.empty_since_s or time.monotonic()
                else:
                    self.empty_since_s = None
                    self.dropped += self.slot is not None
                    self.slot = Picture(self.number, time.monotonic(), image)
                    self.number += 1
                self.changed.notify_all()
            if image is None:
                time.sleep(EMPTY_PAUSE_S)

    def _set_state(self, state: str) -> None:
        with self.changed:
            self.state = state
            self.changed.notify_all()

    def wait_until_open(self, timeout_s: float) -> bool:
        """Whether the capture could be opened within that time."""
        with self.changed:
            self.changed.wait_for(lambda: self.state != "opening", timeout_s)
            return self.state == "open"

    def wait_for_frame(self, timeout_s: float) -> bool:
        """Whether there is a picture within that time; it stays to be taken."""
        with self.changed:
            self.changed.wait_for(lambda: self.slot is not None or self.state == "closed" or self.stopping, timeout_s)
            return self.slot is not None

    def newest(self, silence_s: float, empty_s: float) -> Picture | None:
        """Take the newest picture that nobody has taken; None after `silence_s`, or `empty_s` of empty reads."""
        deadline_s = time.monotonic() + silence_s
        with self.changed:
            while self.slot is None and self.state != "closed" and not self.stopping:
                if time.monotonic() >= deadline_s:
                    break
                if self.empty_since_s is not None and time.monotonic() - self.empty_since_s >= empty_s:
                    break
                self.changed.wait(max(deadline_s - time.monotonic(), 0))
            picture, self.slot = self.slot, None
        return picture

    def stop(self) -> bool:
        """Ask the thread to end; whether it did at once."""
        with self.changed:
            self.stopping = True
            self.changed.notify_all()
        self.join(STOP_S)
        return not self.is_alive()
