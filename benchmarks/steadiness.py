"""How steady key points are at rest and how late in motion, measured on rendered clips whose truth is known."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

import runtime
from runtime.smoothing import Smoother, Smoothing, person_size_px
from runtime.source import RawFrame, Source
from training.data.rendered import render_clip

FPS = 30
SENSOR_NOISE = 6.0  # standard deviation of 0..255: an indoor webcam
WARM_UP = 15  # frames that are not counted
LAGS = np.arange(-2, 6.001, 0.02)  # frames that are tried
Tracks = NDArray[np.float64]  # (T, K, 2) px


class Steadiness(NamedTuple):
    """Median over key points; jitter is the distance from the key point's own mean, lag is behind the truth."""

    jitter_px: float
    jitter_smoothed_px: float
    lag_frames: float
    lag_smoothed_frames: float
    speed: float  # of the moving person's key points, in person sizes per second

    @property
    def times_steadier(self) -> float:
        return self.jitter_px / self.jitter_smoothed_px

    @property
    def added_lag_frames(self) -> float:
        return self.lag_smoothed_frames - self.lag_frames


class Clip(Source):
    """Pictures in memory as a video."""

    def __init__(self, images: list[NDArray[np.uint8]], fps: float = FPS) -> None:
        super().__init__("video", "clip", fps, len(images))
        self.images = images

    def __iter__(self) -> Iterator[RawFrame]:
        for index, image in enumerate(self.images):
            yield RawFrame(index, index / self.fps, self.name, image)


def measure(model: Path | None, smoothing: Smoothing, seed: int, frames: int, size_wh: tuple[int, int]) -> Steadiness:
    """Render a person at rest and a person who walks, follow both, and compare with the truth."""
    rng = np.random.default_rng(seed)
    still, _ = next(render_clip(rng, 1, size_wh))
    resting = [np.clip(rng.normal(still, SENSOR_NOISE), 0, 255).astype(np.uint8) for _ in range(frames)]
    images, truth = zip(*render_clip(rng, frames, size_wh), strict=True)
    with runtime.Pose(model, threads=1, smoothing=False) as pose:
        rest, walk = follow(pose, resting), follow(pose, list(images))
    moving = np.stack(truth)
    steps = np.linalg.norm(np.diff(moving, axis=0), axis=2).mean()
    return Steadiness(
        jitter(rest),
        jitter(smoothed(rest, smoothing)),
        lag(walk, moving),
        lag(smoothed(walk, smoothing), moving),
        float(steps * FPS / person_size_px(moving[0])),
    )


def follow(pose: runtime.Pose, images: list[NDArray[np.uint8]]) -> Tracks:
    """Key points of the one person; where nobody is found, the last ones."""
    tracks: list[NDArray[np.float64]] = []
    for frame in pose.video(Clip(images)):
        if len(frame.result):
            tracks.append(frame.result.keypoints_xy[0].astype(np.float64))
        elif tracks:
            tracks.append(tracks[-1])
    missing = len(images) - len(tracks)
    return np.concatenate([np.repeat(np.array(tracks[:1]), missing, axis=0), np.array(tracks)])


def smoothed(tracks: Tracks, smoothing: Smoothing) -> Tracks:
    """What `Pose.video` makes of them."""
    smoother, out = Smoother(smoothing), []
    for index, points in enumerate(tracks.astype(np.float32)):
        ones, ids = np.ones((1, len(points)), np.float32), np.array([1])
        result = runtime.PoseResult(points[None], ones, np.zeros((1, 4), np.float32), (), (), (1, 1), {}, ids)
        out.append(smoother.smooth(result, index / FPS).keypoints_xy[0])
    return np.array(out, dtype=np.float64)


def jitter(tracks: Tracks) -> float:
    """Root mean square distance of each key point from its mean, px; the median over key points."""
    late = tracks[WARM_UP:]
    return float(np.median(np.sqrt(((late - late.mean(axis=0)) ** 2).sum(axis=2).mean(axis=0))))


def lag(tracks: Tracks, truth: Tracks) -> float:
    """By how many frames the truth must be delayed to fit best, each key point's constant error aside."""
    times = np.arange(len(truth), dtype=np.float64)
    late = slice(WARM_UP, len(truth) - WARM_UP)
    errors = []
    for frames in LAGS:
        delayed = [np.interp(times[late] - frames, times, line) for line in truth.reshape(len(truth), -1).T]
        residual = tracks.reshape(len(tracks), -1)[late] - np.array(delayed).T
        errors.append(((residual - residual.mean(axis=0)) ** 2).sum())
    return float(LAGS[int(np.argmin(errors))])
