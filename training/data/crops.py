"""From a person in a picture to a crop: augmentation chooses the matrix, the matrix moves pixels and key points alike.

What changes pixels alone comes after the matrix: colours, then things in front of the person, then holes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from runtime import geometry
from runtime.skeleton import flip_order
from training.data import colour, occlusion
from training.data.augmentation import Augmentation

Array = NDArray[np.float64]
UPPER_BODY = ("nose", "eye", "ear", "shoulder", "elbow", "wrist", "neck", "upper_neck", "head_top", "thorax")
HALF_BODY_PADDING = 1.5
EMPTY_TRIES, EMPTY_SIDES = 20, (0.25, 0.9)  # sides: over those of the largest crop inside the picture


@dataclass(frozen=True)
class Crop:
    """A crop and what is known of it; K key points in the order that was asked for."""

    image: NDArray[np.uint8]
    """(H, W, 3) uint8 RGB."""
    keypoints: NDArray[np.float32]
    """(K, 2), fractions of the crop's width and height; may lie outside 0..1."""
    labelled: NDArray[np.bool_]
    """(K,) v > 0 in the annotation."""
    named: NDArray[np.bool_]
    """(K,) whether the data set's skeleton has the point."""
    area_px: float
    """The person's area in square px of the crop, OKS's squared scale."""
    matrix: Array
    """(2, 3) from image px to crop px, both continuous."""
    image_size_wh: tuple[int, int]
    """px, of the image that it was cut from; where the crop shows none of it, it is black."""


def person_matrix(box_xyxy: Array, input_size_wh: tuple[int, int], padding: float) -> Array:
    """Matrix (2, 3) of the plain crop around a box, as the runtime cuts it."""
    center, scale = geometry.box_to_center_scale(box_xyxy, input_size_wh, padding)
    return geometry.warp_matrix(center, scale, input_size_wh)


def augmented_matrix(
    box_xyxy: Array,
    keypoints_xy: Array,
    visible: NDArray[np.int64],
    names: Sequence[str],
    input_size_wh: tuple[int, int],
    padding: float,
    augmentation: Augmentation,
    rng: np.random.Generator,
) -> tuple[Array, bool]:
    """A random crop's matrix (2, 3), image px to crop px, and whether it mirrors."""
    center, scale = geometry.box_to_center_scale(box_xyxy, input_size_wh, padding)
    labelled = visible > 0
    if labelled.sum() >= augmentation.half_body_min_keypoints and rng.random() < augmentation.half_body:
        half = _half_body_box(keypoints_xy, labelled, names, rng)
        if half is not None:
            center, scale = geometry.box_to_center_scale(half, input_size_wh, HALF_BODY_PADDING)
    scale = scale * rng.uniform(*augmentation.scale)
    if augmentation.shift:
        center = center + rng.uniform(-augmentation.shift, augmentation.shift, 2) * scale
    rotation = rng.uniform(-augmentation.rotation_deg, augmentation.rotation_deg)
    flip = bool(rng.random() < augmentation.flip)
    return geometry.warp_matrix(center, scale, input_size_wh, rotation, flip), flip


def empty_matrix(
    image_size_wh: tuple[int, int],
    points_xy: Array,
    others_xyxy: Array,
    input_size_wh: tuple[int, int],
    rng: np.random.Generator,
) -> Array | None:
    """Matrix (2, 3), image px to crop px, of a random upright place that shows nobody; None if none was found.

    Args:
        image_size_wh: px.
        points_xy: (N, 2) px, the person's key points; none is inside.
        others_xyxy: (M, 4) px, boxes of other people, which it does not touch.
        input_size_wh: crop size in px.
        rng: draws size and place.
    """
    size = np.array(image_size_wh, dtype=np.float64)
    shape = np.array(input_size_wh) / input_size_wh[1]
    largest = float((size / shape).min())  # height of the largest crop inside the picture
    for _ in range(EMPTY_TRIES):
        region = shape * largest * rng.uniform(*EMPTY_SIDES)
        low = rng.uniform((0.0, 0.0), size - region)
        shows_points = ((points_xy >= low) & (points_xy <= low + region)).all(1).any()
        touches = ((others_xyxy[:, 2:] > low) & (others_xyxy[:, :2] < low + region)).all(1).any()
        if not shows_points and not touches:
            return geometry.warp_matrix(low + region / 2, region, input_size_wh)
    return None


def cut(
    image: NDArray[np.uint8],
    keypoints_xy: Array,
    visible: NDArray[np.int64],
    named: NDArray[np.bool_],
    area: float,
    names: Sequence[str],
    input_size_wh: tuple[int, int],
    matrix: Array,
    flip: bool = False,
    reduction: int = 1,
) -> Crop:
    """Cut a crop out of an image (H, W, 3) BGR and carry its key points along; mirroring swaps left and right.

    With a `reduction` the image's sides are that many times smaller than those of the picture that key points, area
    and matrix belong to.
    """
    order = flip_order(names) if flip else list(range(len(names)))
    keypoints = geometry.transform_points(keypoints_xy, matrix) / np.asarray(input_size_wh)
    from_pixels = np.column_stack([matrix[:, :2] * reduction, matrix[:, 2]])
    pixels = geometry.warp_image(image, from_pixels, input_size_wh)
    return Crop(
        image=cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB),  # type: ignore[arg-type]
        keypoints=keypoints[order].astype(np.float32),
        labelled=(visible > 0)[order],
        named=named[order],
        area_px=area * abs(float(np.linalg.det(matrix[:, :2]))),
        matrix=matrix,
        image_size_wh=(image.shape[1] * reduction, image.shape[0] * reduction),
    )


def disguise(crop: Crop, augmentation: Augmentation, rng: np.random.Generator, patch: occlusion.Patch) -> Crop:
    """The crop with other colours, occluders made by `patch`, and holes; key points stay where and what they are."""
    image = crop.image
    if augmentation.colours:
        image = colour.jitter(image, _covered(crop), augmentation, rng)
    if rng.random() < augmentation.paste:
        points_xy = crop.keypoints[crop.labelled].astype(np.float64) * image.shape[1::-1]
        image = occlusion.paste(image, points_xy, patch, rng)
    if rng.random() < augmentation.erase:
        image = occlusion.erase(image, rng)
    return replace(crop, image=image)


def _covered(crop: Crop) -> NDArray[np.uint8]:
    """(H, W), 255 where the crop shows its image, down to the faintest blend with the black around it."""
    height, width = crop.image.shape[:2]
    inverse = geometry.invert_matrix(crop.matrix).astype(np.float32)
    columns, rows = np.arange(width, dtype=np.float32) + 0.5, np.arange(height, dtype=np.float32)[:, None] + 0.5
    mask = np.full((height, width), 255, np.uint8)
    for (across, down, offset), size in zip(inverse, crop.image_size_wh, strict=True):
        place = across * columns + down * rows + offset
        mask[(place < -0.5) | (place > size + 0.5)] = 0
    return mask


def _half_body_box(
    keypoints_xy: Array, labelled: NDArray[np.bool_], names: Sequence[str], rng: np.random.Generator
) -> Array | None:
    """Box (4,) px around the labelled points of the upper or the lower body; None if fewer than three are there."""
    upper = np.array([name.removeprefix("left_").removeprefix("right_") in UPPER_BODY for name in names])
    half = labelled & (upper if rng.random() < 0.5 else ~upper)
    if half.sum() < 3:
        return None
    points = keypoints_xy[half]
    box = np.concatenate([points.min(0), points.max(0)])
    return box if np.all(box[2:] - box[:2] > 1) else None
