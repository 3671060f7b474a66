"""Crops of an image in one buffer, and their key points carried back."""

from __future__ import annotations

import math
import threading
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from runtime.geometry import Array, Image, crop_region

# OpenCV 5 warps 4 channels three times as fast as 3, with the same numbers; OpenCV 4 is as fast with 3. The region that
# a crop shows is given a fourth channel where that costs less than it saves: up to so many of its pixels per crop pixel
FOUR_CHANNELS_BELOW = 16 if int(cv2.__version__.split(".")[0]) >= 5 else 0
Region = tuple[float, float, float, float]  # x1, y1, x2, y2 px
REGION_MARGIN_PX = 2  # bilinear interpolation looks one pixel further


class Cropper:
    """Cuts one crop per box. Its memory is reused: one buffer per thread, overwritten by that thread's next `cut`."""

    def __init__(self, input_size_wh: tuple[int, int], input_dtype: str, padding: float) -> None:
        self.input_size_wh, self.input_dtype, self.padding = input_size_wh, input_dtype, padding
        self._local = threading.local()

    def cut(self, image: Image, boxes_xyxy: Array, rows: int) -> tuple[NDArray[Any], Array]:
        """Cut N crops with one OpenCV warp each.

        Args:
            image: (H, W, 3) uint8 BGR.
            boxes_xyxy: (N, 4) px.
            rows: of the buffer, at least N; those behind the crops are zeros.
        Returns:
            crops (rows, 3, H, W) RGB, the thread's buffer; the regions (N, 4) px of the image that they show.
        """
        buffers = self._buffers(rows)
        regions = [crop_region(box, self.input_size_wh, self.padding) for box in boxes_xyxy.tolist()]
        for row, region in enumerate(regions):
            self._cut_one(image, region, buffers, row)
        buffers.crops[len(regions) : rows] = 0
        return buffers.crops[:rows], np.array(regions, dtype=np.float64).reshape(-1, 4)

    def _cut_one(self, image: Image, region_xyxy: Region, buffers: Buffers, row: int) -> None:
        """Warp, and write the planes of RGB into the buffer's row."""
        x1, y1, x2, y2 = region_xyxy
        width, height = self.input_size_wh
        left, top, right, bottom = pixels_of(region_xyxy, image)
        is_small = (right - left) * (bottom - top) < FOUR_CHANNELS_BELOW * width * height
        if is_small:
            shown = buffers.region_of(bottom - top, right - left)
            cv2.cvtColor(image[top:bottom, left:right], cv2.COLOR_BGR2BGRA, dst=shown)
        else:
            shown, left, top = image, 0, 0
        scale_x, scale_y = width / (x2 - x1), height / (y2 - y1)
        matrix = buffers.matrix  # between pixel indices, as in `warp_image`
        matrix[0, 0], matrix[0, 2] = scale_x, (left + 0.5 - x1) * scale_x - 0.5
        matrix[1, 1], matrix[1, 2] = scale_y, (top + 0.5 - y1) * scale_y - 0.5
        patch = buffers.patches[is_small]
        cv2.warpAffine(shown, matrix, self.input_size_wh, dst=patch, flags=cv2.INTER_LINEAR)
        red, green, blue = buffers.planes if buffers.planes is not None else buffers.crops[row]
        cv2.split(patch, [blue, green, red, buffers.spare] if is_small else [blue, green, red])
        if buffers.planes is not None:
            np.copyto(buffers.crops[row], buffers.planes)

    def to_image(self, keypoints: NDArray[np.float32], regions_xyxy: Array) -> NDArray[np.float32]:
        """Fractions of the crops (N, K, 2) -> image px (N, K, 2), given the regions (N, 4) px that the crops show."""
        low, high = regions_xyxy[:, None, :2], regions_xyxy[:, None, 2:]
        return (low + keypoints * (high - low)).astype(np.float32)

    def _buffers(self, rows: int) -> Buffers:
        """This thread's, with at least so many rows of crops."""
        held: Buffers | None = getattr(self._local, "buffers", None)
        if held is None or len(held.crops) < rows:
            held = self._local.buffers = Buffers(rows, self.input_size_wh, self.input_dtype)
        return held


class Buffers:
    """What one thread cuts into."""

    def __init__(self, rows: int, size_wh: tuple[int, int], dtype: str) -> None:
        width, height = size_wh
        self.crops: NDArray[Any] = np.empty((rows, 3, height, width), dtype=dtype)
        self.patches = [np.empty((height, width, channels), dtype=np.uint8) for channels in (3, 4)]
        self.planes = None if dtype == "uint8" else np.empty((3, height, width), dtype=np.uint8)  # on the way to floats
        self.spare = np.empty((height, width), dtype=np.uint8)  # the fourth channel
        self.matrix = np.zeros((2, 3))  # of a crop that is not turned
        self._region = np.empty(0, dtype=np.uint8)

    def region_of(self, height: int, width: int) -> NDArray[np.uint8]:
        """Memory (height, width, 4) for what a crop looks at; it grows to the largest region that was asked for."""
        size = 4 * height * width
        if size > len(self._region):
            self._region = np.empty(size, dtype=np.uint8)
        return self._region[:size].reshape(height, width, 4)


def pixels_of(region_xyxy: Region, image: Image) -> tuple[int, int, int, int]:
    """The pixels, x1, y1, x2, y2, of an image that a crop of this region looks at; at least one."""
    height, width = image.shape[:2]
    x1, y1, x2, y2 = region_xyxy
    left = min(max(math.floor(x1) - REGION_MARGIN_PX, 0), width - 1)
    top = min(max(math.floor(y1) - REGION_MARGIN_PX, 0), height - 1)
    right = min(max(math.ceil(x2) + REGION_MARGIN_PX, left + 1), width)
    bottom = min(max(math.ceil(y2) + REGION_MARGIN_PX, top + 1), height)
    return left, top, right, bottom
