"""One `Pose` used by several threads at once: errors, and results that differ from those of one thread."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import runtime
from benchmarks.soak.artifacts import pictures

NUM_CASES = 24


@dataclass(frozen=True)
class Outcome:
    """What happened in `calls` calls."""

    calls: int
    errors: list[str]
    different: int  # results that are not equal to the single thread's, bit for bit


def hammer(path: Path, threads: int = 8, calls: int = 500, engine_threads: int = 1) -> Outcome:
    """`threads` threads with `calls` calls each, on pictures with one to three boxes, in an order of their own."""
    random = np.random.default_rng(0)
    images = pictures(NUM_CASES)
    boxes = [random.uniform([0, 0, 160, 120], [150, 110, 320, 240], (1 + i % 3, 4)) for i in range(NUM_CASES)]
    errors: list[str] = []
    different = [0] * threads
    with runtime.Pose(path, threads=engine_threads) as pose:
        expected = [pose(image, some) for image, some in zip(images, boxes, strict=True)]

        def work(number: int) -> None:
            order = np.random.default_rng(number)
            for case in order.integers(0, NUM_CASES, calls).tolist():
                try:
                    result = pose(images[case], boxes[case])
                except Exception as error:  # whatever it is, it is the finding
                    errors.append(repr(error))
                    continue
                same = np.array_equal(result.keypoints_xy, expected[case].keypoints_xy)
                different[number] += not (same and np.array_equal(result.scores, expected[case].scores))

        workers = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    return Outcome(threads * calls, errors, sum(different))
