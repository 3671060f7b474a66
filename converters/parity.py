"""Parity: an artifact's key points against the checkpoint's, in crop pixels, over the same crops."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from converters.errors import ConversionError
from runtime.backends import Backend, open_backend
from tfpose_edge import TFPose

Array = NDArray[np.float32]
MAX_PX = {"fp32": 0.05}  # largest distance that passes, by precision
MAX_SCORE_DIFFERENCE = {"fp32": 0.01}
MEANINGFUL_PX = 1.0  # a model that moves its key points by less has not been tested by any comparison
REFERENCE_BATCH = 8


class Outputs(NamedTuple):
    """What a network says about N crops."""

    keypoints: Array  # (N, K, 2), fractions of the crop
    scores: Array  # (N, K)


@dataclass(frozen=True)
class Parity:
    """The distances between two networks' key points over the same crops."""

    engine: str  # what ran the artifact
    images: int  # number of crops
    max_px: float  # largest distance, crop pixels
    p99_px: float  # 99 % of the distances are smaller
    within_1px: float  # share, 0..1
    within_4px: float  # share, 0..1
    max_score_difference: float
    mean_score_difference: float
    motion_px: float  # how far the checkpoint's key points go from their means
    meaningful: bool  # motion_px >= MEANINGFUL_PX
    accepted: bool = False  # written in spite of a violation

    def violations(self, precision: str) -> list[str]:
        """What is over the limits of that precision, in words; NaN is over any limit."""
        found = []
        if not self.max_px <= MAX_PX[precision]:
            found.append(f"key points differ by up to {self.max_px:.4g} px (limit {MAX_PX[precision]} px)")
        if not self.max_score_difference <= MAX_SCORE_DIFFERENCE[precision]:
            limit = MAX_SCORE_DIFFERENCE[precision]
            found.append(f"scores differ by up to {self.max_score_difference:.4g} (limit {limit})")
        return found


@torch.no_grad()
def reference_outputs(model: TFPose, crops: NDArray[np.uint8]) -> Outputs:
    """What the checkpoint says, in fp32 on the CPU."""
    outputs = [model(torch.from_numpy(chunk).float()) for chunk in _chunks(crops, REFERENCE_BATCH)]
    keypoints, scores = (torch.cat([output[i] for output in outputs]).numpy() for i in range(2))
    return Outputs(keypoints, scores)


def artifact_outputs(
    backend: Backend, crops: NDArray[np.uint8], batch: int, input_dtype: str, like: Outputs
) -> Outputs:
    """What an artifact says; the last batch is filled with zeros. ConversionError for outputs not shaped `like`."""
    keypoints, scores = [], []
    for chunk in _chunks(crops, batch):
        filled = np.zeros((batch, *crops.shape[1:]), dtype=input_dtype)
        filled[: len(chunk)] = chunk
        outputs = backend.infer(filled)
        shapes = [tuple(output.shape) for output in outputs]
        expected = [(batch, *like.keypoints.shape[1:]), (batch, *like.scores.shape[1:])]
        if shapes != expected:
            raise ConversionError(f"the outputs keypoints, scores have shapes {shapes}, not {expected}")
        keypoints.append(outputs[0][: len(chunk)])
        scores.append(outputs[1][: len(chunk)])
    return Outputs(np.concatenate(keypoints), np.concatenate(scores))


def compare(expected: Outputs, actual: Outputs, input_size_wh: tuple[int, int], engine: str) -> Parity:
    """Distances of key points in px of crops of that size."""
    size = np.array(input_size_wh, dtype=np.float64)
    distance = np.linalg.norm((actual.keypoints - expected.keypoints) * size, axis=-1)  # (N, K)
    difference = np.abs(actual.scores - expected.scores)
    motion = np.linalg.norm((expected.keypoints - expected.keypoints.mean(axis=0)) * size, axis=-1)
    return Parity(
        engine=engine,
        images=len(distance),
        max_px=float(distance.max()),
        p99_px=float(np.percentile(distance, 99)),
        within_1px=float((distance <= 1).mean()),
        within_4px=float((distance <= 4).mean()),
        max_score_difference=float(difference.max()),
        mean_score_difference=float(difference.mean()),
        motion_px=float(motion.max()),
        meaningful=bool(motion.max() >= MEANINGFUL_PX),
    )


def runners(path: Path, engine: str) -> dict[str, Backend]:
    """Everything on this machine that can run an artifact, by name: its engine, and Core ML's reference evaluator."""
    if engine != "coreml":
        return {engine: open_backend(path)}
    from converters.mil_reference import MilReference

    found: dict[str, Backend] = {"reference evaluator": MilReference(path)}
    if sys.platform == "darwin":
        found[engine] = open_backend(path)
    return found


def _chunks(crops: NDArray[Any], size: int) -> list[NDArray[Any]]:
    return [crops[start : start + size] for start in range(0, len(crops), size)]
