"""A clothed body painted along 17 key points, from the parts far from the camera to the near ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from training.data.head import PART_HEAD, Head, fit_head, paint_head, paint_long_hair
from training.data.painting import Array, Canvas, Material, paint_capsule, paint_polygon
from training.data.posture import faces_camera
from training.data.wardrobe import Appearance

PART_TORSO = 1
PART_SKIRT = 3
PART_ARM, PART_LEG = (4, 6), (8, 10)  # upper part of the left and the right limb; the lower part is one more
OTHER = 100  # added to the numbers of people who are not the subject
OWNERS: tuple[tuple[int, ...], ...] = (
    *((PART_HEAD,) for _ in range(5)),
    (PART_TORSO, 4, 8), (PART_TORSO, 6, 10), (4, 5), (6, 7), (5,), (7,),
    (PART_TORSO, PART_SKIRT, 8), (PART_TORSO, PART_SKIRT, 10), (PART_SKIRT, 8, 9), (PART_SKIRT, 10, 11),
    (PART_SKIRT, 9), (PART_SKIRT, 11),
)  # fmt: skip
"""For each key point the parts that may lie on top of it while it counts as visible."""


@dataclass(frozen=True)
class Figure:
    """A posed body in the picture."""

    keypoints_xy: Array
    """(17, 2) px; the face points are the head's."""
    unit_px: float
    """Pixels per body unit."""
    head: Head
    front: bool
    """Whether the chest is towards the camera."""
    turn: float
    """Sine of the turn about the spine: +1 looks to the right of the picture, -1 to the left."""


def pose_figure(posture: Array, look: Appearance, unit_px: float, origin: Array) -> Figure:
    """Place a posture (17, 2) in body units with its hips' middle at `origin` px, in the proportions of `look`."""
    keypoints_xy = _with_proportions(posture, look) * unit_px + origin
    head = fit_head(keypoints_xy, unit_px, look.head_scale)
    keypoints_xy[:5] = head.keypoints_xy()
    width = np.hypot(*(keypoints_xy[5] - keypoints_xy[6])) / (0.36 * unit_px)
    turn = np.sqrt(max(1.0 - width**2, 0.0)) * np.clip(4 * head.rotation[0, 2], -1, 1)
    return Figure(keypoints_xy, unit_px, head, bool(faces_camera(keypoints_xy)), float(turn))


def paint_figure(canvas: Canvas, figure: Figure, look: Appearance, rng: np.random.Generator) -> None:
    """Paint all parts, far to near; `rng` settles what the picture plane leaves open (which arm is in front)."""
    canvas.unit_px = figure.unit_px
    head_depth = 0.5 if figure.front or rng.random() < 0.5 else -0.1
    hair_depth = -0.06 if figure.head.rotation[2, 2] > 0 else 0.55
    leg_depths = [_leg_depth(figure, side) for side in (0, 1)]
    strokes: list[tuple[float, Callable[[], None]]] = [
        (0.0, partial(_paint_torso, canvas, figure, look)),
        (head_depth, partial(paint_head, canvas, figure.head, look)),
        (-0.05, partial(_paint_neck, canvas, figure, look)),
        (hair_depth, partial(paint_long_hair, canvas, figure.head, look)),
    ]
    for side in (0, 1):
        strokes.append((leg_depths[side], partial(_paint_leg, canvas, figure, look, side)))
        strokes.append((_arm_depth(figure, side, rng), partial(_paint_arm, canvas, figure, look, side)))
    if look.legwear in ("trousers", "shorts"):
        strokes.append((-0.3, partial(_paint_seat, canvas, figure, look)))
    else:
        strokes.append((max(leg_depths) + 0.01, partial(_paint_skirt, canvas, figure, look)))
    for _, stroke in sorted(strokes, key=lambda item: item[0]):
        stroke()


def visible_keypoints(figure: Figure, canvas: Canvas) -> np.ndarray:
    """COCO's v (17,): 2 seen, 1 covered by something or turned away, 0 outside the picture."""
    height, width = canvas.parts.shape
    visible = np.zeros(17, np.int64)
    for index, (x, y) in enumerate(figure.keypoints_xy):
        if 0 <= x < width and 0 <= y < height:
            visible[index] = 1 + (canvas.parts[int(y), int(x)] in OWNERS[index])
    hidden = ~figure.head.faces_camera()
    visible[:5][hidden] = np.minimum(visible[:5][hidden], 1)
    return visible


def _with_proportions(posture: Array, look: Appearance) -> Array:
    """Lengthen or shorten the limbs; angles stay."""
    scaled = posture.copy()
    for root in (5, 6, 11, 12):
        factor = look.arm_scale if root < 11 else look.leg_scale
        middle, end = root + 2, root + 4
        scaled[[middle, end]] = posture[root] + factor * (posture[[middle, end]] - posture[root])
    return scaled


