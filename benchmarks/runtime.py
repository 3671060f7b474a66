"""What `runtime` costs beside the engine's own time: cold start, each frame, each person; and how steady it is.

    python benchmarks/runtime.py                                  # the packaged model, about a minute
    python benchmarks/runtime.py --model pose-b8.onnx             # converted with --batch 8: several people in one run
    python benchmarks/runtime.py --steadiness 4 --json figures.json

Times of calls are processor time of one thread, the median over interleaved rounds. Cold start and import are wall time
of child processes, the best of several, with their processor time beside it: on a busy machine only that counts. Frames
are 1280 x 720 px. "outside" is all of a call but the engine: checks, crops, key points back, results.

    together     a call with a box for each person      one by one   a call for each box
    followed     with a detector, as `Pose.video` does: boxes are matched, people followed and smoothed; the detector
                 costs nothing here and answers in every frame, `Pose` asks it in every tenth by default
    watched      without one, as `Pose.video` does by default: one person of a rendered picture, followed and smoothed;
                 watched_runs is how often the engine ran for the last frame: 1, but for a network that is in doubt
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path[:1] = [str(ROOT)]  # instead of this file's folder, where the package's name means this file

import cv2  # noqa: E402
import numpy as np  # noqa: E402

import runtime  # noqa: E402
from runtime.errors import PoseError  # noqa: E402
from runtime.pose import packaged_model  # noqa: E402

SIZE_WH = (1280, 720)
PEOPLE = (1, 2, 5)
BOX_WH = (180.0, 360.0)  # a person of half the frame's height
FPS = 30
TARGETS = {"import_s": 0.35, "cold_start_s": 0.8, "outside_one_ms": 1.0, "outside_further_ms": 0.3,
           "followed_one_ms": 1.0, "watched_one_ms": 1.0}  # fmt: skip
COLD_START = """
import sys, numpy, runtime
runtime.Pose(sys.argv[1] if len(sys.argv) > 1 else None)(numpy.zeros((480, 640, 3), numpy.uint8))
"""


class Stopwatch:
    """A back end that counts the runs and the processor time of the one it wraps."""

    def __init__(self, backend: Any) -> None:
        self.backend, self.runs, self.seconds = backend, 0, 0.0

    def infer(self, crops: Any) -> Any:
        self.runs += 1
        started = time.process_time()
        outputs = self.backend.infer(crops)
        self.seconds += time.process_time() - started
        return outputs

    def close(self) -> None:
        self.backend.close()


def main(argv: list[str] | None = None) -> int:
    """Measure, print, and write what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="an artifact (default: the packaged one)")
    parser.add_argument("--rounds", type=int, default=60, help="of calls that are timed (default 60)")
    parser.add_argument("--starts", type=int, default=5, help="child processes for import and cold start (default 5)")
    parser.add_argument("--steadiness", type=int, default=0, metavar="CLIPS", help="also render so many clips")
    parser.add_argument("--json", type=Path, help="write the figures")
    args = parser.parse_args(argv)
    cv2.setNumThreads(1)
    try:
        args.model = packaged_model(args.model).resolve() if args.model else None
        figures = {**starts(args.model, args.starts), **calls(args.model, args.rounds)}
        print_figures(figures)
        if args.steadiness:
            figures["steadiness"] = steadiness(args.model, args.steadiness)
    except PoseError as error:
        print("error:", error, file=sys.stderr)
        return error.exit_code
    if args.json:
        args.json.write_text(json.dumps(figures, indent=1) + "\n")
    return 0


def starts(model: Path | None, count: int) -> dict[str, float]:
    """Seconds for `import runtime`, and from a process's start to its first key points; wall and processor time."""
    if not count:
        return {}
    programs = {"nothing": "pass", "import": "import runtime", "cold": COLD_START}
    best = {name: (float("inf"), float("inf")) for name in programs}
    for _ in range(count):
        for name, program in programs.items():
            command = [sys.executable, "-c", program, *([str(model)] if model and name == "cold" else [])]
            before, started = os.times(), time.perf_counter()
            subprocess.run(command, cwd=ROOT, check=True)
            wall, after = time.perf_counter() - started, os.times()
            used = after.children_user + after.children_system - before.children_user - before.children_system
            best[name] = min(best[name][0], wall), min(best[name][1], used)
    return {
        "import_s": best["import"][0] - best["nothing"][0],
        "import_processor_s": best["import"][1] - best["nothing"][1],
        "cold_start_s": best["cold"][0],
        "cold_start_processor_s": best["cold"][1],
    }


def calls(model: Path | None, rounds: int) -> dict[str, Any]:
    """Milliseconds per call, by the number of people."""
    with runtime.Pose(model, threads=1) as pose:
        watch = Stopwatch(pose.backend)
        pose.backend = watch
        image = np.random.default_rng(0).integers(0, 256, (SIZE_WH[1], SIZE_WH[0], 3), dtype=np.uint8)
        boxes = {n: people(n) for n in PEOPLE}
        follow = {n: follower(pose, boxes[n]) for n in PEOPLE}
        jobs = {
            **{("together", n): lambda n=n: pose(image, boxes[n]) for n in PEOPLE},
            **{("one by one", n): lambda n=n: [pose(image, box[None]) for box in boxes[n]] for n in PEOPLE},
            **{("followed", n): lambda n=n: follow[n](image) for n in PEOPLE},
            ("watched", 1): watcher(pose),  # the last one: its runs of the engine are told
        }
        times: dict[Any, list[tuple[float, float]]] = {name: [] for name in jobs}
        for _ in range(rounds + 2):
            for name, job in jobs.items():
                started, watch.seconds, watch.runs = time.process_time(), 0.0, 0
                job()
                times[name].append(((time.process_time() - started) * 1000, watch.seconds * 1000))
        return {**summary(times, pose.sidecar.batch, pose.path.name), "watched_runs": float(watch.runs)}


