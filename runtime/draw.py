"""Skeletons on pictures: colours tell the body's sides apart, sizes follow the person's size."""

from __future__ import annotations

import numbers
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from runtime.errors import InputError
from runtime.geometry import Image
from runtime.inputs import check_image

SCORE_THRESHOLD = 0.3  # under it a key point is faint, under half of it hidden
COLOURS_BGR = {"left": (60, 150, 255), "right": (255, 170, 50), "middle": (130, 225, 130)}  # orange, blue, green
PERSONS_BGR = (  # of ids 1, 2, ... and again from the start
    (80, 175, 76), (60, 140, 255), (220, 120, 60), (200, 90, 200), (60, 210, 230), (190, 190, 60), (90, 90, 230),
    (150, 220, 150),
)  # fmt: skip
OUTLINE_BGR = (35, 30, 30)
FAINT_OPACITY = 0.35
FACE_ENDINGS, FACE_SHARE = ("nose", "eye", "ear"), 0.6  # points of the face lie close together: drawn smaller
LIMB_SHARE, MIN_LIMB_PX = 1 / 55, 1.0  # line width: of the pose's diagonal, and at least
SUBPIXEL_BITS = 4  # OpenCV draws at fractions of 1 / 2^4 px
MAX_COORDINATE_PX = 1e5

Color = tuple[int, int, int]


@dataclass(frozen=True)
class Style:
    """How people are drawn. Every field can be left as it is."""

    colours_bgr: Mapping[str, Color] = field(default_factory=dict)  # by key point, or by "left", "right", "middle"
    outline_bgr: Color = OUTLINE_BGR
    threshold: float = SCORE_THRESHOLD  # scores under it are faint, under half of it hidden
    width: float = 1.0  # of lines and discs, times what suits the person
    skeleton: Sequence[tuple[str, str]] | None = None  # limbs as pairs of key-point names; None = the model's own
    by_person: bool = False  # one colour per id instead of one per side
    show_boxes: bool = False  # and the ids, where there are some

    def __post_init__(self) -> None:
        """InputError names a field that cannot be drawn with; names of key points are checked when a model is known."""
        if not isinstance(self.colours_bgr, Mapping):
            legal = "a dict from left, right, middle or a key point's name to a colour"
            raise InputError(f"Style.colours_bgr is {self.colours_bgr!r}, legal is {legal}")
        if self.skeleton is not None and not _are_pairs_of_names(self.skeleton):
            raise InputError(f"Style.skeleton is {self.skeleton!r}, legal are None and pairs of key-point names")
        colours = {"outline_bgr": self.outline_bgr, **{f"colours_bgr[{k!r}]": v for k, v in self.colours_bgr.items()}}
        for name, colour in colours.items():
            levels = colour if isinstance(colour, tuple | list) and len(colour) == 3 else [-1]
            if not all(isinstance(level, int | np.integer) and 0 <= int(level) <= 255 for level in levels):
                raise InputError(f"Style.{name} is {colour!r}, legal are three integers 0..255: blue, green, red")
        object.__setattr__(self, "outline_bgr", _plain(self.outline_bgr))
        object.__setattr__(self, "colours_bgr", {name: _plain(colour) for name, colour in self.colours_bgr.items()})
        _check_up_to(1.0, "Style.threshold", self.threshold)
        _check_up_to(100.0, "Style.width", self.width)

    def limbs(self, names: Sequence[str], skeleton: Sequence[tuple[int, int]]) -> Sequence[tuple[int, int]]:
        """The limbs to draw, as index pairs; InputError names an end that is no key point of this model."""
        if self.skeleton is None:
            return skeleton
        index = {name: i for i, name in enumerate(names)}
        for name in (name for limb in self.skeleton for name in limb):
            if name not in index:
                raise InputError(f"Style.skeleton has '{name}', legal are {', '.join(names)}")
        return [(index[a], index[b]) for a, b in self.skeleton]

    def refuse_unknown(self, names: Sequence[str]) -> None:
        """InputError names a colour for something that is neither a side nor a key point of this model."""
        for name in self.colours_bgr:
            if name not in COLOURS_BGR and name not in names:
                raise InputError(f"Style.colours_bgr has '{name}', legal are {', '.join((*COLOURS_BGR, *names))}")

    def colour_of(self, name: str, person: int) -> Color:
        """The colour of a key point of the person with this id, or row."""
        if self.by_person:
            return PERSONS_BGR[(person - 1) % len(PERSONS_BGR)]
        side = side_of(name)
        return self.colours_bgr.get(name, self.colours_bgr.get(side, COLOURS_BGR[side]))


