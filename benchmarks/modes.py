"""What the three modes of `Pose` do with a film: pictures per second, late frames, latency, and trembling key points.

    python benchmarks/modes.py clip.mp4
    python benchmarks/modes.py clip.mp4 --model edge-n --threads 2 --pace 10 60 --json figures.json

    calls    pose(image) for each frame, the whole picture as one person
    video    pose.video(clip): decoding, following and smoothing too
    live     pose.live at the paces asked for, frames per second; frames that come while one is answered are dropped

Wall time. Trembling is measured where somebody is followed through three frames: how far key points move from one frame
to the next, and their second differences, which steady motion does not have; px, medians over key points and frames.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path[:1] = [str(ROOT)]  # instead of this file's folder

import numpy as np  # noqa: E402

import runtime  # noqa: E402
from benchmarks.steadiness import Clip  # noqa: E402
from runtime.errors import PoseError  # noqa: E402
from runtime.video import open_source  # noqa: E402


def main(argv: list[str] | None = None) -> int:
    """Measure, print, and write what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip", help="a video file; its frames are kept in memory for calls and live")
    parser.add_argument("--model", help="an artifact, or the name of a packaged one (default: the default one)")
    parser.add_argument("--threads", type=int, default=1, help="of the engine (default 1)")
    parser.add_argument(
        "--pace", type=float, nargs="+", help="of live, frames per second (default: the film's, and 60)"
    )
    parser.add_argument("--json", type=Path, help="write the figures")
    args = parser.parse_args(argv)
    try:
        with open_source(args.clip) as source:
            images, fps = [raw.image for raw in source], source.fps
        figures: dict[str, Any] = {"calls": calls(args, images)}
        for name, smoothing in (("video, smoothed", True), ("video, as the network says", False)):
            figures[name] = video(args, smoothing)
        for pace in args.pace or (fps, 60.0):
            figures[f"live at {pace:g}"] = live(args, images, pace)
    except PoseError as error:
        print("error:", error, file=sys.stderr)
        return error.exit_code
    for name, row in figures.items():
        print(f"{name:28}" + "  ".join(f"{key} {value:.4g}" for key, value in row.items()))
    if args.json:
        args.json.write_text(json.dumps(figures, indent=1) + "\n")
    return 0


def calls(args: argparse.Namespace, images: Sequence[Any]) -> dict[str, float]:
    """One call for each picture."""
    with runtime.Pose(args.model, threads=args.threads) as pose:
        pose(images[0])
        started = time.perf_counter()
        for image in images:
            pose(image)
        return {"frames": len(images), "frames_per_s": len(images) / (time.perf_counter() - started)}


def video(args: argparse.Namespace, smoothing: bool) -> dict[str, float]:
    """The file, frame by frame."""
    with runtime.Pose(args.model, threads=args.threads, smoothing=smoothing) as pose:
        started = time.perf_counter()
        results = [frame.result for frame in pose.video(args.clip)]
        seconds = time.perf_counter() - started
    return {
        "frames": len(results),
        "with_somebody": sum(map(bool, map(len, results))),
        "frames_per_s": len(results) / seconds,
        **trembling(results),
    }


def live(args: argparse.Namespace, images: list[Any], pace: float) -> dict[str, float]:
    """The pictures as a camera of so many frames per second would give them."""
    with (
        runtime.Pose(args.model, threads=args.threads) as pose,
        pose.live(Clip(images, pace)) as running,
    ):
        latency_ms = [frame.latency_ms for frame in running]
        return {
            "frames": running.frames_read,
            "answered": len(latency_ms),
            "dropped": running.frames_dropped,
            "latency_ms": float(np.median(latency_ms)),
            "latency_95_ms": float(np.percentile(latency_ms, 95)),
        }


def trembling(results: Sequence[runtime.PoseResult]) -> dict[str, float]:
    """First and second differences of key points, px, where three frames show the same person; {} if none do."""
    steps, bends = [], []
    for three in zip(results, results[1:], results[2:], strict=False):
        tracks = [
            {} if one.ids is None else dict(zip(one.ids.tolist(), one.keypoints_xy, strict=True)) for one in three
        ]
        for identity in set.intersection(*map(set, tracks)):
            first, second, third = (track[identity].astype(np.float64) for track in tracks)
            steps.append(np.linalg.norm(third - second, axis=1))
            bends.append(np.linalg.norm(third - 2 * second + first, axis=1))
    if not steps:
        return {}
    return {"px_per_frame": float(np.median(steps)), "second_difference_px": float(np.median(bends))}


if __name__ == "__main__":
    sys.exit(main())
