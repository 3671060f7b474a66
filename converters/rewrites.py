"""Exact rewrites of an export graph: each a function that changes the graph in place, each on its own.

Exact: in fp32 the key points stay within 1e-4 of the crop. New ones are a function and a line in `REWRITES`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from tfpose_edge.attention import DeformableAttention, SampleThenProject

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
    """Let each decoder layer project its few samples and not the whole memory.

    A channel of ones in the memory could count what falls inside the image, too; the layer's own formula is faster.
    """
    for layer in graph.network.decoder:
        plain = cast(DeformableAttention, layer.attention)
        sizes = (plain.value_proj.in_features, plain.n_heads, plain.n_levels, plain.n_points)
        with torch.device("meta"):  # the parameters are the plain layer's
            layer.attention = SampleThenProject(*sizes, plain.sampler)
        for name, part in plain.named_children():
            layer.attention.add_module(name, part)


REWRITES: dict[str, Callable[[ExportGraph], None]] = {
    "fold_normalisation": fold_normalisation,
    "fold_batchnorm": fold_batchnorm,
    "sample_then_project": sample_then_project,
}
"""Name -> rewrite, in the order of application."""
