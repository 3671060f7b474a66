"""A camera that fails on a timetable, in place of cv2.VideoCapture."""

from __future__ import annotations

import os
import threading
import time

import cv2
import numpy as np

FRAME_S, SLOW_S = 0.01, 0.5
SIZES_WH = {"small": (160, 120)}
SIZE_WH = (320, 240)


class FakeCamera:
    """Behaves by a timetable: ("ok", 0.5), ("block", 3), ... seconds each, or until a file of that name exists.

    The last behaviour stays. ok, small: pictures with noise; slow: with long pauses. freeze: the same picture again and
    again. empty: reads that give nothing. gone: the same, and it cannot be opened either. hang: a read that never
    returns. gray, none, odd: a gray picture, none at all, something that is no picture.
    """

    def __init__(self, *timetable: tuple[str, float | str]) -> None:
        self.timetable = list(timetable)
        self.began_s: list[float] = []  # when each behaviour began
        self.opened = self.released = 0
        self.frozen = picture(SIZE_WH, 0)
        self.lock = threading.Lock()

    @property
    def behaviour(self) -> str:
        with self.lock:
            now_s = time.monotonic()
            self.began_s = self.began_s or [now_s]
            while len(self.began_s) < len(self.timetable) and self._is_over(now_s):
                self.began_s.append(now_s)
            return self.timetable[len(self.began_s) - 1][0]

    def _is_over(self, now_s: float) -> bool:
        until = self.timetable[len(self.began_s) - 1][1]
        return os.path.exists(until) if isinstance(until, str) else now_s - self.began_s[-1] >= until

    def __call__(self, *args: object) -> FakeCapture:
        self.opened += 1
        return FakeCapture(self)


class FakeCapture:
    """One connection."""

    def __init__(self, camera: FakeCamera) -> None:
        self.camera, self.number, self.is_open = camera, 0, camera.behaviour != "gone"
        self.reading = threading.Lock()

    def isOpened(self) -> bool:
        return self.is_open

    def get(self, what: int) -> float:
        return 1 / FRAME_S if what == cv2.CAP_PROP_FPS else -1.0

    def read(self) -> tuple[bool, np.ndarray | None]:
        with self.reading:
            time.sleep(FRAME_S)
            if self.camera.behaviour == "slow":
                time.sleep(SLOW_S)
            while self.camera.behaviour == "hang":
                time.sleep(1000)
            while self.camera.behaviour == "block":
                time.sleep(FRAME_S)
            return self._picture(self.camera.behaviour)

    def _picture(self, behaviour: str) -> tuple[bool, np.ndarray | None]:
        self.number += 1
        if behaviour in ("empty", "gone"):
            return False, None
        if behaviour == "none":
            return True, None
        if behaviour == "odd":
            return True, np.zeros((4, 4, 2), np.float32)
        if behaviour == "freeze":
            return True, self.camera.frozen
        image = picture(SIZES_WH.get(behaviour, SIZE_WH), 10_000 * self.camera.opened + self.number)
        return True, image[:, :, 0] if behaviour == "gray" else image

    def release(self) -> None:
        assert self.reading.acquire(blocking=False), "released while it is read: real drivers crash"
        self.camera.released += 1


def picture(size_wh: tuple[int, int], seed: int) -> np.ndarray:
    """Noise (H, W, 3)."""
    return np.random.default_rng(seed).integers(0, 256, (size_wh[1], size_wh[0], 3), dtype=np.uint8)
