"""A head in three dimensions: fitted to five face points, projected back to exact ones, and painted.

Head frame: x to the person's left, y down to the chin, z out of the nose; origin between the ears; body units.
A rotation (3, 3) maps it to the camera frame x right, y down, z to the camera.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from training.data.painting import Array, Canvas, Material, Plane, between, blend, paint_capsule, paint_ellipse
from training.data.wardrobe import Appearance

FACE = np.array([(0, 0.024, 0.116), (0.032, -0.016, 0.086), (-0.032, -0.016, 0.086), (0.078, 0, 0), (-0.078, 0, 0)])
FACE_NORMALS = np.array([(0, 0, 1), (0.25, 0, 0.97), (-0.25, 0, 0.97), (0.95, 0, 0.2), (-0.95, 0, 0.2)])
FACE_HORIZON = np.array([-0.2, 0.05, 0.05, -0.05, -0.05])  # a point is seen when its normal's z is larger
NECK = np.array([(0.0, 0.24, -0.03)])
NECK_RANGE = (0.17, 0.27)  # body units from the shoulders' middle to the ears' middle
SKULL = np.array([0.082, 0.118, 0.098])  # half axes
HAIR_ENDS = {"short": 0.12, "long": 0.9, "hat": 0.1}  # how far down hair reaches at the sides, on the unit sphere
PART_HEAD = 2


def _least_squares(points: Array, weights: Array) -> Array:
    """(P, 3) matrix F: `seen.T @ F` is the affine map of `points` (P, 3) to `seen` (P, 2) up to translation."""
    centred = points - (weights @ points) / weights.sum()
    weighted = weights[:, None] * centred
    return weighted @ np.linalg.inv(weighted.T @ centred + 0.003 * np.eye(3))


FIT = _least_squares(np.concatenate([FACE, NECK]), np.array([1, 1, 1, 1, 1, 0.6]))


@dataclass(frozen=True)
class Head:
    """Where a head is."""

    center: Array
    """(2,) px, the middle between the ears."""
    rotation: Array
    """(3, 3), head frame to camera frame."""
    size_px: float
    """Pixels per body unit of this head."""

    def project(self, points: Array) -> Array:
        """Points (..., 3) of the head frame to the picture (..., 2), px."""
        return self.center + self.size_px * (points @ self.rotation[:2].T)

    def keypoints_xy(self) -> Array:
        """Nose, eyes and ears (5, 2), px."""
        return self.project(FACE)

    def faces_camera(self) -> np.ndarray:
        """Whether each of the five face points (5,) is on the camera's side of the head."""
        return FACE_NORMALS @ self.rotation[2] > FACE_HORIZON


def fit_head(keypoints_xy: Array, unit_px: float, scale: float) -> Head:
    """The head whose face points and neck lie closest to key points (17, 2) px; its size is given, not fitted."""
    neck = (keypoints_xy[5] + keypoints_xy[6]) / 2
    seen = np.vstack([keypoints_xy[:5], neck]) / unit_px
    left, _, right = np.linalg.svd(seen.T @ FIT, full_matrices=False)
    rows = left @ right
    rotation = np.vstack([rows, np.cross(rows[0], rows[1])])
    center = keypoints_xy[:5].mean(0) - unit_px * (rotation[:2] @ FACE.mean(0))
    return Head(_hold_to_neck(center, neck, unit_px * scale**0.5), rotation, unit_px * scale)


def paint_head(canvas: Canvas, head: Head, look: Appearance) -> None:
    """Hair, skull, ears, nose and face; what is turned away is painted first and ends up covered."""
    nose_in_front = head.rotation[2, 2] > -0.1
    sides = head.rotation[2, 0] * np.array([1, -1])
    if not nose_in_front:
        _paint_nose(canvas, head, look)
    for side in np.flatnonzero(sides <= 0):
        _paint_ear(canvas, head, look, int(side))
    if look.hair_style in ("short", "long"):
        _paint_skull(canvas, head, look, look.hair_volume, face=False)
    _paint_skull(canvas, head, look, 1.0, face=True)
    for side in np.flatnonzero(sides > 0):
        _paint_ear(canvas, head, look, int(side))
    if nose_in_front:
        _paint_nose(canvas, head, look)
    if look.hair_style == "hat":
        _paint_brim(canvas, head, look)


def paint_long_hair(canvas: Canvas, head: Head, look: Appearance) -> None:
    """Hair that falls from the back of the head to the shoulders."""
    if look.hair_style != "long":
        return
    top, end = head.project(np.array([(0, -0.01, -0.035), (0, 0.2, -0.06)]))
    paint_capsule(canvas, top, end, (0.094 * head.size_px, 0.075 * head.size_px), look.hair, PART_HEAD)


def _hold_to_neck(center: Array, neck: Array, unit_px: float) -> Array:
    """Move the head so that its distance to the shoulders' middle is human."""
    reach = center - neck
    distance = float(np.hypot(*reach)) + 1e-6
    return neck + reach / distance * np.clip(distance, NECK_RANGE[0] * unit_px, NECK_RANGE[1] * unit_px)


