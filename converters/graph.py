"""The network as it is exported: a rewritten copy behind one input and two outputs, never a mode of the model."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from converters.placed import PLACED, PlacedSampler
from converters.rewrites import REWRITES
from tfpose_edge import TFPose
from tfpose_edge.attention import DeformableAttention, get_sampler

INPUT_NAME = "crops"
OUTPUT_NAMES = ("keypoints", "scores")  # in this order, in every format


class Normalise(nn.Module):
    """Crops 0..255 to the numbers that the backbone was trained on."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean.clone())
        self.register_buffer("std", std.clone())

    def forward(self, crops: Tensor) -> Tensor:
        """crops (B, 3, H, W) float32, 0..255 -> the same shape, about -2..2.7."""
        return (crops - self.mean) / self.std


class ExportGraph(nn.Module):
    """What every format holds: crops in, key points and scores out. The model that it is made of stays as it was.

    Args:
        model: the network to copy; the copy is in eval mode and has no auxiliary head.
        sampler: name of the sampler of all its deformable attention.
        rewrites: names from `REWRITES`, applied in the table's order.
        decoder_layers: of the network's, the first so many; None is all, and only that is exact.

    Raises:
        ValueError: the network has fewer decoder layers.
    """

    def __init__(
        self, model: TFPose, sampler: str, rewrites: Sequence[str] = (), decoder_layers: int | None = None
    ) -> None:
        super().__init__()
        self.network = copy.deepcopy(model).eval().requires_grad_(False)
        self._keep_layers(len(model.decoder) if decoder_layers is None else decoder_layers)
        self.network.heatmap_head = None
        self.normalise: nn.Module = Normalise(model.mean, model.std)
        self.decode: Callable[[Tensor], tuple[Tensor, Tensor]] = self._decode
        self.sampler = sampler
        for module in self.network.modules():
            if isinstance(module, DeformableAttention):
                module.sampler = get_sampler(sampler)
        for name, rewrite in REWRITES.items():
            if name in rewrites:
                rewrite.apply(self)
        self.eval()

    def forward(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        """crops (B, 3, H, W) RGB 0..255, uint8 or float32 -> keypoints (B, K, 2) in fractions, scores (B, K)."""
        features = self.network.backbone(self.normalise(crops.float()))
        memory = self.network.encode(self.network.project(features))
        keypoints, query = self.decode(memory)
        return keypoints, self.network.score_head(query)

    def placed(self, n_heads: int) -> PlacedSampler:
        """The graph's sampler, at pixel positions of the network's memory seen as `n_heads` heads."""
        config = self.network.config
        return PLACED[self.sampler](config.spatial_shapes, n_heads, config.n_points)

    def _keep_layers(self, count: int) -> None:
        """Drop the decoder layers after the first `count`, and their heads."""
        if not 1 <= count <= len(self.network.decoder):
            raise ValueError(f"decoder_layers is {count}; this network has {len(self.network.decoder)}")
        self.network.decoder = self.network.decoder[:count]
        self.network.keypoint_heads = self.network.keypoint_heads[:count]

    def _decode(self, memory: Tensor) -> tuple[Tensor, Tensor]:
        per_layer, query = self.network.decode(memory)
        return per_layer[-1], query

    def example(self, batch: int, input_dtype: str) -> Tensor:
        """Gray crops (batch, 3, H, W) of that type, for tracing."""
        width, height = self.network.config.input_size_wh
        return torch.full((batch, 3, height, width), 128, dtype=getattr(torch, input_dtype))
