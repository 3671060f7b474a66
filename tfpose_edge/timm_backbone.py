"""Any network of the package timm as a backbone, by its name there: `timm:mobilenetv4_conv_small`. Optional."""

from __future__ import annotations

import importlib
from typing import cast

from torch import Tensor, nn

PREFIX = "timm:"
LEVELS = {4: 2, 8: 3, 16: 4, 32: 5}
"""Stride of a feature map -> level."""


class TimmBackbone(nn.Module):
    """C2..C5 at strides 4, 8, 16, 32, as `ResNet` gives them; weights are random until some are loaded.

    Args:
        name: of the model in timm; it must give feature maps of all four strides.
    Raises:
        ValueError: timm cannot be imported, does not know the model, or the model has no such maps.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self.body = _create(name)
        strides, channels = self.body.feature_info.reduction(), self.body.feature_info.channels()  # type: ignore[union-attr, operator]
        self.levels = [LEVELS.get(stride) for stride in strides]
        self.channels = {level: count for level, count in zip(self.levels, channels, strict=True) if level is not None}
        if sorted(self.channels) != sorted(LEVELS.values()):
            raise ValueError(f"backbone {PREFIX}{name} has feature maps of strides {strides}, not 4, 8, 16, 32")

    @property
    def conv1(self) -> nn.Conv2d:
        """The first convolution, under ResNet's name for it."""
        return next(module for module in self.body.modules() if isinstance(module, nn.Conv2d))

    def up_to(self, level: int) -> list[nn.Module]:
        """What computes C2 to C_`level`: unknown for less than the whole network. ValueError then."""
        if level < max(self.channels):
            raise ValueError(
                f"which layers of a model of timm compute C2 to C{level} is unknown; all of them do C2 to C5"
            )
        return [self.body]

    def forward(self, x: Tensor) -> dict[int, Tensor]:
        """(B, 3, H, W) -> {2: C2, ..., 5: C5}, C_l being (B, channels[l], H / 2 ** l, W / 2 ** l)."""
        maps = cast(list[Tensor], self.body(x))
        return {level: one for level, one in zip(self.levels, maps, strict=True) if level is not None}


def _create(name: str) -> nn.Module:
    """timm's model without its classifier."""
    try:
        timm = importlib.import_module("timm")
    except (ImportError, RuntimeError) as error:  # RuntimeError: a torchvision that was built for another torch
        raise ValueError(
            f"backbone {PREFIX}{name} needs the packages timm and torchvision, the latter built for this torch: {error}"
        ) from error
    try:
        body: nn.Module = timm.create_model(name, pretrained=False, features_only=True)
    except (RuntimeError, AttributeError, TypeError) as error:  # unknown, or without feature maps
        raise ValueError(f"backbone {PREFIX}{name}: timm makes no feature maps of it: {error}") from error
    return body
