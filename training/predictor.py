"""What finds key points in boxes: a checkpoint in torch, with or without the mirror image, or files of results."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from runtime import geometry
from runtime.errors import BackendUnavailable, InputError, ModelFileError
from runtime.skeleton import flip_order
from tfpose_edge import load_checkpoint
from training.data.coco import PersonSet, is_finite, is_integer
from training.data.crops import person_matrix

Array = NDArray[Any]
DEVICES = ("cpu", "cuda")
"""Where torch runs a checkpoint."""
MAX_COORDINATE_PX = 1e6
"""The largest coordinate of a box, the runtime's own limit."""


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
            self.model = load_checkpoint(path, sampler)
        except ValueError as error:
            raise ModelFileError(str(error)) from error
        self.device = torch.device(device)
        self.model.to(self.device)
        self.names = self.model.config.keypoint_names

    def __call__(self, image_bgr: Array, boxes_xyxy: Array) -> tuple[Array, Array]:
        """As `Predictor`; InputError names a box that `runtime` would refuse."""
        _check_boxes(boxes_xyxy, image_bgr)
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


def read_list(path: Path, keys: tuple[str, ...]) -> list[dict[str, Any]]:
    """The objects of a JSON list, each of which has `keys`; InputError otherwise."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot read: {error.strerror}") from error
    except ValueError as error:
        raise InputError(f"{path}: not JSON: {error}") from error
    if not isinstance(content, list) or not all(isinstance(r, dict) and set(keys) <= set(r) for r in content):
        raise InputError(f"{path}: must be a list of objects with {', '.join(keys)}")
    return content


def check_results(results: Sequence[dict[str, Any]], found: PersonSet) -> list[dict[str, Any]]:
    """The COCO results of the chosen images; InputError names one that is not legal or whose image nobody knows."""
    for place, result in enumerate(results):
        if "annotation_id" in result and not is_integer(result["annotation_id"]):
            raise InputError(f"results[{place}]: 'annotation_id' is {result['annotation_id']!r}; it must be an integer")
    return _check_records("results", results, "keypoints", 3 * len(found.names), found)


def check_detections(boxes: Sequence[dict[str, Any]], found: PersonSet) -> list[dict[str, Any]]:
    """A detector's boxes on the chosen images; InputError names one that is not legal or whose image nobody knows."""
    return _check_records("boxes", boxes, "bbox", 4, found)


def _check_records(
    what: str, records: Sequence[dict[str, Any]], key: str, count: int, found: PersonSet
) -> list[dict[str, Any]]:
    """Records of the chosen images, with `count` finite numbers under `key` and a finite score."""
    chosen, known = [], found.image_paths.keys() | found.other_image_ids
    for place, record in enumerate(records):
        image_id, values, score = record.get("image_id"), record.get(key), record.get("score")
        if not is_integer(image_id) or image_id not in known:
            raise InputError(f"{what}[{place}]: 'image_id' is {image_id!r}, which is no image of the data")
        if not isinstance(values, list | tuple) or len(values) != count or not all(map(is_finite, values)):
            raise InputError(f"{what}[{place}] (image {image_id}): {key!r} must be {count} finite numbers")
        if not is_finite(score):
            raise InputError(f"{what}[{place}] (image {image_id}): 'score' is {score!r}; it must be a finite number")
        if image_id in found.image_paths:
            chosen.append(record)
    return chosen


def _check_boxes(boxes_xyxy: Array, image_bgr: Array) -> None:
    """InputError names a box that the runtime refuses: not finite, empty, outside the image, too far, too small."""
    height, width = image_bgr.shape[:2]
    for row, box in enumerate(boxes_xyxy):
        x1, y1, x2, y2 = box.tolist()
        problem = ""
        if not np.isfinite(box).all():
            problem = "not finite"
        elif x2 <= x1 or y2 <= y1:
            problem = "inverted or empty, legal is x1 < x2 and y1 < y2"
        elif x2 <= 0 or y2 <= 0 or x1 >= width or y1 >= height:
            problem = f"fully outside the image of {width} x {height} px"
        elif np.abs(box).max() > MAX_COORDINATE_PX:
            problem = f"further than {MAX_COORDINATE_PX:.0f} px from the image's corner"
        elif max(x2 - x1, y2 - y1) < 1:
            problem = "smaller than a pixel"
        if problem:
            raise InputError(f"boxes_xyxy[{row}] is {box.tolist()}: {problem}")
