"""Steady key points: a One-Euro filter per key point, whose speeds are counted in person sizes.

A low-pass filter whose cut-off frequency rises with the point's speed (Casiez, Roussel and Vogel, CHI 2012): at rest it
takes the tremble out, in motion it hardly lags. Speeds are divided by the person's size, so that the same parameters
serve somebody near and somebody far away.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from runtime.errors import InputError
from runtime.identities import Memory
from runtime.results import PoseResult

RESET_AFTER_S = 0.5  # without a frame of a person, the filter starts anew; later where frames are rare
SHORTEST_STEP_S = 1e-3  # frames whose time stamps do not move on
MIN_SIZE_PX = 1.0

Points = NDArray[np.float64]
Rate = TypeVar("Rate", float, Points)


@dataclass(frozen=True)
class Smoothing:
    """What the filter does with a key point at rest and in motion."""

    min_cutoff_hz: float = 0.7  # at rest: lower = steadier, and slower to start
    speed_gain: float = 10.0  # Hz per person size per second: higher = less lag in motion
    speed_cutoff_hz: float = 1.0  # of the speed itself: lower = trembling is less often taken for motion

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            least = 0.0 if field.name == "speed_gain" else 1e-3
            if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= 1e6:
                raise InputError(f"Smoothing.{field.name} is {value!r}, legal is {least:g}..1e6")


class Smoother:
    """Filters the results of one video; people are told apart by their ids."""

    def __init__(self, smoothing: Smoothing) -> None:
        self.smoothing = smoothing
        self.filters: dict[int, PersonFilter] = {}
        self._memory = Memory(RESET_AFTER_S)

    def smooth(self, result: PoseResult, time_s: float) -> PoseResult:
        """The result with steadier `keypoints_xy`; all else is as it was.

        Args:
            result: of a followed frame, with `ids`.
            time_s: the frame's time stamp.
        """
        if result.ids is None:
            return result
        limit_s = self._memory.limit_s(time_s)
        smoothed = np.empty_like(result.keypoints_xy)
        for row, identity in enumerate(result.ids.tolist()):
            one = self.filters.get(identity) if identity else None  # 0 = nobody in particular
            if one is None or time_s - one.time_s > limit_s:
                one = self.filters[identity] = PersonFilter(self.smoothing)
            smoothed[row] = one.step(result.keypoints_xy[row].astype(np.float64), time_s)
        self.filters = {key: one for key, one in self.filters.items() if time_s - one.time_s <= limit_s}
        return replace(result, keypoints_xy=smoothed)


class PersonFilter:
    """The K key points of one person."""

    def __init__(self, smoothing: Smoothing) -> None:
        self.smoothing = smoothing
        self.time_s = -math.inf
        self.seen: Points | None = None  # (K, 2) px, the last key points as the network gave them
        self.smoothed: Points | None = None  # (K, 2) px
        self.velocity: Points | None = None  # (K, 2) person sizes per second, low-passed

    def step(self, points: Points, time_s: float) -> Points:
        """The next key points (K, 2) px in, the smoothed ones out."""
        if self.seen is None or self.smoothed is None or self.velocity is None:
            self.seen, self.smoothed, self.velocity = points, points, np.zeros_like(points)
        else:
            seconds = max(time_s - self.time_s, SHORTEST_STEP_S)
            velocity = (points - self.seen) / (seconds * person_size_px(self.smoothed))
            rate = share_of_new(self.smoothing.speed_cutoff_hz, seconds)
            self.velocity = self.velocity + rate * (velocity - self.velocity)
            speed = np.hypot(self.velocity[:, :1], self.velocity[:, 1:])  # (K, 1)
            rates = share_of_new(self.smoothing.min_cutoff_hz + self.smoothing.speed_gain * speed, seconds)
            self.smoothed = self.smoothed + rates * (points - self.smoothed)
            self.seen = points
        self.time_s = time_s
        return self.smoothed


def share_of_new(cutoff_hz: Rate, seconds: float) -> Rate:
    """Weight of the new value in a first-order low-pass filter, for a step of `seconds`."""
    turns = 2 * math.pi * seconds * cutoff_hz
    return turns / (turns + 1)


def person_size_px(points: Points) -> float:
    """The longer side of the box around the key points (K, 2) px."""
    return max(float((points.max(axis=0) - points.min(axis=0)).max()), MIN_SIZE_PX)
