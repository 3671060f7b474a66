"""MobileNetV2 (Sandler et al., 2018) with torchvision's parameter names, so that its ImageNet weights load as they are.

It ends where pose networks need it: torchvision's last convolution, to 1280 channels for its classifier, is left out.
"""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from tfpose_edge.attention.module import in_full_precision

BLOCKS = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
"""Expansion, channels, number of blocks, stride of the first (table 2 of its paper), at the full width."""
STEM = 32
"""Channels of the stem at the full width."""
LEVELS = {3: 2, 6: 3, 13: 4, 17: 5}
"""Entry of `features` whose output is C2, C3, C4, C5."""


class StridedDepthwise(nn.Conv2d):
    """In fp32 also under autocast: on CPUs torch's bf16 gradient of it takes twenty times as long."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) -> (B, channels, H / stride, W / stride) of the same type."""
        return in_full_precision(super().forward, x).to(x.dtype)


class ConvBNReLU(nn.Sequential):
    """Convolution without bias, BatchNorm, ReLU6."""

    def __init__(self, in_channels: int, channels: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> None:
        convolution = StridedDepthwise if groups > 1 and stride > 1 else nn.Conv2d
        super().__init__(
            convolution(in_channels, channels, kernel, stride, kernel // 2, groups=groups, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU6(inplace=True),
        )


class InvertedResidual(nn.Module):
    """1x1 up, 3x3 on each channel, 1x1 down without a ReLU, and a shortcut where sizes allow."""

    def __init__(self, in_channels: int, channels: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = in_channels * expansion
        self.has_shortcut = stride == 1 and in_channels == channels
        up = [ConvBNReLU(in_channels, hidden, kernel=1)] if expansion > 1 else []
        self.conv = nn.Sequential(
            *up,
            ConvBNReLU(hidden, hidden, stride=stride, groups=hidden),
            nn.Conv2d(hidden, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) -> (B, channels, H / stride, W / stride)."""
        out: Tensor = self.conv(x)
        return x + out if self.has_shortcut else out


class MobileNetV2(nn.Module):
    """C2..C5 at strides 4, 8, 16, 32, as `ResNet` gives them.

    Args:
        width: channels of the stem, 32 at the full width; all others follow in proportion, in multiples of 8.
    """

    def __init__(self, width: int = STEM) -> None:
        super().__init__()
        layers: list[nn.Module] = [ConvBNReLU(3, width, stride=2)]
        self.channels: dict[int, int] = {}
        in_channels = width
        for expansion, full, n_blocks, first_stride in BLOCKS:
            channels = multiple_of_8(full * width / STEM)
            for i in range(n_blocks):
                layers.append(InvertedResidual(in_channels, channels, 1 if i else first_stride, expansion))
                in_channels = channels
                if len(layers) - 1 in LEVELS:
                    self.channels[LEVELS[len(layers) - 1]] = channels
        self.features = nn.ModuleList(layers)
        self.apply(_initialise)

    @property
    def conv1(self) -> nn.Conv2d:
        """The first convolution, under ResNet's name for it."""
        return cast(nn.Conv2d, cast(nn.Sequential, self.features[0])[0])

    def forward(self, x: Tensor) -> dict[int, Tensor]:
        """(B, 3, H, W) -> {2: C2, ..., 5: C5}, C_l being (B, channels[l], H / 2 ** l, W / 2 ** l)."""
        features = {}
        for index, layer in enumerate(self.features):
            x = layer(x)
            if index in LEVELS:
                features[LEVELS[index]] = x
        return features


def multiple_of_8(channels: float) -> int:
    """The multiple of 8 closest to `channels`, at least 8, and never below 90 % of them."""
    closest = max(8, int(channels + 4) // 8 * 8)
    return closest + 8 if closest < 0.9 * channels else closest


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out")
