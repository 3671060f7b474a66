"""Exact rewrites of an export graph: each a function that changes the graph in place, each on its own.

Exact: in fp32 the key points stay within 1e-4 of the crop. New ones are a function and a line in `REWRITES`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from tfpose_edge.attention import DeformableAttention

if TYPE_CHECKING:
    from converters.graph import ExportGraph


class Subtract(nn.Module):
    """Crops minus the mean; the division by the standard deviation sits in the first convolution."""

    mean: Tensor

    def __init__(self, mean: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean)

    def forward(self, crops: Tensor) -> Tensor:
        """crops (B, 3, H, W) float32, 0..255 -> the same shape, about -124..152."""
        return crops - self.mean


class AppendOnes(nn.Module):
    """A last channel that counts: sampled, it is the share of the attention that falls inside the image."""

    def forward(self, memory: Tensor) -> Tensor:
        """memory (B, S, C) -> (B, S, C + 1)."""
        return nn.functional.pad(memory, (0, 1), value=1.0)


class SampleThenProject(nn.Module):
    """Deformable attention for few queries: sampling is linear, so the samples are projected and not the memory.

    `W sample(x) + b sample(1)`: samples outside the image are zero and get no bias; `AppendOnes` is the 1.
    """

    weight: Tensor

    def __init__(self, attention: DeformableAttention) -> None:
        super().__init__()
        self.attention = attention
        n_heads = attention.n_heads
        weight = attention.value_proj.weight.reshape(n_heads, -1, attention.value_proj.in_features)  # (H, D, C)
        bias = attention.value_proj.bias.reshape(n_heads, -1, 1)
        self.register_buffer("weight", torch.cat((weight, bias), dim=2).transpose(1, 2).contiguous())  # (H, C + 1, D)
        del attention.value_proj

    def forward(
        self, query: Tensor, reference_points: Tensor, memory: Tensor, spatial_shapes: tuple[tuple[int, int], ...]
    ) -> Tensor:
        """As `DeformableAttention.forward`, but memory (B, S, C + 1) ends with a channel of ones."""
        attention = self.attention
        (batch, queries, channels), n_heads = query.shape, attention.n_heads
        samples = attention.n_levels * attention.n_points
        # every head of every query becomes a query of its own, with the whole memory as its only head
        offsets = attention.sampling_offsets(query).reshape(batch, queries * n_heads, 1, samples, 2)
        logits = attention.attention_weights(query).reshape(batch, queries * n_heads, 1, samples)
        references = reference_points[:, :, None].expand(-1, -1, n_heads, -1).reshape(batch, queries * n_heads, 2)
        sampled = attention.sampler(
            memory[:, :, None], references, offsets, logits, spatial_shapes
        )  # (B, Q * H, C + 1)
        by_head = sampled.reshape(batch * queries, n_heads, channels + 1).transpose(0, 1)  # (H, B * Q, C + 1)
        projected = (by_head @ self.weight).transpose(0, 1)  # (B * Q, H, D)
        return attention.output_proj(projected.reshape(batch, queries, channels))  # type: ignore[no-any-return]


def fold_normalisation(graph: ExportGraph) -> None:
    """Divide the first convolution's weights by the standard deviation; the mean stays, for the sake of the padding."""
    network = graph.network
    network.backbone.conv1.weight.data /= network.std.reshape(1, 3, 1, 1)
    graph.normalise = Subtract(network.mean.clone())


def fold_batchnorm(graph: ExportGraph) -> None:
    """Move every BatchNorm of the backbone into the convolution before it."""
    for module in list(graph.network.backbone.modules()):
        previous = ""
        for name, child in list(module.named_children()):
            if isinstance(child, nn.BatchNorm2d):
                setattr(module, previous, fuse_conv_bn_eval(getattr(module, previous), child))
                setattr(module, name, nn.Identity())
            previous = name


def sample_then_project(graph: ExportGraph) -> None:
    """Let each decoder layer project its few samples and not the whole memory."""
    graph.extend = AppendOnes()
    for layer in graph.network.decoder:
        layer.attention = SampleThenProject(cast(DeformableAttention, layer.attention))


REWRITES: dict[str, Callable[[ExportGraph], None]] = {
    "fold_normalisation": fold_normalisation,
    "fold_batchnorm": fold_batchnorm,
    "sample_then_project": sample_then_project,
}
"""Name -> rewrite, in the order of application."""