def people(count: int) -> np.ndarray:
    """Boxes (N, 4) px side by side, at fractions of pixels."""
    left = np.linspace(20.3, SIZE_WH[0] - BOX_WH[0] - 20.7, count)
    return np.stack([left, np.full(count, 180.4), left + BOX_WH[0], np.full(count, 180.4 + BOX_WH[1])], axis=1)


def follower(pose: runtime.Pose, boxes: np.ndarray) -> Any:
    """The path of `Pose.video` with a detector, which gives the same answer for ever."""
    from runtime.crowd import Crowd
    from runtime.detections import check_detections
    from runtime.identities import PoseIdentities
    from runtime.smoothing import Smoother

    sigmas, found = pose.sidecar.sigmas, check_detections(boxes, SIZE_WH)
    crowd = Crowd(pose._estimate, lambda image: found, 1, PoseIdentities(sigmas), sigmas)
    smoother, frames = Smoother(runtime.Smoothing()), iter(range(10**9))

    def see(image: np.ndarray) -> runtime.PoseResult:
        time_s = next(frames) / FPS
        return smoother.smooth(crowd.see(image, time_s), time_s)

    return see


def watcher(pose: runtime.Pose) -> Any:
    """The path of `Pose.video` without a detector, on one picture for ever."""
    from benchmarks.steadiness import Clip
    from training.data.rendered import render_clip

    image, _ = next(render_clip(np.random.default_rng(0), 1, SIZE_WH))
    see, frames = pose.watch(Clip([image], FPS)), iter(range(10**9))
    return lambda: see(image, next(frames) / FPS)


def summary(times: dict[Any, list[tuple[float, float]]], batch: int, model: str) -> dict[str, Any]:
    """Medians, and what one person and each further one costs outside the engine."""
    rows = {}
    for (name, count), pairs in times.items():
        engine = statistics.median(inside for _, inside in pairs[2:])
        outside = statistics.median(total - inside for total, inside in pairs[2:])
        rows[f"{name}, {count}"] = {"outside_ms": outside, "engine_ms": engine, "total_ms": outside + engine}
    first, last = PEOPLE[0], PEOPLE[-1]
    further = {
        name: (rows[f"{name}, {last}"]["outside_ms"] - rows[f"{name}, {first}"]["outside_ms"]) / (last - first)
        for name in ("together", "followed")
    }
    return {
        "model": model,
        "batch": batch,
        "calls": rows,
        "outside_one_ms": rows[f"together, {first}"]["outside_ms"],
        "outside_further_ms": further["together"],
        "followed_one_ms": rows[f"followed, {first}"]["outside_ms"],
        "followed_further_ms": further["followed"],
        "watched_one_ms": rows["watched, 1"]["outside_ms"],
    }


def print_figures(figures: dict[str, Any]) -> None:
    """Two tables."""
    print(f"{figures['model']}, batch {figures['batch']}, OpenCV {cv2.__version__}, frames {SIZE_WH} px, one thread")
    print(f"{'people':24}{'outside ms':>12}{'engine ms':>12}{'total ms':>12}")
    for name, row in figures["calls"].items():
        print(f"{name:24}{row['outside_ms']:12.3f}{row['engine_ms']:12.3f}{row['total_ms']:12.3f}")
    for name, value in figures.items():
        if isinstance(value, float):
            target = TARGETS.get(name)
            verdict = "" if target is None else f"   target {target}: {'met' if value <= target else 'missed'}"
            print(f"{name:24}{value:12.3f}{verdict}")


def steadiness(model: Path | None, clips: int) -> list[dict[str, float]]:
    """Jitter and lag on rendered clips, printed one by one, and their medians."""
    from benchmarks.steadiness import measure

    found = []
    for seed in range(clips):
        one = measure(model, runtime.Smoothing(), seed, frames=90, size_wh=(480, 360))
        found.append({**one._asdict(), "times_steadier": one.times_steadier, "added_lag_frames": one.added_lag_frames})
        print_steadiness(f"clip {seed}", found[-1])
    print_steadiness("median", {name: statistics.median(one[name] for one in found) for name in found[0]})
    return found


def print_steadiness(name: str, one: dict[str, float]) -> None:
    print(
        f"{name:8} at rest {one['jitter_px']:.2f} px, smoothed {one['jitter_smoothed_px']:.2f} px "
        f"({one['times_steadier']:.1f} x steadier); in motion ({one['speed']:.2f} sizes/s) smoothing adds "
        f"{one['added_lag_frames']:.2f} frames of lag at 30 fps"
    )


if __name__ == "__main__":
    sys.exit(main())
