"""Colour jitter: brightness, contrast, saturation and hue are one affine map of the colour space, applied once."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from training.data.augmentation import Augmentation

Image = NDArray[Any]  # uint8; OpenCV does not say so
Array = NDArray[np.float64]
LUMA = np.array([0.299, 0.587, 0.114])  # of R, G, B (ITU-R BT.601)


def jitter(image: Image, covered: Image, augmentation: Augmentation, rng: np.random.Generator) -> Image:
    """An RGB crop (H, W, 3) in other colours.

    Args:
        image: (H, W, 3) uint8 RGB.
        covered: (H, W) uint8, 0 where the crop lies outside its picture: that stays black, as the runtime leaves it.
        augmentation: gives the ranges.
        rng: drawn from five times, whatever the ranges.
    """
    brightness, contrast, saturation = (
        1 + rng.uniform(-r, r) for r in (augmentation.brightness, augmentation.contrast, augmentation.saturation)
    )
    hue_deg = rng.uniform(-augmentation.hue_deg, augmentation.hue_deg)
    if rng.random() < augmentation.gray:
        saturation = 0.0
    mean = float(LUMA @ cv2.mean(image, covered)[:3])
    changed = cv2.transform(image, colour_matrix(brightness, contrast, saturation, hue_deg, mean))
    return changed if covered.all() else cv2.bitwise_and(changed, changed, mask=covered)


def colour_matrix(brightness: float, contrast: float, saturation: float, hue_deg: float, mean: float) -> Array:
    """Matrix (3, 4) on (R, G, B, 1), 0..255: brightness first, then contrast, saturation and hue.

    Args:
        brightness: factor on all channels.
        contrast: factor on the distance to the mean luma.
        saturation: factor on the distance to the pixel's own luma; 0 is gray.
        hue_deg: turn around the axis R = G = B, which leaves grays alone.
        mean: luma of the crop, 0..255, before.
    """
    gain = brightness * contrast
    colours = _turn(hue_deg) @ (saturation * np.eye(3) + (1 - saturation) * np.outer(np.ones(3), LUMA))
    offset = np.full(3, (1 - contrast) * brightness * mean)  # a gray: saturation and hue leave it alone
    return np.column_stack([gain * colours, offset])


def _turn(angle_deg: float) -> Array:
    """Rotation (3, 3) around the axis (1, 1, 1)."""
    cosine, sine = np.cos(np.deg2rad(angle_deg)), np.sin(np.deg2rad(angle_deg))
    cross = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / np.sqrt(3)
    return cosine * np.eye(3) + (1 - cosine) / 3 + sine * cross
