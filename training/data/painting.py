"""Shaded brush strokes: capsules, ellipses and soft polygons painted on a planar canvas with analytic edges."""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Plane = NDArray[np.float32]
Window = tuple[slice, slice]

TILE_PX = 64  # side of a pattern tile
TILE_SIZE = 0.4  # body units that a tile covers


@dataclass(frozen=True)
class Material:
    """Two colours (3,) BGR 0..255 mixed by a pattern (TILE_PX, TILE_PX) in 0..1; without a pattern, the first only."""

    colour: Plane
    second: Plane
    pattern: Plane | None = None

    def darker(self, factor: float) -> Material:
        """The same material with both colours multiplied by `factor`."""
        return Material(self.colour * np.float32(factor), self.second * np.float32(factor), self.pattern)


@dataclass
class Canvas:
    """A picture in the making."""

    planes: Plane
    """(3, H, W) BGR 0..255."""
    parts: NDArray[np.uint8] = field(init=False)
    """(H, W) number of the body part on top, 0 where there is none."""
    light: Array = field(default_factory=lambda: np.array([-0.4, -0.5, 0.77]))
    """Unit vector towards the light: x right, y down, z to the camera."""
    ambient: float = 0.45
    """Share of the light that comes from everywhere."""
    unit_px: float = 100.0
    """Pixels per body unit of the figure being painted."""

    @property
    def shadow_px(self) -> float:
        """How far a limb's soft shadow reaches."""
        return 0.025 * self.unit_px + 1.0

    def __post_init__(self) -> None:
        self.parts = np.zeros(self.planes.shape[1:], np.uint8)
        self._ramp = np.arange(max(self.parts.shape), dtype=np.float32) + np.float32(0.5)

    def window(self, low: Array, high: Array, margin: float) -> Window | None:
        """Slices (rows, columns) of the box low..high, grown by `margin` px and cut to the canvas; None if outside."""
        height, width = self.parts.shape
        left, top = (max(int(value - margin), 0) for value in low)
        right, bottom = min(int(high[0] + margin) + 2, width), min(int(high[1] + margin) + 2, height)
        return (slice(top, bottom), slice(left, right)) if right > left and bottom > top else None

    def offsets(self, window: Window, origin: Array) -> tuple[Plane, Plane]:
        """Pixel centres of a window relative to `origin`: x (1, w), y (h, 1), px."""
        rows, columns = window
        x, y = np.float32(origin[0]), np.float32(origin[1])
        return (self._ramp[columns] - x)[None, :], (self._ramp[rows] - y)[:, None]


def blend(
    canvas: Canvas, window: Window, distance: Plane, lit: Plane, colours: Plane, part: int, along: Plane | None = None
) -> None:
    """Lay paint where `distance` (h, w) to the outline is negative, and a soft shadow on the body around it.

    Args:
        distance: px, positive outside.
        along: position (h, w) on a limb, 0..1 from end to end, where it casts a shadow; no shadow when None.
        lit: cosine (h, w) between surface and light, -1..1.
        colours: (3, h, w) or (3, 1, 1) BGR.
        part: number written to `canvas.parts`; 0 leaves it as it is.
    """
    planes, parts = canvas.planes[:, *window], canvas.parts[window]
    coverage = between(np.float32(0.5) - distance, 0.0, 1.0)
    keep = 1 - coverage
    if along is not None and parts.any():
        shadow = np.float32(0.35) - np.float32(0.35 / canvas.shadow_px) * distance
        shadow = between(shadow, 0.0, 0.35)
        shadow *= between(5 * np.minimum(along, 1 - along), 0.0, 1.0)  # no seams at the ends
        shadow *= parts > 0
        keep *= 1 - shadow
    shade = between(lit * np.float32(0.75) + np.float32(0.35), 0.0, 1.2)
    shade *= np.float32(1.0 - canvas.ambient)
    shade += np.float32(canvas.ambient)
    shade *= coverage
    planes *= keep
    planes += colours * shade
    if part:
        parts[coverage > 0.5] = part


def between(values: Plane, low: float, high: float) -> Plane:
    """`values` limited to low..high, in place; on small arrays several times faster than `np.clip`."""
    np.maximum(values, np.float32(low), out=values)
    return np.minimum(values, np.float32(high), out=values)


