"""The ways in which a model can answer: with the mirror image, without boxes, with fewer layers, on other crops."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from runtime.errors import InputError
from tfpose_edge import TFPose
from training.evaluate import ArtifactPredictor, open_predictor
from training.predictor import Array, CheckpointPredictor, FlipTest, Predictor
from training.row import keep_layers


class Variant(NamedTuple):
    """One way, by name; the predictor is opened when its turn comes."""

    name: str
    open: Callable[[], Predictor]


class WholePicture:
    """A predictor that is not told where people are: its one crop is the whole picture, whom it shows is everybody."""

    def __init__(self, predictor: Predictor) -> None:
        self.predictor, self.names = predictor, predictor.names

    def __call__(self, image_bgr: Array, boxes_xyxy: Array) -> tuple[Array, Array]:
        """As `Predictor`; the boxes say only how many people there are."""
        height, width = image_bgr.shape[:2]
        keypoints_xy, scores = self.predictor(image_bgr, np.array([[0.0, 0.0, width, height]]))
        return np.repeat(keypoints_xy, len(boxes_xyxy), 0), np.repeat(scores, len(boxes_xyxy), 0)


class FoundInPicture:
    """An artifact that looks for one person by itself, with `Pose.find`; where it finds nobody, the scores are 0."""

    def __init__(self, predictor: ArtifactPredictor) -> None:
        self.pose, self.names = predictor.pose, predictor.names

    def __call__(self, image_bgr: Array, boxes_xyxy: Array) -> tuple[Array, Array]:
        """As `Predictor`; the boxes say only how many people there are."""
        found = self.pose.find(image_bgr)
        keypoints_xy: Array = np.zeros((1, len(self.names), 2))
        scores: Array = np.zeros((1, len(self.names)))
        if len(found):
            keypoints_xy, scores = found.keypoints_xy[:1].astype(np.float64), found.scores[:1]
        return np.repeat(keypoints_xy, len(boxes_xyxy), 0), np.repeat(scores, len(boxes_xyxy), 0)


def variants_of(path: Path, sizes_wh: Sequence[tuple[int, int]] = ()) -> list[Variant]:
    """What can be asked of a model.

    Args:
        path: a checkpoint (also of a rival) or an artifact. Layers and sizes are a TFPose checkpoint's alone, the
            search for a person an artifact's.
        sizes_wh: crops (width, height) px, multiples of 32; the checkpoint's own size is its plain answer.
    Raises:
        InputError: a results file, or a size that the network cannot have.
        ModelFileError: not a checkpoint or artifact.
    """
    plain = _opened(path)
    found = [
        Variant("as it is", lambda: plain),
        Variant("flip test", lambda: FlipTest(plain)),
        Variant("whole picture as one crop", lambda: WholePicture(plain)),
    ]
    if isinstance(plain, ArtifactPredictor):
        return [*found, Variant("found in the picture", lambda: FoundInPicture(plain))]
    if not isinstance(plain, CheckpointPredictor) or not isinstance(plain.model, TFPose):
        return found
    layers = range(1, plain.model.config.num_decoder_layers)
    found += [Variant(_counted(count), partial(_with_layers, path, count)) for count in layers]
    others = [size for size in sizes_wh if size != plain.model.config.input_size_wh]
    found += [Variant(f"crops of {w}x{h}", partial(_with_crops, path, (w, h))) for w, h in others]
    return found


def resized(model: TFPose, size_wh: tuple[int, int]) -> TFPose:
    """The same weights on crops of another size, in eval mode; InputError where the network cannot have it."""
    try:
        config = dataclasses.replace(model.config, input_size_wh=size_wh)
    except ValueError as error:
        raise InputError(str(error)) from error
    other = TFPose(config)
    other.load_state_dict(model.state_dict())
    return other.eval()


def _counted(count: int) -> str:
    return f"{count} decoder layer{'s' if count > 1 else ''}"


def _with_layers(path: Path, count: int) -> Predictor:
    predictor = CheckpointPredictor(path)
    keep_layers(predictor.model, count)
    return predictor


def _with_crops(path: Path, size_wh: tuple[int, int]) -> Predictor:
    predictor = CheckpointPredictor(path)
    assert isinstance(predictor.model, TFPose)
    predictor.model = resized(predictor.model, size_wh)
    return predictor


def _opened(path: Path) -> Predictor:
    predictor = open_predictor(path)
    if isinstance(predictor, list):
        raise InputError(f"{path}: a results file; training.evaluate scores it, here a checkpoint or artifact is asked")
    return predictor
