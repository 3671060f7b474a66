"""A larger TFPose that a small one learns from: its key points, and its heat maps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from runtime.errors import InputError
from tfpose_edge import load_checkpoint
from tfpose_edge.attention import choose_sampler


class Teaching(NamedTuple):
    """What a teacher says of a batch of crops."""

    keypoints: Tensor
    """(B, K, 2) float32, fractions of the crop."""
    scores: Tensor
    """(B, K) float32 in [0, 1]: how much each of them counts."""
    heatmaps: Tensor | None
    """(B, K, height, width) float32, or None of a teacher that has none."""


class Teacher:
    """A checkpoint of TFPose, frozen.

    Args:
        path: of any preset and crop size; crops are resized to its own.
        keypoint_names: of the student, which must be the teacher's.
        device: where it runs.
    Raises:
        InputError: not a checkpoint of TFPose, or of other key points.
    """

    def __init__(self, path: Path, keypoint_names: Sequence[str], device: torch.device) -> None:
        try:
            self.model = load_checkpoint(path, choose_sampler("auto", device)).to(device)
        except ValueError as error:
            raise InputError(f"--teacher: {error}") from error
        if self.model.config.keypoint_names != tuple(keypoint_names):
            raise InputError(f"--teacher {path}: has other key points than the network that is trained")

    @torch.no_grad()
    def __call__(self, crops: Tensor) -> Teaching:
        """crops (B, 3, H, W) float32, RGB, 0..255, of the student's size -> `Teaching`."""
        width, height = self.model.config.input_size_wh
        if crops.shape[-2:] != (height, width):
            crops = functional.interpolate(crops, (height, width), mode="bilinear", antialias=True)
        output = self.model(crops)
        heatmaps = self.model.heatmaps(output.memory).float() if self.model.config.heatmap_head else None
        return Teaching(output.keypoints.float(), output.scores.float(), heatmaps)