def material_colours(material: Material, along: Plane, across: Plane, unit_px: float) -> Plane:
    """Colours (3, h, w) of a material at surface coordinates in px; (3, 1, 1) when it is plain."""
    first = material.colour[:, None, None]
    if material.pattern is None:
        return first
    step = np.float32(TILE_PX / (TILE_SIZE * unit_px))
    mix = cv2.remap(material.pattern, across * step, along * step, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
    return first + (material.second - material.colour)[:, None, None] * mix


def paint_capsule(
    canvas: Canvas,
    start: Array,
    end: Array,
    radii: tuple[float, float],
    material: Material,
    part: int,
    bulge: float = 0.0,
) -> None:
    """A limb from `start` to `end` (px) with round ends, radii (px) at both, swollen by `bulge` px in its middle."""
    window = canvas.window(np.minimum(start, end), np.maximum(start, end), max(radii) + bulge + canvas.shadow_px)
    if window is None:
        return
    x, y = canvas.offsets(window, start)
    ax, ay = (np.float32(value) for value in end - start)
    length = np.float32(max(np.hypot(ax, ay), 1e-3))
    raw = x * (ax / length**2) + y * (ay / length**2)
    along = between(raw.copy(), 0.0, 1.0)
    out_x, out_y = x - along * ax, y - along * ay
    radius = np.float32(radii[0]) + np.float32(radii[1] - radii[0]) * along
    if bulge:
        radius += np.float32(4 * bulge) * along * (1 - along)
    out_of_axis = cv2.magnitude(out_x, out_y)
    lx, ly, lz = (np.float32(value) for value in canvas.light)
    lit = (out_x * lx + out_y * ly) / radius
    lit += lz * cv2.sqrt(np.maximum(1 - np.square(out_of_axis / radius), 0))
    colours = material_colours(material, raw * length, y * (ax / length) - x * (ay / length), canvas.unit_px)
    blend(canvas, window, out_of_axis - radius, lit, colours, part, raw)


def paint_ellipse(canvas: Canvas, center: Array, radii: Array, down: Array, colour: Plane, part: int = 0) -> None:
    """A shaded ellipse with radii (across, along `down`) px; `down` is a unit vector."""
    window = canvas.window(center, center, float(max(radii)) + 3)
    if window is None:
        return
    x, y = canvas.offsets(window, center)
    dx, dy = (np.float32(value) for value in down)
    rx, ry = (np.float32(max(value, 0.3)) for value in radii)
    u, v = (x * dy - y * dx) / rx, (x * dx + y * dy) / ry
    length = np.sqrt(u * u + v * v)
    lit = (x * np.float32(canvas.light[0]) + y * np.float32(canvas.light[1])) / max(rx, ry)
    lit = lit + np.float32(canvas.light[2]) * np.sqrt(np.maximum(1 - length * length, 0))
    blend(canvas, window, (length - 1) * min(rx, ry), lit, colour[:, None, None], part)


def paint_polygon(canvas: Canvas, points: Array, material: Material, part: int, down: Array, roundness: float) -> None:
    """A cushion-shaped polygon (P, 2) px, shaded as if inflated; `roundness` px is the width of its bent border."""
    window = canvas.window(points.min(0), points.max(0), 3)
    if window is None:
        return
    rows, columns = window
    x, y = canvas.offsets(window, points[0])
    mask = np.zeros((rows.stop - rows.start, columns.stop - columns.start), np.uint8)
    shifted = np.round((points - (columns.start + 0.5, rows.start + 0.5)) * 16).astype(np.int32)
    cv2.fillPoly(mask, [shifted], 255, cv2.LINE_AA, 4)
    cover = mask.astype(np.float32) * np.float32(1 / 255)
    side = 2 * max(int(roundness), 1) + 1
    height = cv2.blur(cv2.blur(cover, (side, side), borderType=cv2.BORDER_CONSTANT), (side, side))
    slope_x = cv2.Sobel(height, cv2.CV_32F, 1, 0, scale=-side / 8)
    slope_y = cv2.Sobel(height, cv2.CV_32F, 0, 1, scale=-side / 8)
    lx, ly, lz = (np.float32(value) for value in canvas.light)
    lit = (slope_x * lx + slope_y * ly + lz) / np.sqrt(1 + slope_x * slope_x + slope_y * slope_y)
    dx, dy = (np.float32(value) for value in down)
    colours = material_colours(material, x * dx + y * dy, x * dy - y * dx, canvas.unit_px)
    blend(canvas, window, 0.5 - cover, lit.astype(np.float32), colours, part)