def _plain(colour: Sequence[int]) -> Color:
    """Without NumPy's integers, which OpenCV refuses."""
    blue, green, red = map(int, colour)
    return blue, green, red


def _are_pairs_of_names(skeleton: Any) -> bool:
    limbs: Sequence[Any] = skeleton if isinstance(skeleton, Sequence) else [None]
    pairs = all(isinstance(limb, tuple | list) and len(limb) == 2 for limb in limbs)
    return pairs and all(isinstance(name, str) for limb in limbs for name in limb)


def _check_up_to(high: float, name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not 0 <= float(value) <= high:
        raise InputError(f"{name} is {value!r}, legal is 0..{high:g}")


DEFAULT_STYLE = Style()


def draw_poses(
    image_bgr: Image,
    keypoints_xy: NDArray[np.float32],
    scores: NDArray[np.float32],
    names: Sequence[str],
    skeleton: Sequence[tuple[int, int]],
    threshold: float | None = None,
    style: Style = DEFAULT_STYLE,
    ids: NDArray[np.int64] | None = None,
) -> Image:
    """Draw N persons on a copy of the image.

    Args:
        image_bgr: (H, W, 3) uint8 BGR; gray, BGRA and uint16 are brought to it.
        keypoints_xy: (N, K, 2) px, continuous image coordinates.
        scores: (N, K) in [0, 1].
        names: K key-point names; the prefix left_ or right_ decides the colour.
        skeleton: limbs as index pairs.
        threshold: limbs whose worse end is under it are faint, under half of it hidden; None = the style's.
        style: colours, widths and what else is drawn.
        ids: (N,) of the persons.
    Raises:
        InputError: another image, threshold or style; the message names it.
    """
    if not isinstance(style, Style):
        raise InputError(f"style is {style!r}, legal is a runtime.Style")
    threshold = style.threshold if threshold is None else threshold
    _check_up_to(1.0, "threshold", threshold)
    canvas = check_image(image_bgr).copy()
    style.refuse_unknown(names)
    limbs = style.limbs(names, skeleton)
    people = range(1, len(keypoints_xy) + 1) if ids is None else ids.tolist()
    for person, person_xy, person_scores in zip(people, keypoints_xy, scores, strict=True):
        colours = [style.colour_of(name, person) for name in names]
        sure, shown = person_scores >= threshold, person_scores >= threshold / 2
        if (shown & ~sure).any():
            faint = canvas.copy()
            _draw_person(faint, person_xy, shown, names, limbs, colours, style)
            cv2.addWeighted(faint, FAINT_OPACITY, canvas, 1 - FAINT_OPACITY, 0, dst=canvas)
        _draw_person(canvas, person_xy, sure, names, limbs, colours, style)
        if style.show_boxes and sure.any():
            _draw_box(canvas, person_xy[sure], "" if ids is None else str(person), style)
    return canvas


def draw_text(image_bgr: Image, text: str) -> None:
    """Write one line into the top left corner, in place."""
    size = max(image_bgr.shape[0] / 720, 0.5)
    x, y, edge = round(12 * size), round(30 * size), round(2 * size) or 1
    # the outline from eight sides: with a thicker pen OpenCV 5 writes wider letters
    around = [(dx, dy) for dx in (-edge, 0, edge) for dy in (-edge, 0, edge) if (dx, dy) != (0, 0)]
    for (dx, dy), color in [*((offset, OUTLINE_BGR) for offset in around), ((0, 0), (255, 255, 255))]:
        cv2.putText(
            image_bgr,
            text,
            (x + dx, y + dy),
            cv2.FONT_HERSHEY_SIMPLEX,
            0.8 * size,
            color,
            round(size) or 1,
            cv2.LINE_AA,
        )


def side_of(name: str) -> str:
    """ "left", "right" or "middle", the person's own side."""
    prefix = name.split("_")[0]
    return prefix if prefix in ("left", "right") else "middle"


def limb_width_px(keypoints_xy: NDArray[np.float32], image_bgr: Image) -> float:
    """Line width that suits the person, a share of the pose's diagonal, and never outgrows the image."""
    extent = np.clip(keypoints_xy, -MAX_COORDINATE_PX, MAX_COORDINATE_PX)
    diagonal = float(np.linalg.norm(extent.max(axis=0) - extent.min(axis=0))) if len(extent) else 0.0
    largest = max(min(image_bgr.shape[:2]) * LIMB_SHARE, MIN_LIMB_PX)
    return float(np.clip(diagonal * LIMB_SHARE, MIN_LIMB_PX, largest))


def _draw_person(
    canvas: Image,
    keypoints_xy: NDArray[np.float32],
    shown: NDArray[np.bool_],
    names: Sequence[str],
    limbs: Sequence[tuple[int, int]],
    colours: Sequence[Color],
    style: Style,
) -> None:
    """Limbs, then key points, in place: a dark outline under each."""
    width = limb_width_px(keypoints_xy[shown], canvas) * style.width
    widths = [width * (FACE_SHARE if name.endswith(FACE_ENDINGS) else 1) for name in names]
    visible = [(a, b) for a, b in limbs if shown[a] and shown[b]]
    middle = style.colours_bgr.get("middle", COLOURS_BGR["middle"])
    for share, dark in ((1.6, True), (1.0, False)):
        for a, b in visible:
            color = style.outline_bgr if dark else colours[a] if colours[a] == colours[b] else middle
            _line(canvas, keypoints_xy[a], keypoints_xy[b], color, share * min(widths[a], widths[b]))
    for index in np.flatnonzero(shown).tolist():
        _disc(canvas, keypoints_xy[index], style.outline_bgr, widths[index] * 1.2)
        _disc(canvas, keypoints_xy[index], colours[index], widths[index] * 0.9)


def _draw_box(canvas: Image, keypoints_xy: NDArray[np.float32], text: str, style: Style) -> None:
    """A thin box around these key points (M, 2) px, with a text above it, in place."""
    bounds = np.clip([keypoints_xy.min(axis=0), keypoints_xy.max(axis=0)], -MAX_COORDINATE_PX, MAX_COORDINATE_PX)
    low, high = (tuple(np.rint(bound).astype(int).tolist()) for bound in bounds)
    size = max(canvas.shape[0] / 720, 0.5)
    for color, thickness in ((style.outline_bgr, 3), ((255, 255, 255), 1)):
        cv2.rectangle(canvas, low, high, color, thickness)
        origin = (low[0], max(low[1] - round(6 * size), round(20 * size)))
        cv2.putText(canvas, text, origin, cv2.FONT_HERSHEY_SIMPLEX, 0.7 * size, color, thickness, cv2.LINE_AA)


def _line(canvas: Image, start: NDArray[np.float32], end: NDArray[np.float32], color: Color, width: float) -> None:
    cv2.line(canvas, _fixed(start), _fixed(end), color, max(round(width), 1), cv2.LINE_AA, SUBPIXEL_BITS)


def _disc(canvas: Image, center: NDArray[np.float32], color: Color, radius: float) -> None:
    fixed_radius = max(round(radius * 2**SUBPIXEL_BITS), 1)
    cv2.circle(canvas, _fixed(center), fixed_radius, color, cv2.FILLED, cv2.LINE_AA, SUBPIXEL_BITS)


def _fixed(point_xy: NDArray[np.float32]) -> tuple[int, int]:
    """Continuous px -> OpenCV's fixed-point pixel indices."""
    index = np.clip(point_xy, -MAX_COORDINATE_PX, MAX_COORDINATE_PX) - 0.5
    x, y = np.rint(index * 2**SUBPIXEL_BITS).astype(int).tolist()
    return x, y
