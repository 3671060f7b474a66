"""Who is who from frame to frame: ids by the likeness of poses, or by ByteTrack."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from runtime.errors import BackendUnavailable, InputError
from runtime.tracking import Box, Points, matches, overlaps, similarities

SAME_PERSON_OKS = 0.3  # of two poses in consecutive frames
SAME_PERSON_OVERLAP = 0.3  # of their boxes, where the poses differ more
MEMORY_S = 1.0  # for which somebody lost is remembered
MEMORY_INTERVALS = 3  # between frames, where those take longer
TRACKERS = "trackers>=2"
LEAST_CONFIDENCE = 0.1  # of a person that ByteTrack may hold on to

Ids = NDArray[np.int64]


class Identities(Protocol):
    """Gives each person an id. One per video."""

    def assign(self, keypoints_xy: Points, scores: Points, boxes_xyxy: Box, time_s: float) -> Ids:
        """Ids (N,) of the N poses (N, K, 2), (N, K) with their boxes (N, 4) px; 0 = not sure yet."""


class Memory:
    """How long somebody who is not seen is remembered: so many seconds, or three intervals between frames.

    The interval is the one before the present frame, because a longer one in a fast video is a gap; at the second frame
    there is only one.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._times_s: deque[float] = deque(maxlen=3)

    def limit_s(self, time_s: float) -> float:
        """The limit at the next frame, which has this time stamp."""
        self._times_s.append(time_s)
        interval_s = self._times_s[1] - self._times_s[0] if len(self._times_s) > 1 else 0.0
        return max(self.seconds, MEMORY_INTERVALS * interval_s)


@dataclass
class _Known:
    """Somebody seen."""

    identity: int
    keypoints_xy: Points  # (K, 2) px
    box_xyxy: Box  # (4,) px
    time_s: float


class PoseIdentities:
    """The most alike poses of two frames are one person, by OKS; then the most overlapping boxes. Ids count from 1."""

    def __init__(self, sigmas: Sequence[float]) -> None:
        self.sigmas = np.array(sigmas)
        self.known: list[_Known] = []
        self._memory = Memory(MEMORY_S)
        self._last = 0

    def assign(self, keypoints_xy: Points, scores: Points, boxes_xyxy: Box, time_s: float) -> Ids:
        """Ids (N,) of these persons; who resembles nobody who is remembered gets a new one."""
        limit_s = self._memory.limit_s(time_s)
        known = [one for one in self.known if time_s - one.time_s <= limit_s]
        ids = [0] * len(keypoints_xy)
        for row, column in self._pairs(known, keypoints_xy, boxes_xyxy):
            ids[column] = known[row].identity
        for column, identity in enumerate(ids):
            if not identity:
                self._last += 1
                ids[column] = self._last
        seen = zip(ids, keypoints_xy, boxes_xyxy, strict=True)
        forgotten = [one for one in known if one.identity not in ids]
        self.known = [*forgotten, *(_Known(identity, pose, box, time_s) for identity, pose, box in seen)]
        return np.array(ids, dtype=np.int64)

    def _pairs(self, known: list[_Known], keypoints_xy: Points, boxes_xyxy: Box) -> list[tuple[int, int]]:
        """Who of the known is who of those seen, as (row, column), each at most once."""
        most = min(len(known), len(keypoints_xy))
        if not most:
            return []
        poses = similarities(np.array([one.keypoints_xy for one in known]), keypoints_xy, self.sigmas)
        pairs = matches(poses, SAME_PERSON_OKS)
        if len(pairs) < most:
            boxes = overlaps(np.array([one.box_xyxy for one in known]), boxes_xyxy)
            boxes[[row for row, _ in pairs]] = boxes[:, [column for _, column in pairs]] = -1  # who has been found
            pairs += matches(boxes, SAME_PERSON_OVERLAP)
        return pairs


class ByteTrackIdentities:
    """Roboflow's `trackers.ByteTrackTracker` on the persons' boxes, with the mean score as confidence."""

    def __init__(self, frames_per_second: float) -> None:
        try:
            import supervision
            import trackers
        except ImportError as error:
            message = f'tracker="bytetrack" cannot be imported ({error}): pip install "{TRACKERS}"'
            raise BackendUnavailable(message) from error
        self._as_detections: Callable[..., Any] = supervision.Detections
        self._tracker = trackers.ByteTrackTracker(
            frame_rate=frames_per_second,
            lost_track_buffer=round(30 * MEMORY_S),
            track_activation_threshold=LEAST_CONFIDENCE,
            high_conf_det_threshold=LEAST_CONFIDENCE,
            minimum_consecutive_frames=1,
        )

    def assign(self, keypoints_xy: Points, scores: Points, boxes_xyxy: Box, time_s: float) -> Ids:
        """ByteTrack's ids (N,), counted from 1; 0 where it gives none (yet)."""
        ids = np.zeros(len(keypoints_xy), dtype=np.int64)
        confidences = scores.mean(axis=1) if len(scores) else np.zeros(0, dtype=np.float32)
        tracked = self._tracker.update(
            self._as_detections(
                xyxy=boxes_xyxy.astype(np.float32),
                confidence=confidences,
                class_id=np.zeros(len(ids), dtype=int),
                data={"row": np.arange(len(ids))},
            )
        )
        if len(tracked):
            ids[np.asarray(tracked.data["row"], dtype=int)] = np.asarray(tracked.tracker_id) + 1
        return ids


IDENTITIES = ("oks", "bytetrack")


def open_identities(name: str, sigmas: Sequence[float], frames_per_second: float) -> Identities:
    """What `tracker=` names.

    Raises:
        InputError: another name.
        BackendUnavailable: its package is not installed.
    """
    if name not in IDENTITIES:
        raise InputError(f"tracker is {name!r}, legal are {', '.join(IDENTITIES)}")
    return PoseIdentities(sigmas) if name == "oks" else ByteTrackIdentities(frames_per_second)
