"""Crops of an image in one buffer, and their key points carried back."""

from __future__ import annotations

import threading
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from runtime.geometry import Array, Image, box_to_center_scale, invert_matrix, warp_image, warp_matrix


class Cropper:
    """Cuts one crop per box. Its memory is reused: one buffer per thread, overwritten by that thread's next `cut`."""

    def __init__(self, input_size_wh: tuple[int, int], input_dtype: str, padding: float) -> None:
        self.input_size_wh, self.input_dtype, self.padding = input_size_wh, input_dtype, padding
        self._local = threading.local()

    def cut(self, image: Image, boxes_xyxy: Array, rows: int) -> tuple[NDArray[Any], Array]:
        """Cut N crops with one OpenCV call each.

        Args:
            image: (H, W, 3) uint8 BGR.
            boxes_xyxy: (N, 4) px.
            rows: of the buffer, at least N; those behind the crops are zeros.
        Returns:
            crops (rows, 3, H, W) RGB, the thread's buffer; matrices (N, 2, 3) image -> crop.
        """
        crops, patch = self._buffers(rows)
        matrices = np.empty((len(boxes_xyxy), 2, 3))
        for row, box in enumerate(boxes_xyxy):
            center, scale = box_to_center_scale(box, self.input_size_wh, self.padding)
            matrices[row] = warp_matrix(center, scale, self.input_size_wh)
            warp_image(image, matrices[row], self.input_size_wh, out=patch)
            if crops.dtype == np.uint8:
                cv2.split(patch, [crops[row, 2], crops[row, 1], crops[row, 0]])  # BGR -> the planes of RGB
            else:
                np.copyto(crops[row], patch[:, :, ::-1].transpose(2, 0, 1))
        crops[len(boxes_xyxy) :] = 0
        return crops, matrices

    def to_image(self, keypoints: NDArray[np.float32], matrices: Array) -> NDArray[np.float32]:
        """Fractions of the crops (N, K, 2) -> image px (N, K, 2), through the inverse of each crop's matrix."""
        crop_xy = keypoints * np.array(self.input_size_wh, dtype=np.float64)
        inverse = invert_matrix(matrices)
        return (crop_xy @ inverse[:, :, :2].swapaxes(1, 2) + inverse[:, None, :, 2]).astype(np.float32)

    def _buffers(self, rows: int) -> tuple[NDArray[Any], Image]:
        """(rows, 3, H, W) of the crops' type and (H, W, 3) uint8, of this thread."""
        width, height = self.input_size_wh
        held: NDArray[Any] | None = getattr(self._local, "crops", None)
        if held is None or len(held) < rows:
            held = self._local.crops = np.empty((rows, 3, height, width), dtype=self.input_dtype)
            self._local.patch = np.empty((height, width, 3), dtype=np.uint8)
        return held[:rows], self._local.patch
