"""Following one person without a detector: a box around the last key points, and a search when they are lost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from runtime.geometry import Image
from runtime.identities import Identities
from runtime.results import PoseResult
from runtime.tracking import MIN_OVERLAP, SAME_OVERLAP, Box, box_around, glide, overlap

TILE_ROWS = ((1.0, 3), (0.5, 5))  # height as a share of the image's, and how many side by side
MAX_CLOSER_LOOKS = 3  # at a find
TILES_PER_FRAME = 2  # of a search that goes on: what a frame may cost beside the whole image

Estimate = Callable[[Image, Box | None], PoseResult]  # an image and boxes (N, 4) px -> N persons


class OnePerson:
    """Remembers where the person is. One per video.

    Lost = too few confident key points. Then the whole image is searched at once, and, if that finds nobody, two tiles
    of it with every further frame. What is found counts when closer looks, at most three, agree with it.
    """

    def __init__(self, estimate: Estimate, identities: Identities) -> None:
        self.box_xyxy: Box | None = None  # (4,) px; None = lost
        self._estimate, self._identities = estimate, identities
        self._tile: int | None = None  # the next to be searched; None = the whole image comes first

    def see(self, image: Image, time_s: float) -> PoseResult:
        """The person in the next frame with an id, or nobody."""
        result = self._search(image) if self.box_xyxy is None else self._follow(image, self.box_xyxy)
        boxes = np.zeros((0, 4)) if self.box_xyxy is None else self.box_xyxy[None]
        return replace(result, ids=self._identities.assign(result.keypoints_xy, result.scores, boxes, time_s))

    def _follow(self, image: Image, box_xyxy: Box) -> PoseResult:
        """Look where the person was last."""
        result = self._estimate(image, box_xyxy[None])
        found = box_around(result.keypoints_xy[0], result.scores[0], result.image_size_wh)
        if found is None:
            return add_times(self._search(image), result)
        self.box_xyxy = glide(box_xyxy, found)
        return result

    def _search(self, image: Image) -> PoseResult:
        """Look at the whole image and the next tiles; then closer at the best of what was found."""
        size_wh = (image.shape[1], image.shape[0])
        wide = self._estimate(image, self._places(size_wh))
        boxes = [box_around(*person, size_wh) for person in zip(wide.keypoints_xy, wide.scores, strict=True)]
        found = [row for row, box in enumerate(boxes) if box is not None]
        if found:
            best = boxes[max(found, key=lambda row: wide.scores[row].mean())]
            assert best is not None
            wide, self.box_xyxy = self._look_closer(image, best, wide)
            if self.box_xyxy is not None:
                self._tile = None
                return wide
        self.box_xyxy = None
        return nobody(wide)

    def _look_closer(self, image: Image, box_xyxy: Box, wide: PoseResult) -> tuple[PoseResult, Box | None]:
        """Look at a find until its box stays; the last look with the time of all, and None when they disagree."""
        result = wide
        for _ in range(MAX_CLOSER_LOOKS):
            result = add_times(self._estimate(image, box_xyxy[None]), result)
            box = box_around(result.keypoints_xy[0], result.scores[0], result.image_size_wh)
            if box is None or overlap(box_xyxy, box) < MIN_OVERLAP:
                return result, None
            if overlap(box_xyxy, box) >= SAME_OVERLAP:
                return result, box_xyxy
            box_xyxy = box
        return result, box_xyxy

    def _places(self, size_wh: tuple[int, int]) -> Box:
        """Boxes (N, 4) px to look at in this frame."""
        places = [np.array([0.0, 0, *size_wh])]
        if self._tile is None:
            self._tile = 0
        else:
            all_tiles = tiles(size_wh)
            places += [all_tiles[(self._tile + i) % len(all_tiles)] for i in range(TILES_PER_FRAME)]
            self._tile = (self._tile + TILES_PER_FRAME) % len(all_tiles)
        return np.stack(places)


def add_times(result: PoseResult, earlier: PoseResult) -> PoseResult:
    """The result, with the time that an earlier look of the same frame took."""
    times = {name: ms + earlier.timing_ms[name] for name, ms in result.timing_ms.items()}
    return replace(result, timing_ms=times)


def tiles(size_wh: tuple[int, int]) -> list[Box]:
    """Overlapping boxes (4,) px that cover an image, the large ones first; upright pictures are cut across."""
    long, short = max(size_wh), min(size_wh)
    boxes = []
    for share, across in TILE_ROWS:
        side = share * short
        for start in np.linspace(0, short - side, round(2 / share) - 1):
            for along in np.linspace(0, max(long - side, 0), across):
                box = (along, start, min(along + side, long), start + side)
                boxes.append(np.array(box if size_wh[0] >= size_wh[1] else [box[1], box[0], box[3], box[2]]))
    return boxes


def nobody(result: PoseResult) -> PoseResult:
    """The result without its persons."""
    return choose(result, np.zeros(0, dtype=np.int64))


def choose(result: PoseResult, rows: NDArray[np.int64]) -> PoseResult:
    """These persons of a result, in this order, without ids."""
    chosen = {name: getattr(result, name)[rows] for name in ("keypoints_xy", "scores", "boxes_xyxy")}
    return replace(result, **chosen, ids=None)
