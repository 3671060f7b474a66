"""Images and boxes as callers give them: brought to one form, or refused with the reason."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from runtime.errors import InputError
from runtime.geometry import Image, refuse_bad_boxes

LEGAL_IMAGES = "legal are uint8 or uint16 arrays (H, W), (H, W, 1), (H, W, 3) BGR and (H, W, 4) BGRA"


def check_image(image_bgr: Any) -> Image:
    """Any legal image as (H, W, 3) uint8 BGR, contiguous: gray is repeated, alpha dropped, 16 bits scaled to 8.

    Raises:
        InputError: not an array, wrong type of numbers (floats have no agreed range), wrong shape, no pixels.
    """
    if image_bgr is None:
        raise InputError(
            f"image_bgr is None, which is what cv2.imread gives for a file that it cannot read; {LEGAL_IMAGES}"
        )
    if not isinstance(image_bgr, np.ndarray):
        raise InputError(f"image_bgr is a {type(image_bgr).__name__}, {LEGAL_IMAGES}")
    if image_bgr.dtype not in (np.uint8, np.uint16):
        raise InputError(f"image_bgr has dtype {image_bgr.dtype}, {LEGAL_IMAGES}")
    if image_bgr.ndim not in (2, 3) or (image_bgr.ndim == 3 and image_bgr.shape[2] not in (1, 3, 4)):
        raise InputError(f"image_bgr has shape {image_bgr.shape}, {LEGAL_IMAGES}")
    if image_bgr.size == 0:
        raise InputError(f"image_bgr has shape {image_bgr.shape}: no pixels")
    return _to_bgr(_to_uint8(image_bgr))


def check_boxes(boxes_xyxy: Any, image_size_wh: tuple[int, int]) -> NDArray[np.float64]:
    """Boxes as (N, 4) px; None is one box, the whole image; an empty list is no box.

    Raises:
        InputError: not numbers, wrong shape, or a row that is not finite, inverted, without area or outside the image.
    """
    if boxes_xyxy is None:
        return np.array([[0, 0, *image_size_wh]], dtype=np.float64)
    try:
        boxes = np.array(boxes_xyxy, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"boxes_xyxy is not an array (N, 4) of numbers: {error}") from error
    if boxes.size == 0 and boxes.shape in ((0,), (0, 4)):
        return boxes.reshape(0, 4)
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise InputError(f"boxes_xyxy has shape {boxes.shape}, legal is (N, 4)")
    refuse_bad_boxes(boxes, image_size_wh)
    return boxes


def _to_uint8(image: NDArray[Any]) -> NDArray[np.uint8]:
    return image if image.dtype == np.uint8 else (image >> 8).astype(np.uint8)


def _to_bgr(image: NDArray[np.uint8]) -> Image:
    if image.ndim == 2:
        image = image[:, :, None]
    if image.shape[2] == 1:
        return cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_GRAY2BGR)  # type: ignore[return-value]
    return np.ascontiguousarray(image[:, :, :3])


def check_number(name: str, value: Any) -> int:
    """A number of things from 1 on; InputError names the argument."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InputError(f"{name} is {value!r}, legal are integers from 1 on")
    return value