def _paint_skull(canvas: Canvas, head: Head, look: Appearance, swell: float, face: bool) -> None:
    axes = SKULL * head.size_px * swell
    middle = head.project(np.array([0, -0.008 - 0.05 * (swell - 1), -0.012 - 0.05 * (swell - 1)]))
    window = canvas.window(middle, middle, float(axes.max()) + 3)
    if window is None:
        return
    x, y = canvas.offsets(window, middle)
    m = (head.rotation / axes).T.astype(np.float32)  # picture px to the unit sphere; columns x, y, z
    flat = m[:, 0, None, None] * x + m[:, 1, None, None] * y  # (3, h, w)
    a = m[:, 2] @ m[:, 2]
    b = np.tensordot(m[:, 2], flat, 1)
    inside = (flat * flat).sum(0) - b * b / a  # 1 on the outline
    z = (np.sqrt(np.maximum(a * (1 - inside), 0)) - b) / a
    ball = flat + m[:, 2, None, None] * z
    normal = ball / axes[:, None, None].astype(np.float32)
    lit = np.tensordot((head.rotation.T @ canvas.light).astype(np.float32), normal, 1)
    lit /= np.sqrt((normal * normal).sum(0)) + 1e-6
    distance = (np.sqrt(inside) - 1) * np.float32(axes[:2].mean())
    if face:
        colours = _face_colours(ball, look, np.float32(axes[0]))
    else:
        colours = look.hair.colour[:, None, None]
        distance = np.maximum(distance, (ball[1] - np.float32(HAIR_ENDS[look.hair_style])) * np.float32(axes[1]))
    blend(canvas, window, distance, lit, colours, PART_HEAD)


def _face_colours(ball: Plane, look: Appearance, radius_px: np.float32) -> Plane:
    """Colours (3, h, w) of hair and face at points (3, h, w) of the unit sphere."""
    x, y, z = ball
    colours = np.broadcast_to(look.skin.colour[:, None, None], ball.shape).copy()
    layers: list[tuple[Plane, Plane]] = []
    if look.beard:
        layers.append((look.hair.colour, np.minimum(y - 0.32, z + 0.1) * radius_px * np.float32(look.beard)))
    layers.append((look.skin.colour * (0.62, 0.55, 0.85), _spot(x, y - 0.55, 0.34, 0.075, z, radius_px)))
    for side in (-0.43, 0.43):
        layers.append((np.array((235, 238, 240)), _spot(x - side, y + 0.12, 0.2, 0.085, z, radius_px)))
        layers.append((look.hair.colour * 0.5, _spot(x - side, y + 0.12, 0.09, 0.085, z, radius_px)))
        layers.append((look.hair.colour * 0.8, _spot(x - side, y + 0.3, 0.24, 0.045, z, radius_px)))
        if look.glasses:
            layers.append((look.accent * 0.3, _spot(x - side, y + 0.12, 0.33, 0.2, z, radius_px) * 0.55))
    if look.hair_style != "bald":
        cover = look.accent if look.hair_style == "hat" else look.hair.colour
        crown = np.maximum(-0.52 + 0.2 * x * x - y, np.minimum(-0.22 - z, HAIR_ENDS[look.hair_style] + 0.25 - y))
        layers.append((cover, crown * radius_px))
    for colour, inside in layers:
        colours += between(inside + np.float32(0.5), 0, 1) * (np.asarray(colour, np.float32)[:, None, None] - colours)
    return colours


def _spot(x: Plane, y: Plane, rx: float, ry: float, z: Plane, radius_px: np.float32) -> Plane:
    """Depth in px inside an ellipse on the front half of the unit sphere; at least half a pixel thick."""
    ry = max(ry, 0.5 / float(radius_px))
    ellipse = 1 - np.sqrt(np.square(x / np.float32(rx)) + np.square(y / np.float32(ry)))
    return np.minimum(ellipse * radius_px * np.float32(min(rx, ry)), z * radius_px)


def _paint_ear(canvas: Canvas, head: Head, look: Appearance, side: int) -> None:
    width = 0.012 + 0.012 * abs(head.rotation[0, 2])
    radii = np.array([width, 0.03]) * head.size_px
    colour = look.hair.colour if look.hair_style == "long" else look.skin.colour * np.float32(0.9)
    paint_ellipse(canvas, head.project(FACE[3 + side]), radii, _unit(head.rotation[:2, 1]), colour, PART_HEAD)


def _paint_nose(canvas: Canvas, head: Head, look: Appearance) -> None:
    bridge, tip = head.project(np.array([(0, -0.02, 0.084), (0, 0.02, 0.102)]))
    radii = (0.009 * head.size_px, 0.017 * head.size_px)
    paint_capsule(canvas, bridge, tip, radii, look.skin.darker(0.96), PART_HEAD)


def _paint_brim(canvas: Canvas, head: Head, look: Appearance) -> None:
    edge = head.project(np.array([(-0.06, -0.072, 0.09), (0.06, -0.072, 0.09)]))
    hat = Material(look.accent * np.float32(0.8), look.accent)
    if head.rotation[2, 2] > -0.2:
        paint_capsule(canvas, edge[0], edge[1], (0.014 * head.size_px,) * 2, hat, PART_HEAD)


def _unit(vector: Array) -> Array:
    return vector / (float(np.hypot(*vector)) + 1e-6)
