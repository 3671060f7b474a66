"""Rivals of TFPose for comparisons under one recipe: DeepPose regresses, SimpleBaseline reads heat maps.

Both take the backbone, the crops and the training of TFPose and answer with its `PoseOutput`, so that engine, criterion
and evaluation treat them alike. They are compared, never shipped: converters refuse their checkpoints.

Deviations from their papers: targets of the heat maps are the unbiased Gaussians of the auxiliary loss; DeepPose has
one stage, no cascade, and TFPose's score head beside it, whose gradient stops there.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn

from tfpose_edge import PoseConfig, PoseOutput
from tfpose_edge.attention.precision import in_full_precision
from tfpose_edge.backbone import build_backbone
from tfpose_edge.heads import HeatmapHead
from tfpose_edge.model import IMAGENET_MEAN, IMAGENET_STD


class Rival(nn.Module):
    """Backbone and normalisation.

    Args:
        config: its backbone, crop size, padding and key-point names count; levels, encoder and decoder do not.
    """

    sampler_name = "none"
    mean: Tensor
    std: Tensor

    def __init__(self, config: PoseConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = build_backbone(config.backbone, config.backbone_width)
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).reshape(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).reshape(3, 1, 1), persistent=False)

    def coarsest(self, crops: Tensor) -> Tensor:
        """crops (B, 3, H, W), RGB, 0..255 -> C5 (B, channels, H / 32, W / 32)."""
        features: dict[int, Tensor] = self.backbone((crops - self.mean) / self.std)
        return features[5]


class DeepPose(Rival):
    """Global average pooling and one fully connected layer to K x 2, trained with L1 (Toshev & Szegedy, 2014)."""

    def __init__(self, config: PoseConfig) -> None:
        super().__init__(dataclasses.replace(config, heatmap_head=False))
        channels = self.backbone.channels[5]
        self.regression = nn.Linear(channels, 2 * config.num_keypoints)
        self.score = nn.Linear(channels, config.num_keypoints)

    def forward(self, crops: Tensor) -> PoseOutput:
        """crops (B, 3, H, W) -> key points in fractions of the crop, one layer of them; memory (B, channels)."""
        pooled = self.coarsest(crops).mean((-1, -2))  # (B, channels)
        keypoints = in_full_precision(self.regression, pooled).unflatten(-1, (-1, 2))  # (B, K, 2)
        return PoseOutput(keypoints, self.score(pooled.detach()).sigmoid(), keypoints[None], pooled)

    @torch.no_grad()
    def start_at(self, keypoints: Tensor) -> None:
        """Answer close to `keypoints` (K, 2), fractions of the crop, before training."""
        nn.init.normal_(self.regression.weight, std=1e-3)
        self.regression.bias.copy_(keypoints.flatten())


class SimpleBaseline(Rival):
    """Three deconvolutions of C5 to K heat maps at stride 4, trained with MSE alone (Xiao, Wu & Wei, 2018)."""

    def __init__(self, config: PoseConfig) -> None:
        super().__init__(dataclasses.replace(config, heatmap_head=True))
        self.head = HeatmapHead(self.backbone.channels[5], config.heatmap_channels, config.num_keypoints)
        self.head.apply(_start_near_zero)

    def forward(self, crops: Tensor) -> PoseOutput:
        """crops (B, 3, H, W) -> decoded key points, no layer of regressed ones; memory is the heat maps."""
        coarsest = self.coarsest(crops)
        height, width = coarsest.shape[-2:]
        heatmaps: Tensor = self.head(coarsest.flatten(2).transpose(1, 2), (height, width))
        keypoints, scores = decode(heatmaps.detach().float())
        return PoseOutput(keypoints, scores, keypoints.new_zeros(0, *keypoints.shape), heatmaps)

    def heatmaps(self, memory: Tensor) -> Tensor:
        """The memory (B, K, H / 4, W / 4), which the heat maps are."""
        return memory


def decode(heatmaps: Tensor) -> tuple[Tensor, Tensor]:
    """Key points (B, K, 2), fractions of the crop, and scores (B, K) in [0, 1] of heat maps (B, K, height, width).

    The highest pixel, moved by a quarter px towards the higher of its two neighbours on each axis (not at the map's
    edge); its height is the score.
    """
    height, width = heatmaps.shape[-2:]
    peaks, place = heatmaps.flatten(2).max(-1)  # (B, K)
    towards_x, towards_y = torch.zeros_like(heatmaps), torch.zeros_like(heatmaps)
    towards_x[..., 1:-1] = (heatmaps[..., 2:] - heatmaps[..., :-2]).sign()
    towards_y[..., 1:-1, :] = (heatmaps[..., 2:, :] - heatmaps[..., :-2, :]).sign()
    shift = torch.stack((towards_x, towards_y), -1).flatten(2, 3)  # (B, K, height * width, 2)
    shift = shift.gather(2, place[..., None, None].expand(-1, -1, 1, 2)).squeeze(2)
    index = torch.stack((place % width, place // width), -1) + 0.25 * shift
    return (index + 0.5) / index.new_tensor((width, height)), peaks.clamp(0, 1)


def _start_near_zero(module: nn.Module) -> None:
    """SimpleBaseline's initialisation; torch's own starts sixty times above the targets' power and learns far later."""
    if isinstance(module, nn.ConvTranspose2d | nn.Conv2d):
        nn.init.normal_(module.weight, std=1e-3)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
