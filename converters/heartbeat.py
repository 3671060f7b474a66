"""A sign of life during work that says nothing for minutes."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

SECONDS = 15.0


@contextlib.contextmanager
def heartbeat(say: Callable[[str], None], seconds: float = SECONDS) -> Iterator[Callable[[str], None]]:
    """Give a function that names the present stage: said at once, and again every `seconds` with the time it has taken.

    A thread of its own speaks, so it is late while other code holds the interpreter for long.
    """
    current: list[tuple[str, float]] = []
    finished = threading.Event()

    def stage(name: str) -> None:
        current[:] = [(name, time.perf_counter())]
        say(name)

    def speak() -> None:
        """Say what runs and for how long, until it is over."""
        while not finished.wait(seconds):
            for name, since in current:
                say(f"{name}: {time.perf_counter() - since:.0f} s so far")

    speaker = threading.Thread(target=speak, name="heartbeat", daemon=True)
    speaker.start()
    try:
        yield stage
    finally:
        finished.set()
        speaker.join()
