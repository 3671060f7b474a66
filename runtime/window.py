"""The window of `python -m runtime.webcam`: the drawn frame, its rate and latency, and the keys."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import cv2
import numpy as np

from runtime.draw import draw_text
from runtime.geometry import Image

TITLE = "tfpose-edge"
KEYS = {
    ord("q"): "quit",
    27: "quit",  # Esc
    ord(" "): "pause",
    ord("m"): "mirror",
    ord("r"): "record",
    ord("n"): "next model",
}
KEYS_HELP = "q or Esc quits, space pauses, m mirrors the view, r starts and stops a recording, n takes the next model"
PROBE = "import cv2; cv2.namedWindow('probe'); cv2.destroyAllWindows()"
PROBE_TIMEOUT_S = 20
UNHEARD = ("", "mirror", "other")  # what the player need not know
RATE_SHARE = 0.1  # of the last frame in the shown rate
WAIT_MS = 50  # at a time, so that a closed window is noticed


class Window:
    """Use it from the program's main thread only; close it at the end."""

    def __init__(self) -> None:
        self.is_mirrored = False
        self.seconds_per_frame = 0.0
        self._previous_s: float | None = None
        self._shown: tuple[Image, str] | None = None  # frame and text

    def show(self, drawn: Image, latency_ms: float, note: str = "") -> None:
        """Put a frame into the window, mirrored if wanted, with "30 fps  4.2 ms" and the note in its corner.

        Args:
            latency_ms: from the moment the frame had been read to its result.
            note: what else is to be known: a recording, dropped frames, the model.
        """
        now_s = time.monotonic()
        if self._previous_s is not None:
            seconds = now_s - self._previous_s
            self.seconds_per_frame += (RATE_SHARE if self.seconds_per_frame else 1) * (seconds - self.seconds_per_frame)
        self._previous_s = now_s
        rate = f"{1 / self.seconds_per_frame:.0f} fps" if self.seconds_per_frame else "- fps"
        self._shown = drawn, f"{rate}  {latency_ms:.1f} ms  {note}".rstrip()
        self._put(*self._shown)

    def _put(self, drawn: Image, text: str) -> None:
        """Frame and text onto the screen."""
        shown = np.ascontiguousarray(drawn[:, ::-1]) if self.is_mirrored else drawn.copy()
        draw_text(shown, text)
        cv2.imshow(TITLE, shown)

    def key(self, wait_ms: int) -> str:
        """What the user wants of the player: "" for nothing within `wait_ms`. A closed window is "quit"."""
        until_s = time.monotonic() + wait_ms / 1000
        while True:
            left_ms = round((until_s - time.monotonic()) * 1000)
            action = self._heard(min(left_ms, WAIT_MS))
            if action not in UNHEARD or left_ms <= WAIT_MS:
                return "" if action in UNHEARD else action

    def wait_for_key(self) -> str:
        """The next key, "other" for one that means nothing; m mirrors what is shown, and the waiting goes on."""
        while (action := self._heard(WAIT_MS)) in ("", "mirror"):
            pass
        return action

    def _heard(self, wait_ms: int) -> str:
        """A key within so many ms; WAIT_MS at most, as meanwhile neither Ctrl-C nor a closed window is noticed."""
        pressed = cv2.waitKey(max(wait_ms, 1))
        if self._shown is not None and cv2.getWindowProperty(TITLE, cv2.WND_PROP_VISIBLE) < 1:
            return "quit"
        action = "" if pressed == -1 else KEYS.get(pressed & 0xFF, "other")
        if action == "mirror":
            self.is_mirrored = not self.is_mirrored
            if self._shown is not None:
                self._put(*self._shown)
        return action

    def close(self) -> None:
        """Take the window off the screen."""
        cv2.destroyAllWindows()


def has_display() -> bool:
    """Whether a window can open. Tried in a child process, because some builds of OpenCV abort without a display."""
    if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return False
    try:
        probe = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, timeout=PROBE_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        return False
    return probe.returncode == 0
