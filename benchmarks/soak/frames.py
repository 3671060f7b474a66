"""A long run over frames: memory, handles and threads must not grow. Linux only: it reads /proc."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path

import numpy as np

import runtime
from benchmarks.soak.artifacts import pictures
from runtime.source import RawFrame, Source

NUM_PICTURES = 50
WARM_UP_SHARE = 0.1  # of the frames, before the first measurement
NUM_MEASUREMENTS = 40
QUARTERS = 4
FPS = 30.0
PAUSE_S = 0.002
MODES = ("video", "live", "several people")
BOXES = ((20.0, 20, 140, 220), (180.0, 20, 300, 220))  # of the several people


@dataclass(frozen=True)
class Growth:
    """What changed over `frames` frames after the warm-up."""

    frames: int
    mib_per_10k: float  # slope of the resident memory, MiB per 10,000 frames
    steady_mib_per_10k: float  # median of its slopes over QUARTERS: what one jump in a short run does not change
    handles: tuple[int, int]  # fewest and most that were open
    threads: tuple[int, int]


class Loop(Source):
    """The same pictures again and again, for ever: as a video, or as a camera that gives one every PAUSE_S."""

    def __iter__(self) -> Iterator[RawFrame]:
        images = pictures(NUM_PICTURES)
        for index in count():
            yield RawFrame(index, index / self.fps, self.name, images[index % NUM_PICTURES])
            time.sleep(PAUSE_S if self.is_live else 0)


def run_frames(path: Path, frames: int = 20_000, mode: str = "video") -> Growth:
    """Follow, smooth and draw so many frames: `Pose.video`, alone or with a detector, or the answers of `Pose.live`.

    Slopes are least-squares lines through the measured values: single ones jump by what malloc holds.
    """
    every = max(frames // NUM_MEASUREMENTS, 1)
    measured: list[tuple[int, float, int, int]] = []
    detector = (lambda image: np.array(BOXES)) if mode == "several people" else None
    source = Loop("camera" if mode == "live" else "video", "loop", fps=FPS)
    with (
        runtime.Pose(path, threads=1, detector=detector) as pose,
        pose.live(source) if mode == "live" else pose.video(source) as answers,
    ):
        for number, frame in enumerate(islice(answers, frames)):
            frame.draw()
            if number >= WARM_UP_SHARE * frames and number % every == 0:
                measured.append((number, *usage()))
    index, memory, handles, threads = (np.array(values) for values in zip(*measured, strict=True))
    extremes = [(int(values.min()), int(values.max())) for values in (handles, threads)]
    quarters = zip(np.array_split(index, QUARTERS), np.array_split(memory, QUARTERS), strict=True)
    steady = float(np.median([slope_per_10k(*quarter) for quarter in quarters]))
    return Growth(int(index[-1] - index[0]), slope_per_10k(index, memory), steady, extremes[0], extremes[1])


def slope_per_10k(index: np.ndarray, memory: np.ndarray) -> float:
    """Slope of the least-squares line through `memory`, per 10,000 frames; 0 for fewer than two values."""
    return 10_000 * float(np.polyfit(index, memory, 1)[0]) if len(index) > 1 else 0.0


def usage() -> tuple[float, int, int]:
    """Resident memory in MiB, open handles, threads of this program."""
    gc.collect()
    return memory_mib(), len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))


def memory_mib() -> float:
    """Resident memory of this program."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
