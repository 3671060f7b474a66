"""How far a file is: a bar on a terminal, one line at the end elsewhere."""

from __future__ import annotations

import sys
import time

BAR_WIDTH = 30  # characters
DRAW_EVERY_S = 0.2
CLEAR_LINE = "\r\x1b[K"


class Progress:
    """Counts frames on stderr."""

    def __init__(self, count: int | None) -> None:
        self.count = count  # frames that are announced, None = unknown
        self.number = 0
        self.started_s = self.drawn_s = time.monotonic()
        self.is_terminal = sys.stderr.isatty()

    def step(self) -> None:
        """One frame more."""
        self.number += 1
        now_s = time.monotonic()
        if self.is_terminal and now_s - self.drawn_s >= DRAW_EVERY_S:
            self.drawn_s = now_s
            print(CLEAR_LINE + self.text(), end="", file=sys.stderr, flush=True)

    def finish(self) -> None:
        """The last state, on a line of its own."""
        print((CLEAR_LINE if self.is_terminal else "") + self.text(), file=sys.stderr)

    def text(self) -> str:
        """ "[##########....................] frame 120/360, 34.0 frames/s, 7 s left", as far as it is known."""
        fps = self.number / max(time.monotonic() - self.started_s, 1e-6)
        if not self.count:
            return f"frame {self.number}, {fps:.1f} frames/s"
        filled = round(BAR_WIDTH * min(self.number / self.count, 1))
        bar = f"[{'#' * filled}{'.' * (BAR_WIDTH - filled)}] " if self.is_terminal else ""
        left = f", {max(self.count - self.number, 0) / fps:.0f} s left" if 0 < self.number < self.count else ""
        return f"{bar}frame {self.number}/{self.count}, {fps:.1f} frames/s{left}"
