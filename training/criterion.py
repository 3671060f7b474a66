"""The losses (paper, equations 5 to 7) and the target of the score head.

Deviations from the paper: a third loss trains the score head, whose gradient ends there; it does not move coordinates.
Two more let a network learn from a teacher's answers, where it has one.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from tfpose_edge import PoseOutput
from training.data.dataset import Batch
from training.teacher import Teaching

LOSS_WEIGHTS = {"loss_keypoints": 1.0, "loss_heatmaps": 50.0, "loss_scores": 1.0}
"""Equation 7; the heat maps' 50 is the paper's lambda."""
TEACHER_WEIGHTS = {"loss_teacher_keypoints": 1.0, "loss_teacher_heatmaps": 50.0}
"""A teacher's answers count as much as the truth."""


def gaussian_heatmaps(keypoints: Tensor, height: int, width: int) -> Tensor:
    """Unbiased Gaussian targets (B, K, height, width), peak 1 (section 3.3; UDP, its reference [23]).

    Args:
        keypoints: (B, K, 2), fractions of the crop; x lies at x * width - 0.5 in heat-map indices, unrounded.
        height, width: of the map; sigma is 2 px on maps 64 px high, in proportion on others.
    """
    sigma = 2.0 * height / 64
    x = keypoints[..., 0, None] * width - 0.5 - torch.arange(width, device=keypoints.device)  # (B, K, width)
    y = keypoints[..., 1, None] * height - 0.5 - torch.arange(height, device=keypoints.device)  # (B, K, height)
    vertical, horizontal = (torch.exp(-(d**2) / (2 * sigma**2)) for d in (y, x))
    return vertical[..., :, None] * horizontal[..., None, :]


def soft_oks(keypoints: Tensor, truth: Tensor, area_px: Tensor, sigmas: Tensor, input_size_wh: Sequence[int]) -> Tensor:
    """Object key-point similarity (B, K) of each point, in [0, 1], COCO's formula.

    Args:
        keypoints, truth: (B, K, 2), fractions of the crop.
        area_px: (B,), the person's area in square px of the crop.
        sigmas: (K,), COCO's per-point constants.
        input_size_wh: crop size in px.
    """
    size = torch.tensor(input_size_wh, dtype=keypoints.dtype, device=keypoints.device)
    squared = (((keypoints - truth) * size) ** 2).sum(-1)
    return torch.exp(-squared / (2 * area_px[:, None] * (2 * sigmas) ** 2 + 1e-6))


def count_points(batch: Batch) -> Tensor:
    """(2,): key points that are labelled and inside the crop, and key points that the data set names."""
    return torch.stack((_inside(batch).sum(), batch.named.sum()))


def losses(
    output: PoseOutput, heatmaps: Tensor | None, batch: Batch, sigmas: Tensor, input_size_wh: Sequence[int],
    counts: Tensor | None = None,
) -> dict[str, Tensor]:  # fmt: skip
    """Unweighted losses under the keys of `LOSS_WEIGHTS`.

    Args:
        output: of the network; one without layers of key points (a rival) learns its heat maps alone.
        heatmaps: (B, K, H / 4, W / 4) of the auxiliary head, or None without one.
        batch: the truth.
        sigmas: (K,).
        input_size_wh: crop size in px.
        counts: `count_points` of the global batch over the number of processes; None counts this batch.
    """
    inside = _inside(batch)
    points, named = (count_points(batch) if counts is None else counts).clamp(min=1e-6)
    terms = {}
    if len(output.per_layer):
        error = (output.per_layer.float() - batch.keypoints).abs() * inside[..., None]
        terms["loss_keypoints"] = error.sum() / (2 * points)  # mean over points and x / y, sum over layers (eq. 5)
    if heatmaps is not None:
        target = gaussian_heatmaps(batch.keypoints, *heatmaps.shape[-2:])
        per_map = ((heatmaps.float() - target) ** 2).mean((-1, -2))
        terms["loss_heatmaps"] = (per_map * inside).sum() / points  # eq. 6
    if len(output.per_layer):
        terms["loss_scores"] = _score_entropy(output, batch, sigmas, input_size_wh).sum() / named
    return terms


def teacher_losses(output: PoseOutput, heatmaps: Tensor | None, teaching: Teaching) -> dict[str, Tensor]:
    """Unweighted losses against a teacher's answers, under the keys of `TEACHER_WEIGHTS`; labels play no part in them.

    Args:
        output: of the network that learns.
        heatmaps: (B, K, h, w) of its auxiliary head, or None.
        teaching: key points count by the teacher's scores; its heat maps are brought to the size of `heatmaps`.
    """
    terms = {}
    if len(output.per_layer):
        error = (output.per_layer.float() - teaching.keypoints).abs() * teaching.scores[..., None]
        terms["loss_teacher_keypoints"] = error.mean((1, 2, 3)).sum()  # over layers, as equation 5
    if heatmaps is not None and teaching.heatmaps is not None:
        target = functional.interpolate(teaching.heatmaps, heatmaps.shape[-2:], mode="bilinear", antialias=True)
        terms["loss_teacher_heatmaps"] = ((heatmaps.float() - target) ** 2).mean()
    return terms


def weighted_sum(terms: dict[str, Tensor]) -> Tensor:
    """Equation 7, and a teacher's losses where there are some."""
    weights = LOSS_WEIGHTS | TEACHER_WEIGHTS
    return sum((weights[name] * term for name, term in terms.items()), start=torch.zeros(()).to(_device(terms)))


def _inside(batch: Batch) -> Tensor:
    """(B, K): labelled and inside the crop."""
    return batch.labelled & ((batch.keypoints >= 0) & (batch.keypoints <= 1)).all(-1)


def _score_entropy(output: PoseOutput, batch: Batch, sigmas: Tensor, input_size_wh: Sequence[int]) -> Tensor:
    """(B, K) cross entropy to soft OKS for labelled points, to 0 for unlabelled ones; 0 for points without a name."""
    predicted = output.keypoints.detach().float()
    target = soft_oks(predicted, batch.keypoints, batch.area_px, sigmas, input_size_wh) * batch.labelled
    scores = output.scores.float().clamp(1e-6, 1 - 1e-6)
    return -(target * scores.log() + (1 - target) * (1 - scores).log()) * batch.named


def _device(terms: dict[str, Tensor]) -> torch.device:
    return next(iter(terms.values())).device
