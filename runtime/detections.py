"""What every detector gives: people as boxes, the surest first."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from runtime.errors import InputError
from runtime.geometry import Image, box_problem


class Detections(NamedTuple):
    """N persons, the surest first."""

    boxes_xyxy: NDArray[np.float64]  # (N, 4) px
    scores: NDArray[np.float64]  # (N,) in [0, 1] by most networks; 1 where the detector gives none


Detect = Callable[[Image], Detections]


def check_detections(found: Any, image_size_wh: tuple[int, int]) -> Detections:
    """What a callable returned: boxes (N, 4), or (N, 5) with scores, cut at the image's edges.

    Boxes outside the image or without area are left out: a detector may give them, a crop has no use for them.

    Raises:
        InputError: no array of that shape, or numbers that are not finite.
    """
    if isinstance(found, Detections):
        found = np.column_stack([found.boxes_xyxy, found.scores])
    try:
        rows = np.array([] if found is None else found, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"the detector gave no array (N, 4) of numbers: {error}") from error
    if rows.size == 0:
        rows = rows.reshape(0, 5)
    if rows.ndim != 2 or rows.shape[1] not in (4, 5) or not np.isfinite(rows).all():
        raise InputError(f"the detector gave {rows.shape}, legal are finite boxes (N, 4), or (N, 5) with scores")
    boxes = np.clip(rows[:, :4], 0, [*image_size_wh, *image_size_wh])
    scores = rows[:, 4] if rows.shape[1] == 5 else np.ones(len(rows))
    usable = [row for row in np.argsort(-scores, kind="stable") if not box_problem(boxes[row].tolist(), image_size_wh)]
    return Detections(boxes[usable], scores[usable])
