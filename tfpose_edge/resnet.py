"""ResNet-10/18/34/50/101 with torchvision's parameter names, so that its ImageNet weights load as they are.

ResNet-10 (one basic block a stage) and widths below 64 are ours. Strides sit on the 3x3 convolution of a bottleneck.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

BLOCKS_PER_STAGE = {
    "resnet10": (1, 1, 1, 1),
    "resnet18": (2, 2, 2, 2),
    "resnet34": (3, 4, 6, 3),
    "resnet50": (3, 4, 6, 3),
    "resnet101": (3, 4, 23, 3),
}
BOTTLENECKED = ("resnet50", "resnet101")


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    expansion = 1

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample = _shortcut(in_channels, channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) -> (B, channels, H / stride, W / stride)."""
        out = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(out)) + self.downsample(x))


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions and a shortcut; four times as many channels out."""

    expansion = 4

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(channels, 4 * channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * channels)
        self.downsample = _shortcut(in_channels, 4 * channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) -> (B, 4 * channels, H / stride, W / stride)."""
        out = torch.relu(self.bn1(self.conv1(x)))
        out = torch.relu(self.bn2(self.conv2(out)))
        return torch.relu(self.bn3(self.conv3(out)) + self.downsample(x))


class ResNet(nn.Module):
    """The backbone of section 3.1: C2..C5 at strides 4, 8, 16, 32.

    Args:
        name: a key of `BLOCKS_PER_STAGE`.
        width: channels of the stem; stage i has `width * 2 ** i` (times 4 for bottlenecks).
    """

    def __init__(self, name: str, width: int = 64) -> None:
        super().__init__()
        block = Bottleneck if name in BOTTLENECKED else BasicBlock
        self.conv1 = nn.Conv2d(3, width, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.channels: dict[int, int] = {}
        in_channels = width
        for stage, n_blocks in enumerate(BLOCKS_PER_STAGE[name]):
            channels = width << stage
            blocks = []
            for i in range(n_blocks):
                blocks.append(block(in_channels, channels, 2 if stage and i == 0 else 1))
                in_channels = channels * block.expansion
            setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))
            self.channels[stage + 2] = in_channels
        self.apply(_initialise)

    def up_to(self, level: int) -> list[nn.Module]:
        """What computes C2 to C_`level`."""
        return [self.conv1, self.bn1, *(cast(nn.Module, getattr(self, f"layer{i - 1}")) for i in range(2, level + 1))]

    def forward(self, x: Tensor) -> dict[int, Tensor]:
        """(B, 3, H, W) -> {2: C2, ..., 5: C5}, C_l being (B, channels[l], H / 2 ** l, W / 2 ** l)."""
        x = self.maxpool(torch.relu(self.bn1(self.conv1(x))))
        features = {}
        for level in range(2, 6):
            x = cast(nn.Module, getattr(self, f"layer{level - 1}"))(x)
            features[level] = x
        return features


def _shortcut(in_channels: int, channels: int, stride: int) -> nn.Module:
    if stride == 1 and in_channels == channels:
        return nn.Identity()
    return nn.Sequential(nn.Conv2d(in_channels, channels, 1, stride, bias=False), nn.BatchNorm2d(channels))


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    if isinstance(module, (BasicBlock, Bottleneck)):  # residual branches start near zero: deep stacks train sooner
        last = module.bn3 if isinstance(module, Bottleneck) else module.bn2
        nn.init.constant_(last.weight, 0.2)
