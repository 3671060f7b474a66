"""Parity: an artifact's key points against the checkpoint's, in crop pixels, over the same crops."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from converters.accuracy import Accuracy, Labels
from converters.errors import ConversionError
from runtime.backends import Backend, open_backend

Array = NDArray[np.float32]


class Limits(NamedTuple):
    """What passes, in crop pixels, shares and points of AP."""

    max_px: float = np.inf
    within_1px: float = 0.0
    within_4px: float = 0.0
    score_difference: float = np.inf  # largest
    ap_drop: float = np.inf


LIMITS = {
    "fp32": Limits(max_px=0.05, score_difference=0.01, ap_drop=0.2),
    "fp16": Limits(within_1px=0.99, within_4px=1.0, ap_drop=0.2),
    "int8": Limits(within_4px=0.95, ap_drop=1.0),
}
"""Precision -> limits."""
MEANINGFUL_PX = 1.0  # a model that moves its key points by less has not been tested by any comparison
REFERENCE_BATCH = 8


class Outputs(NamedTuple):
    """What a network says about N crops."""

    keypoints: Array  # (N, K, 2), fractions of the crop
    scores: Array  # (N, K)


@dataclass(frozen=True)
class Parity:
    """The distances between two networks' key points over the same crops, and how right both are."""

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
    accuracy: Accuracy | None = None  # of the artifact, where the crops are labelled
    checkpoint_accuracy: Accuracy | None = None  # on the same crops

    @property
    def ap_drop(self) -> float:
        """Points of AP that the artifact loses; 0 without labels."""
        pair = [a.ap for a in (self.checkpoint_accuracy, self.accuracy) if a is not None and a.ap is not None]
        return pair[0] - pair[1] if len(pair) == 2 else 0.0

    def violations(self, precision: str) -> list[str]:
        """What is over the limits of that precision, in words; NaN is over any limit."""
        limits, found = LIMITS[precision], []
        if not np.isfinite(self.max_px):
            found.append("key points are not finite")
        elif self.max_px > limits.max_px:
            found.append(f"key points differ by up to {self.max_px:.4g} px (limit {limits.max_px} px)")
        for px, share, least in ((1, self.within_1px, limits.within_1px), (4, self.within_4px, limits.within_4px)):
            if not share >= least:
                found.append(f"{share:.2%} of the key points stay within {px} px (limit {least:.0%})")
        if not self.max_score_difference <= limits.score_difference:
            found.append(f"scores differ by up to {self.max_score_difference:.4g} (limit {limits.score_difference})")
        if not self.ap_drop <= limits.ap_drop:
            found.append(f"AP falls by {self.ap_drop:.2f} (limit {limits.ap_drop})")
        return found


@torch.no_grad()
def reference_outputs(model: nn.Module, crops: NDArray[np.uint8]) -> Outputs:
    """What the checkpoint, or a graph of it, says, in fp32 on the CPU."""
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


def compare(
    expected: Outputs, actual: Outputs, input_size_wh: tuple[int, int], engine: str, labels: Labels | None = None
) -> Parity:
    """Distances of key points in px of crops of that size, and both accuracies where there are labels."""
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
        accuracy=labels.accuracy(*actual) if labels else None,
        checkpoint_accuracy=labels.accuracy(*expected) if labels else None,
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
