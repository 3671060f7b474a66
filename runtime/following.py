"""Following one person without a detector: a box around the last key points, and a search when they are lost."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any, Protocol

import numpy as np

from runtime.geometry import Image
from runtime.identities import Identities
from runtime.playback import See
from runtime.results import PoseResult
from runtime.tracking import MIN_OVERLAP, SAME_OVERLAP, Box, Limits, box_around, glide, overlap

WINDOW_SHARES = (1.0, 0.65, 0.42)  # of the largest crop inside the image
WINDOW_STEP = 0.6  # from one window to the next at most, over its sides
LOOKS_PER_FRAME = 3  # of a search that goes on: what a frame may cost
WHILE_IN_DOUBT = 2  # windows in a frame beside the one who is followed
RARELY = 3  # every so many frames only, once all windows were looked into
MAX_CLOSER_LOOKS = 3  # at a find
MOST_CANDIDATES = 3  # at which a picture that stands alone is looked at closer
AT_ONCE = 32  # places in one call
SMALLEST_WINDOW_PX, MOST_WINDOWS = 16, 256  # of one size
LEAST_SHARE = 0.1  # of the image's shorter side: what is smaller than this is not followed
BETTER_SCORE = 0.05  # by how much surer one must be of somebody else to change over

Estimate = Callable[[Image, Box | None], PoseResult]  # an image and boxes (N, 4) px -> N persons


class Follower(Protocol):
    """What frame after frame is shown to."""

    def see(self, image: Image, time_s: float) -> PoseResult:
        """The people in the next frame, with ids."""


class OnePerson:
    """Remembers where the person is. One per video.

    Lost = a mean score clearly below the network's presence score, too few confident key points, or a pose too small to
    be true. Then the whole image and the largest windows are searched at once, and, if they hold nobody, three places
    with every further frame: where the person was last, and windows of three sizes in turn. What is found counts when
    its mean score reaches the presence score and closer looks, at most three, agree with it. While the score of the one
    whom it follows is hardly above, it looks into two windows, too, and changes over to a clearly higher score: in each
    frame until all windows had their turn, then in every third.

    Args:
        estimate: key points of an image for boxes.
        identities: who gets which number.
        aspect: width over height of the network's crops.
        padding: factor by which crops extend boxes.
        presence: mean score from which on a crop shows somebody; None if nobody measured it for this network.
    """

    def __init__(
        self, estimate: Estimate, identities: Identities, aspect: float = 0.75, padding: float = 1.25,
        presence: float | None = None,
    ) -> None:  # fmt: skip
        self.box_xyxy: Box | None = None  # (4,) px; None = lost
        self._estimate, self._identities = estimate, identities
        self._aspect, self._padding = aspect, padding
        self._limits = Limits.of(presence)
        self._last: Box | None = None  # where the person was before the search
        self._next = 0  # the window to look into next
        self._is_searching, self._is_sure = False, True
        self._doubts = 0  # frames with somebody in doubt since the last find

    def see(self, image: Image, time_s: float) -> PoseResult:
        """The person in the next frame with an id, or nobody."""
        result = self._search_on(image) if self.box_xyxy is None else self._follow(image, self.box_xyxy)
        boxes = np.zeros((0, 4)) if self.box_xyxy is None else self.box_xyxy[None]
        return replace(result, ids=self._identities.assign(result.keypoints_xy, result.scores, boxes, time_s))

    def find(self, image: Image) -> PoseResult:
        """The person in a picture that stands alone, or nobody: all windows at once. Ids are None."""
        size_wh = image.shape[1], image.shape[0]
        return replace(self._search(image, windows(size_wh, self._aspect, self._padding), MOST_CANDIDATES), ids=None)

    def _follow(self, image: Image, box_xyxy: Box) -> PoseResult:
        """Look where the person was last, and elsewhere while that is in doubt."""
        elsewhere = [] if self._is_sure else self._elsewhere((image.shape[1], image.shape[0]))
        looks = self._estimate(image, np.stack([box_xyxy, *elsewhere]))
        result, found, score = first_persons(looks, 1), _box(looks, 0), float(looks.scores[0].mean())
        if found is None or score < self._limits.lost_below:
            self._last = box_xyxy
            return add_times(self._search_on(image), result)
        self._is_sure = score >= self._limits.doubt_below
        better = _best_first(looks, range(1, len(looks)), score + BETTER_SCORE)
        if better:
            closer, box = self._look_closer(image, better[0], looks)
            if box is not None and closer.scores[0].mean() >= score + BETTER_SCORE:
                self.box_xyxy, self._doubts = box, 0
                return closer
            result = replace(result, timing_ms=closer.timing_ms)
        self.box_xyxy = glide(box_xyxy, found)
        return result

    def _search_on(self, image: Image) -> PoseResult:
        """Look at the large windows, or the next places of a search that goes on."""
        return self._search(image, self._places((image.shape[1], image.shape[0])))

    def _search(self, image: Image, places: Sequence[Box], candidates: int = 1) -> PoseResult:
        """Look at these places, then closer at the best of what was found, until one of so many stays."""
        wide, self.box_xyxy = self._look_at(image, places), None
        for found in _best_first(wide, range(len(wide)), self._limits.found_from)[:candidates]:
            wide, self.box_xyxy = self._look_closer(image, found, wide)
            if self.box_xyxy is not None:
                break
        self._is_searching, self._is_sure, self._doubts = self.box_xyxy is None, True, 0
        return first_persons(wide, 0) if self._is_searching else wide

    def _look_at(self, image: Image, places: Sequence[Box]) -> PoseResult:
        """All places (4,) px, some at a time: memory for crops is kept."""
        parts = [np.stack(places[start : start + AT_ONCE]) for start in range(0, len(places), AT_ONCE)]
        return joined([self._estimate(image, part) for part in parts])

    def _look_closer(self, image: Image, box_xyxy: Box, wide: PoseResult) -> tuple[PoseResult, Box | None]:
        """Look at a find until its box stays; the last look with the time of all, and None when they disagree."""
        result = wide
        for _ in range(MAX_CLOSER_LOOKS):
            result = add_times(self._estimate(image, box_xyxy[None]), result)
            box = _box(result, 0)
            if box is None or overlap(box_xyxy, box) < MIN_OVERLAP or result.scores[0].mean() < self._limits.found_from:
                return result, None
            if overlap(box_xyxy, box) >= SAME_OVERLAP:
                return result, box_xyxy
            box_xyxy = box
        return result, box_xyxy

    def _places(self, size_wh: tuple[int, int]) -> Sequence[Box]:
        """Boxes (4,) px to search in this frame."""
        if not self._is_searching:
            return windows(size_wh, self._aspect, self._padding, WINDOW_SHARES[:1])
        last = [] if self._last is None else [self._last]
        return last + self._next_windows(size_wh, LOOKS_PER_FRAME - len(last))

    def _elsewhere(self, size_wh: tuple[int, int]) -> list[Box]:
        """Boxes (4,) px to look into beside somebody in doubt; who stays in doubt costs less after a while."""
        self._doubts += 1
        is_searched = WHILE_IN_DOUBT * (self._doubts - 1) >= len(windows(size_wh, self._aspect, self._padding))
        return [] if is_searched and self._doubts % RARELY else self._next_windows(size_wh, WHILE_IN_DOUBT)

    def _next_windows(self, size_wh: tuple[int, int], count: int) -> list[Box]:
        """The next boxes (4,) px of all windows, in turn."""
        places = windows(size_wh, self._aspect, self._padding)
        first, self._next = self._next % len(places), self._next + count
        return [places[(first + i) % len(places)] for i in range(count)]


class AtEachSize:
    """Frames of another size show another view: whoever followed is replaced by somebody new, who knows no places."""

    def __init__(self, begin: Callable[[], See]) -> None:
        self._begin = begin
        self._shape: tuple[int, ...] = ()
        self._see: See | None = None

    def see(self, image: Image, time_s: float) -> PoseResult:
        """The people in the next frame, with ids."""
        if self._see is None or image.shape[:2] != self._shape:
            self._see, self._shape = self._begin(), image.shape[:2]
        return self._see(image, time_s)


def _box(result: PoseResult, row: int) -> Box | None:
    """Box (4,) px around a person of the result; None = nobody, or too small in this image to be true."""
    box = box_around(result.keypoints_xy[row], result.scores[row], result.image_size_wh)
    if box is None or (box[2:] - box[:2]).max() < LEAST_SHARE * min(result.image_size_wh):
        return None
    return box


def _best_first(result: PoseResult, rows: Iterable[int], least: float = 0.0) -> list[Box]:
    """Boxes (4,) px of the persons among these rows with a mean score of `least` or more, the surest first."""
    scored = [(float(result.scores[row].mean()), row) for row in rows]
    order = [row for score, row in sorted(scored, key=lambda pair: -pair[0]) if score >= least]
    return [box for row in order if (box := _box(result, row)) is not None]


def joined(parts: Sequence[PoseResult]) -> PoseResult:
    """The persons of several looks at one image, with the time of all."""
    fields = ("keypoints_xy", "scores", "boxes_xyxy")
    together: dict[str, Any] = {name: np.concatenate([getattr(part, name) for part in parts]) for name in fields}
    times = {name: sum(part.timing_ms[name] for part in parts) for name in parts[0].timing_ms}
    return replace(parts[0], **together, timing_ms=times)


def add_times(result: PoseResult, earlier: PoseResult) -> PoseResult:
    """The result, with the time that an earlier look of the same frame took."""
    times = {name: ms + earlier.timing_ms[name] for name, ms in result.timing_ms.items()}
    return replace(result, timing_ms=times)


@lru_cache(maxsize=32)
def windows(
    size_wh: tuple[int, int], aspect: float, padding: float, shares: tuple[float, ...] = WINDOW_SHARES
) -> tuple[Box, ...]:
    """Boxes (4,) px to search: the whole image, then those whose crops are windows of it, the largest first.

    Windows have the crop's shape and overlap; a row of them ends at the image's edges. Sizes of which there would be
    more than MOST_WINDOWS, in long and thin images, are left out, and so are windows of a few pixels.
    """
    size = np.array(size_wh, dtype=np.float64)
    largest = np.array([aspect, 1.0]) * min(size[1], size[0] / aspect)
    boxes = [np.array([0.0, 0, *size_wh])]
    for share in shares:
        sides, rest = share * largest, size - share * largest
        numbers = np.ceil(np.maximum(rest, 0) / (WINDOW_STEP * sides) - 1e-9).astype(int) + 1
        if sides.max() < SMALLEST_WINDOW_PX or numbers.prod() > MOST_WINDOWS:
            break
        starts = [np.linspace(0, extent, number) for extent, number in zip(rest, numbers, strict=True)]
        half = sides / padding / 2
        for y in starts[1]:
            for x in starts[0]:
                middle = np.array([x, y]) + sides / 2
                boxes.append(np.concatenate([middle - half, middle + half]))
    return tuple(boxes)


def first_persons(result: PoseResult, count: int) -> PoseResult:
    """A result of so many persons, those in front; the result itself where it has no others."""
    if len(result) == count:
        return result
    fields = ("keypoints_xy", "scores", "boxes_xyxy")
    return replace(result, **{name: getattr(result, name)[:count] for name in fields})
