"""Rewrites of the backbone: its input and its norms."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

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
    """Divide the first convolution's weights by the standard deviation; the mean stays, for the sake of the padding.

    Not of a stem of timm's that standardises its weights itself: that would undo it.
    """
    network = graph.network
    if type(network.backbone.conv1).forward is not nn.Conv2d.forward:
        return
    network.backbone.conv1.weight.data /= network.std.reshape(1, 3, 1, 1)
    graph.normalise = Subtract(network.mean.clone())


def fold_batchnorm(graph: ExportGraph) -> None:
    """Move every BatchNorm of the backbone into the convolution before it; not timm's, some of which hold more."""
    for module in list(graph.network.backbone.modules()):
        previous = ""
        for name, child in list(module.named_children()):
            if type(child) is nn.BatchNorm2d and isinstance(getattr(module, previous, None), nn.Conv2d):
                setattr(module, previous, fuse_conv_bn_eval(getattr(module, previous), child))
                setattr(module, name, nn.Identity())
            previous = name
