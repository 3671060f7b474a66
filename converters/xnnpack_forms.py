"""Normalisation layers in operations that XNNPACK computes: each form is exact and replaces a module of the graph.

XNNPACK has no LayerNorm and no GroupNorm. A native kernel for each would be faster by itself, but splits the graph in
two wherever it stands; docs/executorch.md has both times.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class LinearLayerNorm(nn.Module):
    """LayerNorm over the last axis; mean and variance are linear layers with one output."""

    average: Tensor
    eps: Tensor

    def __init__(self, norm: nn.LayerNorm) -> None:
        super().__init__()
        channels = norm.normalized_shape[-1]
        self.register_buffer("average", torch.full((1, channels), 1 / channels))
        self.register_buffer("eps", torch.full((1,), norm.eps))
        self.weight, self.bias = norm.weight, norm.bias

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) -> (..., C), mean 0 and variance 1 before weight and bias."""
        centred = x - F.linear(x, self.average)
        scale = F.linear(centred * centred, self.average, self.eps).rsqrt()  # (..., 1)
        return centred * scale * self.weight + self.bias


class PooledGroupNorm(nn.Module):
    """GroupNorm of a map; averages over pixels are global pooling, those over a group's channels a 1x1 convolution."""

    average: Tensor
    eps: Tensor
    scale: Tensor
    shift: Tensor

    def __init__(self, norm: nn.GroupNorm) -> None:
        super().__init__()
        size = norm.num_channels // norm.num_groups
        blocks = torch.block_diag(*[torch.full((size, size), 1 / size) for _ in range(norm.num_groups)])
        self.register_buffer("average", blocks[:, :, None, None])
        self.register_buffer("eps", torch.full((norm.num_channels,), norm.eps))
        self.register_buffer("scale", norm.weight.detach()[:, None, None].clone())
        self.register_buffer("shift", norm.bias.detach()[:, None, None].clone())

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape, mean 0 and variance 1 in each group before weight and bias."""
        centred = x - F.conv2d(x.mean((2, 3), keepdim=True), self.average)
        variance = (centred * centred).mean((2, 3), keepdim=True)  # (B, C, 1, 1)
        return centred * (F.conv2d(variance, self.average, self.eps).rsqrt() * self.scale) + self.shift


def delegable_norms(graph: nn.Module) -> None:
    """Give every LayerNorm over one axis and every GroupNorm of the graph, with weight and bias, its form here."""
    for module in list(graph.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.LayerNorm) and len(child.normalized_shape) == 1 and child.bias is not None:
                setattr(module, name, LinearLayerNorm(child))
            elif isinstance(child, nn.GroupNorm) and child.affine:
                setattr(module, name, PooledGroupNorm(child))