def _near_side(figure: Figure) -> int:
    """0 when the left side of the body is nearer to the camera, 1 for the right side."""
    return int(figure.turn > 0)


def _leg_depth(figure: Figure, side: int) -> float:
    """Legs lie behind the torso, but before it when somebody who faces the camera sits or lifts a knee."""
    hip, knee = figure.keypoints_xy[11 + side], figure.keypoints_xy[13 + side]
    spine = figure.keypoints_xy[11:13].mean(0) - figure.keypoints_xy[5:7].mean(0)
    along = float((knee - hip) @ spine) / (float(spine @ spine) + 1e-6)
    lifted = figure.front and along < 0.45
    return (0.3 if lifted else -0.4) + (0.05 if side == _near_side(figure) else 0.0)


def _arm_depth(figure: Figure, side: int, rng: np.random.Generator) -> float:
    """Arms lie before the torso unless they are on its far side, or behind somebody's back."""
    if abs(figure.turn) > 0.8:
        return 0.8 if side == _near_side(figure) else -0.8
    if figure.front:
        return -0.8 if rng.random() < 0.1 else 0.7 + 0.1 * rng.random()
    return -0.8 if rng.random() < 0.65 else 0.7


def _paint_torso(canvas: Canvas, figure: Figure, look: Appearance) -> None:
    outline = torso_outline(figure, look.stoutness)
    down = outline[-1] + outline[len(outline) // 2] - outline[0] - outline[len(outline) // 2 - 1]
    down = down / (float(np.hypot(*down)) + 1e-6)
    unit = figure.unit_px
    paint_polygon(canvas, outline, look.shirt, PART_TORSO, down, 0.09 * unit)
    if look.jacket and figure.front and abs(figure.turn) < 0.6:
        top, bottom = figure.keypoints_xy[5:7].mean(0), figure.keypoints_xy[11:13].mean(0)
        middle = top + 0.22 * figure.turn * unit * np.array([0.5, 0])
        paint_capsule(
            canvas, middle, bottom, (0.05 * unit, 0.03 * unit), Material(look.accent, look.accent), PART_TORSO
        )


def torso_outline(figure: Figure, stoutness: float) -> Array:
    """Closed outline (P, 2) px: half widths across the spine, never thinner than a body seen from its side."""
    left_shoulder, right_shoulder, left_hip, right_hip = figure.keypoints_xy[[5, 6, 11, 12]]
    top, bottom = (left_shoulder + right_shoulder) / 2, (left_hip + right_hip) / 2
    spine = bottom - top
    length = float(np.hypot(*spine)) + 1e-6
    normal = np.array([-spine[1], spine[0]]) / length
    shoulder, hip = (left_shoulder - right_shoulder) / 2, (left_hip - right_hip) / 2
    if shoulder @ normal < 0:
        shoulder = -shoulder
    if hip @ normal < 0:
        hip = -hip
    stations = np.array([-0.17, -0.13, -0.06, 0.03, 0.15, 0.35, 0.6, 0.8, 1.0, 1.1, 1.16])
    flesh = np.array([-0.11, -0.045, 0.01, 0.035, 0.03, 0.01, 0.0, 0.03, 0.065, 0.065, 0.05]) * stoutness
    depth = np.array([0.04, 0.05, 0.08, 0.1, 0.115, 0.12, 0.105, 0.11, 0.115, 0.1, 0.07]) * stoutness
    share = np.clip(stations, 0, 1)[:, None]
    half = (1 - share) * shoulder + share * hip
    across = half @ normal
    wanted = np.maximum(across + flesh * figure.unit_px, depth * figure.unit_px)
    slope = half - across[:, None] * normal
    reach = np.clip(stations * length, -0.085 * figure.unit_px, length + 0.08 * figure.unit_px)
    middle = top + reach[:, None] * (spine / length)
    left, right = middle + slope + wanted[:, None] * normal, middle - slope - wanted[:, None] * normal
    return np.concatenate([left, right[::-1]])


def _paint_neck(canvas: Canvas, figure: Figure, look: Appearance) -> None:
    shoulders = figure.keypoints_xy[5:7].mean(0)
    head = figure.head
    chin = head.project(np.array([0, 0.06, -0.03]))
    radius = 0.058 * figure.unit_px * look.stoutness**0.5
    paint_capsule(canvas, shoulders, chin, (radius * 1.15, radius), look.skin.darker(0.9), PART_TORSO)


def _paint_arm(canvas: Canvas, figure: Figure, look: Appearance, side: int) -> None:
    shoulder, elbow, wrist = figure.keypoints_xy[[5 + side, 7 + side, 9 + side]]
    thick, part = figure.unit_px * look.stoutness, PART_ARM[side]
    direction = _direction(elbow, wrist)
    hand = wrist + direction * 0.075 * figure.unit_px
    paint_capsule(canvas, wrist, hand, (0.03 * figure.unit_px, 0.036 * figure.unit_px), look.skin, part + 1)
    bones = ((shoulder, elbow, (0.056 * thick, 0.045 * thick)), (elbow, wrist, (0.044 * thick, 0.03 * thick)))
    _paint_limb(canvas, bones, look.skin, look.shirt, look.sleeve, part, 0.006 * thick)


def _paint_leg(canvas: Canvas, figure: Figure, look: Appearance, side: int) -> None:
    hip, knee, ankle = figure.keypoints_xy[[11 + side, 13 + side, 15 + side]]
    thick, part = figure.unit_px * look.stoutness, PART_LEG[side]
    heel, toe, radii = _foot(figure, knee, ankle)
    root = hip + 0.1 * (figure.keypoints_xy[12 - side] - hip)
    bones = ((root, knee, (0.078 * thick, 0.06 * thick)), (knee, ankle, (0.058 * thick, 0.038 * thick)))
    covered = 0.0 if look.legwear in ("skirt", "dress") else look.leg_length
    paint_capsule(canvas, heel, toe, radii, look.shoes, part + 1)
    _paint_limb(canvas, bones, look.skin, look.legs, covered, part, 0.01 * thick)


def _paint_seat(canvas: Canvas, figure: Figure, look: Appearance) -> None:
    """Trousers between the legs, so that no background shows at the crotch."""
    left, right = figure.keypoints_xy[11:13]
    radius = 0.085 * figure.unit_px * look.stoutness
    inset = 0.3 * (right - left)
    paint_capsule(canvas, left + inset, right - inset, (radius, radius), look.legs, PART_TORSO)


def _paint_limb(
    canvas: Canvas,
    bones: tuple[tuple[Array, Array, tuple[float, float]], ...],
    skin: Material,
    cloth: Material,
    covered: float,
    part: int,
    slack: float,
) -> None:
    """Two bones, the lower first; cloth reaches `covered` bones far from the root and is `slack` px wider than skin."""
    for index in (1, 0):
        start, end, radii = bones[index]
        share = float(np.clip(covered - index, 0.0, 1.0))
        if share < 1.0:
            paint_capsule(canvas, start, end, radii, skin, part + index, 0.12 * radii[0] if index else 0.0)
        if share > 0.0:
            edge = radii[0] + share * (radii[1] - radii[0]) + slack
            cut = start + share * (end - start)
            paint_capsule(canvas, start, cut, (radii[0] + slack, edge), cloth, part + index)


def _paint_skirt(canvas: Canvas, figure: Figure, look: Appearance) -> None:
    """From the waist over both thighs to the hem; it follows the legs."""
    hips, knees, ankles = figure.keypoints_xy[11:13], figure.keypoints_xy[13:15], figure.keypoints_xy[15:17]
    low = hips + min(look.leg_length, 1.0) * (knees - hips) + max(look.leg_length - 1.0, 0.0) * (ankles - knees)
    unit = figure.unit_px * look.stoutness
    down = _direction(hips.mean(0), low.mean(0))
    across = np.array([down[1], -down[0]])
    order = [0, 1] if (low[0] - low[1]) @ across >= 0 else [1, 0]
    hip_order = [0, 1] if (hips[0] - hips[1]) @ across >= 0 else [1, 0]
    sides = np.array([across, -across])
    waist = hips[hip_order] + sides * 0.06 * unit - 0.04 * unit * down
    hem = low[order] + sides * (0.05 + 0.06 * look.leg_length) * unit
    middle = 0.5 * (waist + hem) + sides * 0.04 * unit
    sag = hem.mean(0) + 0.03 * unit * down
    outline = np.array([waist[0], middle[0], hem[0], sag, hem[1], middle[1], waist[1]])
    paint_polygon(canvas, outline, look.legs, PART_SKIRT, down, 0.1 * unit)


def _foot(figure: Figure, knee: Array, ankle: Array) -> tuple[Array, Array, tuple[float, float]]:
    """Heel and toe (2,) px and their radii: across the shin, in the direction the body looks."""
    shin = _direction(knee, ankle)
    ahead = np.array([shin[1], -shin[0]])
    heel = ankle + (0.045 * shin - 0.03 * figure.turn * ahead) * figure.unit_px
    down = 0.075 if figure.front else 0.03
    toe = ankle + (down * shin + 0.16 * figure.turn * ahead) * figure.unit_px
    return heel, toe, (0.042 * figure.unit_px, 0.036 * figure.unit_px)


def _direction(start: Array, end: Array) -> Array:
    vector = end - start
    return vector / (float(np.hypot(*vector)) + 1e-6)
