"""Crops of an image in one buffer, and their key points carried back."""

from __future__ import annotations

import threading
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from runtime.geometry import Array, Image, invert_matrix, warp_image, warp_matrices

# OpenCV 5 warps 4 channels three times as fast as 3, with the same numbers; OpenCV 4 is as fast with 3. The region that
# a crop shows is given a fourth channel where that costs less than it saves: up to so many of its pixels per crop pixel
FOUR_CHANNELS_BELOW = 16 if int(cv2.__version__.split(".")[0]) >= 5 else 0
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
            crops (rows, 3, H, W) RGB, the thread's buffer; matrices (N, 2, 3) image -> crop.
        """
        buffers = self._buffers(rows)
        matrices, regions = warp_matrices(boxes_xyxy, self.input_size_wh, self.padding)
        for row, region in enumerate(pixels_of(regions, image).tolist()):
            self._cut_one(image, matrices[row], region, buffers, row)
        buffers.crops[len(boxes_xyxy) : rows] = 0
        return buffers.crops[:rows], matrices

    def _cut_one(self, image: Image, matrix: Array, region_xyxy: list[int], buffers: Buffers, row: int) -> None:
        """Warp, and write the planes of RGB into the buffer's row."""
        x1, y1, x2, y2 = region_xyxy
        is_small = (x2 - x1) * (y2 - y1) < FOUR_CHANNELS_BELOW * self.input_size_wh[0] * self.input_size_wh[1]
        if is_small:
            image = cv2.cvtColor(image[y1:y2, x1:x2], cv2.COLOR_BGR2BGRA)  # type: ignore[assignment]
            matrix = matrix.copy()
            matrix[:, 2] += matrix[:, 0] * x1 + matrix[:, 1] * y1
        patch = buffers.patches[is_small]
        warp_image(image, matrix, self.input_size_wh, out=patch)
        red, green, blue = buffers.planes if buffers.planes is not None else buffers.crops[row]
        cv2.split(patch, [blue, green, red, buffers.spare] if is_small else [blue, green, red])
        if buffers.planes is not None:
            np.copyto(buffers.crops[row], buffers.planes)

    def to_image(self, keypoints: NDArray[np.float32], matrices: Array) -> NDArray[np.float32]:
        """Fractions of the crops (N, K, 2) -> image px (N, K, 2), through the inverse of each crop's matrix."""
        crop_xy = keypoints * np.array(self.input_size_wh, dtype=np.float64)
        inverse = invert_matrix(matrices)
        return (crop_xy @ inverse[:, :, :2].swapaxes(1, 2) + inverse[:, None, :, 2]).astype(np.float32)

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


def pixels_of(regions_xyxy: Array, image: Image) -> NDArray[np.int64]:
    """The pixels (N, 4), x1, y1, x2, y2, of an image that crops of these regions (N, 4) px look at; never none."""
    height, width = image.shape[:2]
    low = np.clip(np.floor(regions_xyxy[:, :2]) - REGION_MARGIN_PX, 0, [width - 1, height - 1])
    high = np.clip(np.ceil(regions_xyxy[:, 2:]) + REGION_MARGIN_PX, low + 1, [width, height])
    return np.hstack([low, high]).astype(np.int64)
