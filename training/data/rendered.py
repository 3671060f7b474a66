"""People rendered on the fly: pictures and moving clips of varied people with exact key points.

Everything is drawn by this package with numpy and OpenCV, so training, tests and demonstrations run without data.
The same state of the random generator gives the same picture.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from training.data.figure import OTHER, Figure, paint_figure, pose_figure, visible_keypoints
from training.data.painting import Array, Canvas
from training.data.posture import sample_posture
from training.data.scenery import develop, paint_background, paint_ground_shadow, paint_occluder, photograph
from training.data.wardrobe import Appearance, sample_appearance

SIZE_RANGE = (64, 4096)  # px, legal sides of a picture
HEAD_DIAGONAL = 0.6 * float(np.hypot(0.19, 0.25))  # body units; PCKh's share of the diagonal of the head's box
FEWEST_INSIDE = 6  # key points that a cut person keeps in the picture
CANDIDATES = 40  # postures looked through for one that continues a clip


@dataclass(frozen=True)
class RenderedPerson:
    """A picture and the truth about the person in it."""

    image: NDArray[np.uint8]
    """(H, W, 3) BGR."""
    keypoints_xy: Array
    """(17, 2) px, continuous, COCO order; also outside the picture."""
    visible: NDArray[np.int64]
    """(17,) COCO's v: 2 seen, 1 hidden inside the picture, 0 outside of it."""
    box_xyxy: Array
    """(4,) px, around the silhouette within the picture."""
    area: float
    """Pixels of the silhouette within the picture, hidden ones included."""
    head_size: float
    """px, 0.6 x the diagonal of the head's box."""
    mask: NDArray[np.bool_]
    """(H, W) the silhouette, hidden pixels included."""


def render_person(
    rng: np.random.Generator, size_wh: tuple[int, int] = (256, 320), posture: Array | None = None
) -> RenderedPerson:
    """One person somewhere in a picture of `size_wh` px, with other people and things around now and then.

    Args:
        rng: decides everything else.
        size_wh: px.
        posture: (17, 2) in body units, as `posture.normalise` brings them to; None is one of the prior.
    Raises:
        ValueError: a side is outside `SIZE_RANGE`.
    """
    _check_size(size_wh)
    canvas = Canvas(paint_background(rng, size_wh), light=_sample_light(rng), ambient=float(rng.uniform(0.3, 0.7)))
    look, drawn = sample_appearance(rng), sample_posture(rng)
    figure = place_figure(rng, drawn if posture is None else posture, look, size_wh)
    if rng.random() < 0.25:
        _paint_bystander(canvas, figure, rng, size_wh)
    canvas.parts[:] = 0
    if rng.random() < 0.6:
        paint_ground_shadow(canvas, figure.keypoints_xy[15:17], figure.unit_px)
    paint_figure(canvas, figure, look, rng)
    mask = canvas.parts > 0
    if rng.random() < 0.08:
        _paint_bystander(canvas, figure, rng, size_wh)
    if rng.random() < 0.3:
        paint_occluder(canvas, rng, _box_of(figure.keypoints_xy))
    return _finish(photograph(develop(canvas.planes), rng), figure, canvas, mask, look)


def render_clip(
    rng: np.random.Generator, frames: int, size_wh: tuple[int, int] = (640, 480)
) -> Iterator[tuple[NDArray[np.uint8], Array]]:
    """Frames (H, W, 3) uint8 BGR of one person who moves and walks across, with key points (17, 2) px.

    Raises:
        ValueError: a side is outside `SIZE_RANGE` or `frames` is below 1.
    """
    _check_size(size_wh)
    if frames < 1:
        raise ValueError(f"frames is {frames}; legal: 1 or more")
    background, light = paint_background(rng, size_wh), _sample_light(rng)
    look = replace(sample_appearance(rng), jacket=False)
    order_seed = int(rng.integers(2**31))
    for posture, origin, unit_px in _walk(rng, frames, size_wh):
        canvas = Canvas(background.copy(), light=light)
        figure = pose_figure(posture, look, unit_px, origin)
        paint_ground_shadow(canvas, figure.keypoints_xy[15:17], unit_px)
        paint_figure(canvas, figure, look, np.random.default_rng(order_seed))
        yield develop(canvas.planes), figure.keypoints_xy


