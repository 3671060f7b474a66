"""What surrounds a rendered person: backgrounds, things that stand in front, and the camera's flaws."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from training.data.painting import Array, Canvas, Plane

Image = NDArray[Any]  # uint8; OpenCV does not say so
OCCLUDER = 255  # number of things in `Canvas.parts`


def paint_background(rng: np.random.Generator, size_wh: tuple[int, int]) -> Plane:
    """Planes (3, H, W) float32 BGR 0..255: a room, a landscape, a texture or a plain studio."""
    image = _gradient(rng, size_wh)
    kind = rng.random()
    if kind < 0.65:
        _add_ground(rng, image)
    if kind > 0.08:
        _add_shapes(rng, image, int(rng.integers(1, 26)))
    if rng.random() < 0.35:
        image = cv2.blur(image, (int(rng.integers(2, 12)),) * 2)  # out of focus
    if rng.random() < 0.75:
        image = _add_noise(rng, image)
    return np.stack(cv2.split(image)).astype(np.float32)


def paint_ground_shadow(canvas: Canvas, feet_xy: Array, unit_px: float) -> None:
    """Darken the ground below the feet (2, 2) px."""
    height, width = canvas.parts.shape
    low, high = feet_xy.min(0), feet_xy.max(0)
    center = (low[0] + high[0]) / 2, high[1] + 0.06 * unit_px
    radii = (high[0] - low[0]) / 2 + 0.3 * unit_px, 0.09 * unit_px
    rows = slice(*np.clip((center[1] - 2 * radii[1], center[1] + 2 * radii[1]), 0, height).astype(int))
    columns = slice(*np.clip((center[0] - 1.5 * radii[0], center[0] + 1.5 * radii[0]), 0, width).astype(int))
    y, x = np.ogrid[rows, columns]
    distance = np.square((x - center[0]) / radii[0]) + np.square((y - center[1]) / radii[1])
    canvas.planes[:, rows, columns] *= (1 - 0.5 * np.exp(-1.5 * distance)).astype(np.float32)


def paint_occluder(canvas: Canvas, rng: np.random.Generator, box_xyxy: Array) -> None:
    """A table, post, pole, bush or sign in front of a part of the box; `canvas.parts` says where."""
    height, width = canvas.parts.shape
    left, top, right, bottom = box_xyxy
    mask = np.zeros((height, width), np.uint8)
    across, up = right - left, bottom - top
    x, y = left + rng.uniform(0, 1) * across, top + rng.uniform(0.2, 1.0) * up
    kind = rng.integers(4)
    if kind == 0:  # something wide hides the legs
        x0, x1 = x - rng.uniform(0.4, 1.5) * across, x + rng.uniform(0.4, 1.5) * across
        cv2.rectangle(mask, _pixel(x0, top + rng.uniform(0.5, 0.9) * up), _pixel(x1, height), 255, -1)
    elif kind == 1:  # post
        half = rng.uniform(0.02, 0.09) * up
        cv2.line(mask, _pixel(x, -9), _pixel(x + rng.uniform(-0.3, 0.3) * up, height + 9), 255, int(2 * half) + 1)
    elif kind == 2:
        points = np.array((x, y)) + rng.normal(0, 0.15 * up, (int(rng.integers(3, 9)), 2))
        cv2.fillConvexPoly(mask, cv2.convexHull(points.astype(np.int32)), 255, cv2.LINE_AA)
    else:
        axes = _pixel(rng.uniform(0.05, 0.2) * up, rng.uniform(0.05, 0.2) * up)
        cv2.ellipse(mask, _pixel(x, y), axes, rng.uniform(0, 180), 0, 360, 255, -1, cv2.LINE_AA)
    columns, rows = cv2.boundingRect(mask)[::2], cv2.boundingRect(mask)[1::2]
    window = slice(rows[0], rows[0] + rows[1]), slice(columns[0], columns[0] + columns[1])
    if rows[1] == 0:
        return
    texture = _gradient(rng, (columns[1], rows[1]))
    _add_shapes(rng, texture, int(rng.integers(0, 6)))
    cover = mask[window].astype(np.float32) * np.float32(1 / 255)
    canvas.planes[:, *window] += cover * (texture.transpose(2, 0, 1) - canvas.planes[:, *window])
    canvas.parts[window][cover > 0.5] = OCCLUDER


def develop(planes: Plane) -> Image:
    """Planes (3, H, W) of any range as an image (H, W, 3) uint8."""
    return cv2.merge([_clip(plane) for plane in planes])


def photograph(image: Image, rng: np.random.Generator) -> Image:
    """The image (H, W, 3) as a camera would keep it: light, lens, motion, sensor noise and JPEG."""
    if rng.random() < 0.7:
        image = cv2.LUT(image, _tone_curves(rng))
    chance = rng.random()
    if chance < 0.2:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.4, 1.6))
    elif chance < 0.3:
        image = cv2.filter2D(image, -1, _motion_kernel(rng))
    elif chance < 0.4:
        small = cv2.resize(image, None, fx=(scale := rng.uniform(0.3, 0.8)), fy=scale, interpolation=cv2.INTER_AREA)
        image = cv2.resize(small, image.shape[1::-1])
    if rng.random() < 0.5:
        image = _add_grain(image, rng)
    if rng.random() < 0.5:
        quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(25, 95))]
        compressed = cv2.imencode(".jpg", image, quality)[1]
        image = np.asarray(cv2.imdecode(compressed, cv2.IMREAD_COLOR))
    return image


def _gradient(rng: np.random.Generator, size_wh: tuple[int, int]) -> Image:
    """Smooth colours between a few random ones."""
    shape = (int(rng.integers(1, 5)), int(rng.integers(1, 4)), 3)
    tone = rng.uniform(30, 225)
    light = rng.normal(0, rng.uniform(5, 45), (*shape[:2], 1))
    hue = rng.normal(0, 14, 3) + rng.normal(0, rng.exponential(9), shape)
    colours = np.clip(tone + light + hue * (0.3 + tone / 180), 0, 255)
    return cv2.resize(colours.astype(np.uint8), size_wh, interpolation=cv2.INTER_LINEAR)


def _add_ground(rng: np.random.Generator, image: Image) -> None:
    """A floor, lawn or street below a horizon, sometimes with boards that run to a vanishing point."""
    height, width = image.shape[:2]
    horizon = int(height * rng.uniform(0.3, 0.9))
    image[horizon:] = _gradient(rng, (width, height - horizon))
    if rng.random() < 0.4:
        vanishing = rng.uniform(0, width), horizon - rng.uniform(0, 0.2) * height
        colour = image[-1, width // 2] * rng.uniform(0.6, 1.3)
        for x in np.arange(-1.5 * width, 2.5 * width, rng.uniform(0.15, 0.5) * width):
            start = np.array((x, height)), np.array(vanishing)
            reach = (height - horizon) / (height - vanishing[1])
            end = start[0] + reach * (start[1] - start[0])
            cv2.line(image, _pixel(x, height), _pixel(*end), colour.tolist(), 1, cv2.LINE_AA)


def _add_shapes(rng: np.random.Generator, image: Image, count: int) -> None:
    """Furniture, windows, trunks, leaves and other things nobody could name."""
    height, width = image.shape[:2]
    corners = rng.uniform(-0.1, 1.1, (count, 2)) * (width, height)
    sizes = rng.exponential(0.16, (count, 2)) * (width, height) + 2
    colours = np.clip(rng.uniform(20, 235, (count, 1)) + rng.normal(0, 30, (count, 3)), 0, 255)
    for kind, corner, size, colour in zip(rng.integers(5, size=count), corners, sizes, colours.tolist(), strict=True):
        x, y = _pixel(*corner)
        w, h = _pixel(*size)
        if kind <= 1:
            cv2.rectangle(image, (x, y), (x + w, y + h), colour, -1 if kind else 2)
        elif kind == 2:
            cv2.ellipse(image, (x, y), (w // 2, h // 2), float(w), 0, 360, colour, -1, cv2.LINE_AA)
        elif kind == 3:  # limb-like bars, so that a bar alone is no limb
            cv2.line(image, (x, y), (x + w - h, y + w + h), colour, 1 + min(w, h) // 3, cv2.LINE_AA)
        else:
            cv2.fillConvexPoly(image, np.array([(x, y), (x + w, y + h // 3), (x + w // 4, y + h)]), colour, cv2.LINE_AA)


def _add_noise(rng: np.random.Generator, image: Image) -> Image:
    """Leaves, plaster, clouds: two octaves of noise added to all channels."""
    height, width = image.shape[:2]
    noise: Image = np.full((height, width), 128, np.uint8)
    for cells in (rng.integers(3, 12), rng.integers(12, 120)):
        shape = (int(cells), max(int(cells * width / height), 2))
        coarse = rng.normal(128, rng.uniform(2, 22), shape).clip(0, 255).astype(np.uint8)
        noise = cv2.addWeighted(noise, 1.0, cv2.resize(coarse, (width, height)), 1.0, -128.0)
    return cv2.addWeighted(image, 1.0, cv2.cvtColor(noise, cv2.COLOR_GRAY2BGR), 1.0, -128.0)


def _add_grain(image: Image, rng: np.random.Generator) -> Image:
    """Sensor noise; a tile is repeated because normal numbers are slow."""
    tile = rng.normal(128, rng.uniform(1, 11), (64, 64, 3)).clip(0, 255).astype(np.uint8)
    height, width = image.shape[:2]
    noise = np.tile(tile, (height // 64 + 1, width // 64 + 1, 1))[:height, :width]
    return cv2.addWeighted(image, 1.0, noise, 1.0, -128.0)


def _tone_curves(rng: np.random.Generator) -> Image:
    """Look-up table (1, 256, 3): gamma, contrast, exposure and white balance."""
    ramp = np.linspace(0, 1, 256)[:, None]
    curves = ramp ** rng.uniform(0.6, 1.6) * rng.uniform(0.85, 1.15, 3) * rng.uniform(0.75, 1.15)
    curves = (curves - 0.5) * rng.uniform(0.6, 1.1) + 0.5 + rng.uniform(-0.05, 0.05)
    return (curves.clip(0, 1) * 255).astype(np.uint8)[None]


def _motion_kernel(rng: np.random.Generator) -> Plane:
    """A line through the middle: the camera moves by up to 8 px in any direction."""
    half = int(rng.integers(1, 5))
    kernel = np.zeros((2 * half + 1, 2 * half + 1), np.float32)
    angle = rng.uniform(0, np.pi)
    tip = half * np.array((np.cos(angle), np.sin(angle)))
    cv2.line(kernel, _pixel(*(half - tip + 0.5)), _pixel(*(half + tip + 0.5)), 1.0, 1)
    return kernel / kernel.sum()


def _clip(plane: Plane) -> Image:
    return cv2.convertScaleAbs(np.maximum(plane, 0))


def _pixel(x: float, y: float) -> tuple[int, int]:
    return int(x), int(y)
