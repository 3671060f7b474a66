"""What finds key points in boxes: a checkpoint in torch, with or without the mirror image."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from runtime import geometry
from runtime.errors import BackendUnavailable, ModelFileError
from runtime.skeleton import flip_order
from tfpose_edge.attention import choose_sampler
from training.data.crops import person_matrix
from training.networks import load

Array = NDArray[Any]
DEVICES = ("cpu", "cuda")
"""Where torch runs a checkpoint."""


class Predictor(Protocol):
    """Anything that finds key points in boxes."""

    names: tuple[str, ...]

    def __call__(self, image_bgr: Array, boxes_xyxy: Array) -> tuple[Array, Array]:
        """Image (H, W, 3) and boxes (N, 4) px -> key points (N, K, 2) px and scores (N, K)."""


class CheckpointPredictor:
    """A checkpoint in torch, on the crops that `runtime` would cut."""

    def __init__(self, path: Path, sampler: str = "auto", device: str = "cpu") -> None:
        """Load a checkpoint.

        Raises:
            ModelFileError: not a checkpoint.
            BackendUnavailable: a device that is not of `DEVICES`, or not on this machine.
        """
        if device not in DEVICES:
            raise BackendUnavailable(f"device {device!r}: a checkpoint runs on {' or '.join(DEVICES)}")
        if device == "cuda" and not torch.cuda.is_available():
            raise BackendUnavailable("device 'cuda': torch finds none on this machine; legal here is cpu")
        try:
            self.model = load(path, choose_sampler(sampler, device))
        except ValueError as error:
            raise ModelFileError(str(error)) from error
        self.device = torch.device(device)
        self.model.to(self.device)
        self.names = self.model.config.keypoint_names

    def __call__(self, image_bgr: Array, boxes_xyxy: Array) -> tuple[Array, Array]:
        """As `Predictor`; InputError names a box that `runtime` would refuse."""
        geometry.refuse_bad_boxes(boxes_xyxy, (image_bgr.shape[1], image_bgr.shape[0]))
        config = self.model.config
        matrices = [person_matrix(box, config.input_size_wh, config.padding) for box in boxes_xyxy]
        crops = np.stack([geometry.warp_image(image_bgr, m, config.input_size_wh) for m in matrices])
        crops = np.ascontiguousarray(crops[..., ::-1].transpose(0, 3, 1, 2))
        with torch.inference_mode():
            output = self.model(torch.from_numpy(crops).to(self.device).float())
        crop_xy = output.keypoints.double().cpu().numpy() * config.input_size_wh
        keypoints_xy = [
            geometry.transform_points(xy, geometry.invert_matrix(m)) for xy, m in zip(crop_xy, matrices, strict=True)
        ]
        return np.stack(keypoints_xy), output.scores.cpu().numpy()


class FlipTest:
    """Average of a predictor on an image and on its mirror image, left and right swapped (paper, section 4.1)."""

    def __init__(self, predictor: Predictor) -> None:
        self.predictor, self.names = predictor, predictor.names
        self.order = flip_order(self.names)

    def __call__(self, image_bgr: Array, boxes_xyxy: Array) -> tuple[Array, Array]:
        """As `Predictor`."""
        width = image_bgr.shape[1]
        keypoints_xy, scores = self.predictor(image_bgr, boxes_xyxy)
        mirrored_boxes = boxes_xyxy.copy()
        mirrored_boxes[:, [0, 2]] = width - boxes_xyxy[:, [2, 0]]
        mirrored_xy, mirrored_scores = self.predictor(np.ascontiguousarray(image_bgr[:, ::-1]), mirrored_boxes)
        mirrored_xy = mirrored_xy[:, self.order] * (-1, 1) + (width, 0)
        return (keypoints_xy + mirrored_xy) / 2, (scores + mirrored_scores[:, self.order]) / 2