def place_figure(rng: np.random.Generator, posture: Array, look: Appearance, size_wh: tuple[int, int]) -> Figure:
    """Put a posture at a random size and place; the edge cuts one person in six, who keeps `FEWEST_INSIDE` points."""
    size = np.array(size_wh, dtype=np.float64)
    extent = np.ptp(posture, axis=0) + np.array((0.25, 0.4))  # head, hands and feet reach beyond the key points
    fill = rng.uniform(1.05, 1.9) if rng.random() < 0.17 else rng.uniform(0.45, 0.97)
    unit_px = fill * float((size / extent).min())
    free = size - extent * unit_px
    for _ in range(8):
        corner = rng.uniform(np.minimum(free, 0), np.maximum(free, 0))
        origin = corner - (posture.min(0) - (0.125, 0.25)) * unit_px
        figure = pose_figure(posture, look, unit_px, origin)
        inside = (figure.keypoints_xy >= 0) & (figure.keypoints_xy < size)
        if inside.all(1).sum() >= FEWEST_INSIDE:
            return figure
    return pose_figure(posture, look, unit_px, size / 2)


def _walk(rng: np.random.Generator, frames: int, size_wh: tuple[int, int]) -> Iterator[tuple[Array, Array, float]]:
    """Posture, hips' middle (2,) px and px per unit for each frame; a new posture every 15 frames."""
    width, height = size_wh
    unit_px = 0.42 * height
    start, end = rng.permutation((0.25, 0.75)) * width
    current = _alike_posture(rng, None)
    for index in range(0, frames, 15):
        following = _alike_posture(rng, current)
        for step in range(min(15, frames - index)):
            share = (index + step) / max(frames - 1, 1)
            ease = 0.5 - 0.5 * np.cos(np.pi * step / 15)
            yield (
                current + ease * (following - current),
                np.array([start + share * (end - start), 0.55 * height]),
                unit_px,
            )
        current = following


def _alike_posture(rng: np.random.Generator, current: Array | None) -> Array:
    """An upright posture seen from the front: the candidate closest to a third of the way from `current`."""
    candidates = [sample_posture(rng, back_probability=0.0) for _ in range(CANDIDATES)]
    upright = [posture for posture in candidates if posture[15:17, 1].min() > 0.6] or candidates
    if current is None:
        return upright[0]
    distances = [float(np.abs(posture - current).mean()) for posture in upright]
    return upright[int(np.argsort(distances)[min(2, len(upright) - 1)])]


def _paint_bystander(canvas: Canvas, subject: Figure, rng: np.random.Generator, size_wh: tuple[int, int]) -> None:
    """Another person beside the subject, about as large; their parts get numbers from OTHER on."""
    look, posture = sample_appearance(rng), sample_posture(rng)
    reach = rng.choice((-1, 1)) * rng.uniform(0.45, 1.1) * subject.unit_px
    origin = subject.keypoints_xy[11:13].mean(0) + np.array((reach, rng.normal(0, 0.15) * subject.unit_px))
    figure = pose_figure(posture, look, subject.unit_px * float(rng.uniform(0.7, 1.15)), origin)
    before = canvas.parts.copy()
    canvas.parts[:] = 0
    paint_figure(canvas, figure, look, rng)
    canvas.parts[:] = np.where(canvas.parts > 0, canvas.parts + np.uint8(OTHER), before)


def _finish(
    image: NDArray[np.uint8], figure: Figure, canvas: Canvas, mask: NDArray[np.bool_], look: Appearance
) -> RenderedPerson:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    box = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
    return RenderedPerson(
        image=image,
        keypoints_xy=figure.keypoints_xy,
        visible=visible_keypoints(figure, canvas),
        box_xyxy=np.array(box, dtype=np.float64),
        area=float(mask.sum()),
        head_size=HEAD_DIAGONAL * look.head_scale * figure.unit_px,
        mask=mask,
    )


def _sample_light(rng: np.random.Generator) -> Array:
    """Unit vector to a light above and in front."""
    light = np.array([rng.normal(0, 0.6), -abs(rng.normal(0.4, 0.4)), rng.uniform(0.4, 1.0)])
    return light / np.linalg.norm(light)


def _box_of(points: Array) -> Array:
    return np.concatenate([points.min(0), points.max(0)])


def _check_size(size_wh: tuple[int, int]) -> None:
    low, high = SIZE_RANGE
    if len(size_wh) != 2 or not all(low <= side <= high for side in size_wh):
        raise ValueError(f"size_wh is {size_wh}; legal: (width, height), both {low}..{high} px")
