"""MobileNetV2 (Sandler et al., 2018) and EfficientNet-Lite0 (Liu, 2020), both chains of inverted residuals.

Both have torchvision's names of MobileNetV2. They end where pose networks need it: the last convolution, to 1280
channels for the classifier, is left out.
"""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from tfpose_edge.attention.precision import in_full_precision

_LITE0 = ((1, 16, 1, 1, 3), (6, 24, 2, 2, 3), (6, 40, 2, 2, 5), (6, 80, 3, 2, 3), (6, 112, 3, 1, 5), (6, 192, 4, 2, 5))
STAGES = {
    "mobilenetv2": (
        (1, 16, 1, 1, 3), (6, 24, 2, 2, 3), (6, 32, 3, 2, 3), (6, 64, 4, 2, 3), (6, 96, 3, 1, 3), (6, 160, 3, 2, 3),
        (6, 320, 1, 1, 3),
    ),
    "efficientnet_lite0": _LITE0,
    "efficientnet_lite0_short": (*_LITE0[:-1], (6, 192, 2, 2, 5)),
}  # fmt: skip
"""Expansion, channels at the full width, number of blocks, stride of the first, kernel: table 2 of MobileNetV2's paper,
table 1 of EfficientNet's (Tan and Le, 2019) without squeeze and excitation and with ReLU6; the short one lacks its last
two blocks, a third of its parameters."""
STEM = 32
"""Channels of the stem at the full width."""
LEVELS = {1: 2, 2: 3, 4: 4}
"""Stage whose output is C2, C3, C4; the last one's is C5."""
EPSILON = {"mobilenetv2": 1e-5, "efficientnet_lite0": 1e-3, "efficientnet_lite0_short": 1e-3}
"""What BatchNorm adds to variances: what the published weights were trained with."""


class FullPrecisionDepthwise(nn.Conv2d):
    """In fp32 also under autocast: on CPUs torch's bf16 gradients of strides and of 5x5 take 6 to 100 times as long."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) -> (B, channels, H / stride, W / stride) of the same type."""
        return in_full_precision(super().forward, x).to(x.dtype)


class ConvBNReLU(nn.Sequential):
    """Convolution without bias, BatchNorm, ReLU6."""

    def __init__(self, in_channels: int, channels: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> None:
        convolution = FullPrecisionDepthwise if groups > 1 and (stride > 1 or kernel > 3) else nn.Conv2d
        super().__init__(
            convolution(in_channels, channels, kernel, stride, kernel // 2, groups=groups, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU6(inplace=True),
        )


class InvertedResidual(nn.Module):
    """1x1 up, kernel x kernel on each channel, 1x1 down without a ReLU, and a shortcut where sizes allow."""

    def __init__(self, in_channels: int, channels: int, stride: int, expansion: int, kernel: int = 3) -> None:
        super().__init__()
        hidden = in_channels * expansion
        self.has_shortcut = stride == 1 and in_channels == channels
        up = [ConvBNReLU(in_channels, hidden, kernel=1)] if expansion > 1 else []
        self.conv = nn.Sequential(
            *up,
            ConvBNReLU(hidden, hidden, kernel, stride, groups=hidden),
            nn.Conv2d(hidden, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) -> (B, channels, H / stride, W / stride)."""
        out: Tensor = self.conv(x)
        return x + out if self.has_shortcut else out


class MobileNet(nn.Module):
    """C2..C5 at strides 4, 8, 16, 32, as `ResNet` gives them.

    Args:
        name: a key of `STAGES`.
        width: channels of the stem, 32 at the full width; all others follow in proportion, in multiples of 8.
    """

    def __init__(self, name: str = "mobilenetv2", width: int = STEM) -> None:
        super().__init__()
        layers: list[nn.Module] = [ConvBNReLU(3, width, stride=2)]
        self.channels: dict[int, int] = {}
        self.levels: dict[int, int] = {}
        in_channels = width
        for stage, (expansion, full, n_blocks, first_stride, kernel) in enumerate(STAGES[name]):
            channels = multiple_of_8(full * width / STEM)
            for i in range(n_blocks):
                layers.append(InvertedResidual(in_channels, channels, 1 if i else first_stride, expansion, kernel))
                in_channels = channels
            level = LEVELS.get(stage, 5 if stage == len(STAGES[name]) - 1 else 0)
            if level:
                self.channels[level] = channels
                self.levels[len(layers) - 1] = level
        self.features = nn.ModuleList(layers)
        self.apply(lambda module: _initialise(module, EPSILON[name]))

    @property
    def conv1(self) -> nn.Conv2d:
        """The first convolution, under ResNet's name for it."""
        return cast(nn.Conv2d, cast(nn.Sequential, self.features[0])[0])

    def up_to(self, level: int) -> list[nn.Module]:
        """What computes C2 to C_`level`."""
        last = next(index for index, given in self.levels.items() if given == level)
        return list(self.features[: last + 1])

    def forward(self, x: Tensor) -> dict[int, Tensor]:
        """(B, 3, H, W) -> {2: C2, ..., 5: C5}, C_l being (B, channels[l], H / 2 ** l, W / 2 ** l)."""
        features = {}
        for index, layer in enumerate(self.features):
            x = layer(x)
            if index in self.levels:
                features[self.levels[index]] = x
        return features


def multiple_of_8(channels: float) -> int:
    """The multiple of 8 closest to `channels`, at least 8, and never below 90 % of them."""
    closest = max(8, int(channels + 4) // 8 * 8)
    return closest + 8 if closest < 0.9 * channels else closest


def _initialise(module: nn.Module, epsilon: float) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out")
    elif isinstance(module, nn.BatchNorm2d):
        module.eps = epsilon
