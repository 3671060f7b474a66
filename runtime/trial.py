"""Artifacts and cameras tried in a child process: a crash or a hang there is a sentence here.

`python -m runtime.trial artifact FILE [--device D] [--threads N]` and `python -m runtime.trial camera N` are the child;
each prints one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from runtime.errors import ModelFileError, PoseError
from runtime.pose import Pose
from runtime.video import open_source

TIMEOUT_S, CAMERA_TIMEOUT_S = 120.0, 20.0
TIMED_CALLS = 10
NUM_FRAMES = 10  # of a camera


def try_artifact(path: Path, device: str = "cpu", threads: int | None = None, timeout_s: float = TIMEOUT_S) -> float:
    """Open an artifact in a child process and run it on a black picture.

    Returns:
        Median milliseconds of a call with one box.
    Raises:
        ModelFileError: it cannot be opened or run, its engine crashes, or does not answer within `timeout_s`.
    """
    options = ["--device", device, *(["--threads", str(threads)] if threads else [])]
    report, problem = run_child(["artifact", str(path), *options], timeout_s)
    if problem:
        raise ModelFileError(f"{path}: {problem}")
    return float(report["milliseconds"])


def try_camera(number: int, timeout_s: float = CAMERA_TIMEOUT_S) -> tuple[str, str]:
    """Read some frames of a camera in a child process: ("640 x 480, 30.0 frames/s", ""), or ("", what is wrong)."""
    report, problem = run_child(["camera", str(number)], timeout_s)
    if problem:
        return "", problem
    width, height = report["size_wh"]
    return f"{width} x {height}, {report['fps']:.1f} frames/s", ""


def run_child(arguments: list[str], timeout_s: float, module: str = "runtime.trial") -> tuple[dict[str, Any], str]:
    """What the child found, or what became of it: exactly one of the two is empty."""
    command = [sys.executable, "-m", module, *arguments]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    try:
        child = subprocess.run(
            command, capture_output=True, text=True, timeout=timeout_s, check=False, env=environment, errors="replace"
        )
    except subprocess.TimeoutExpired:
        return {}, f"no answer within {timeout_s:.0f} s"
    except OSError as error:
        return {}, f"cannot be tried: {error.strerror}"
    try:
        report = json.loads(child.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        return {}, how_it_died(child.returncode, child.stderr)
    return ({}, report["problem"]) if "problem" in report else (report, "")


def how_it_died(exit_code: int, said: str) -> str:
    """ "crashes with SIGSEGV", and the last line that it said."""
    name = f"exit code {exit_code}"
    if exit_code < 0:
        name = signal.Signals(-exit_code).name if -exit_code in set(signal.Signals) else f"signal {-exit_code}"
    return " ".join(f"crashes with {name} {' '.join(said.splitlines()[-1:])}".split())


def main(argv: list[str] | None = None) -> int:
    """The child: one line of JSON with what was found, or with the problem."""
    parser = argparse.ArgumentParser("python -m runtime.trial", description=__doc__)
    kinds = parser.add_subparsers(dest="kind", required=True)
    artifact, camera = kinds.add_parser("artifact"), kinds.add_parser("camera")
    artifact.add_argument("path", type=Path)
    artifact.add_argument("--device", default="cpu")
    artifact.add_argument("--threads", type=int)
    camera.add_argument("number", type=int)
    args = parser.parse_args(argv)
    try:
        if args.kind == "artifact":
            report: dict[str, Any] = {"milliseconds": measure_artifact(args.path, args.device, args.threads)}
        else:
            report = measure_camera(args.number)
    except PoseError as error:
        report = {"problem": " ".join(str(error).split())}
    print(json.dumps(report))
    return 0


def measure_artifact(path: Path, device: str, threads: int | None) -> float:
    """Median milliseconds of a call with one box on a black picture of 640 x 480."""
    image = np.zeros((480, 640, 3), dtype=np.uint8)
    durations_ms = []
    with Pose(path, device, threads) as pose:
        for _ in range(TIMED_CALLS):
            started = time.perf_counter()
            pose(image)
            durations_ms.append((time.perf_counter() - started) * 1000)
    return statistics.median(durations_ms)


def measure_camera(number: int) -> dict[str, Any]:
    """Size and rate of its first frames."""
    with open_source(number, retry_s=0) as source:
        frames = [frame for frame, _ in zip(source, range(NUM_FRAMES), strict=False)]
    seconds = max(frames[-1].time_s - frames[0].time_s, 1e-6)
    height, width = frames[0].image.shape[:2]
    return {"size_wh": [width, height], "fps": (frames[-1].index - frames[0].index) / seconds}


if __name__ == "__main__":
    sys.exit(main())
