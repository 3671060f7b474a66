"""What the command lines of this package share."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence

from converters.conversion import Progress


def batch_size(text: str) -> int:
    """An integer in 1..1024."""
    if not text.isdecimal() or not 1 <= int(text) <= 1024:
        raise argparse.ArgumentTypeError(f"{text!r} is not an integer in 1..1024")
    return int(text)


def unique(names: Sequence[str]) -> list[str]:
    """Each name once, in order."""
    return list(dict.fromkeys(names))


def stopwatch() -> Progress:
    """A printer of lines with the seconds since now in front, to stderr."""
    started, stream = time.perf_counter(), sys.stderr

    def say(line: str) -> None:
        print(f"{time.perf_counter() - started:7.1f} s  {line}", file=stream, flush=True)

    return say


def fail(message: str, exit_code: int, debug: bool) -> int:
    """One line on stderr, or the traceback; inside an except block."""
    if debug:
        raise
    print(f"error: {message}", file=sys.stderr)
    return exit_code
