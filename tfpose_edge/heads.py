"""What the network says about its tokens: key points, scores and, in training, heat maps.

Deviation from the paper: it gives no score. Ours is a linear layer on the last queries whose gradient stops there, so
the coordinates stay the paper's.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tfpose_edge.attention.precision import in_full_precision


class KeypointHead(nn.Module):
    """Three-layer perceptron C-C-2: the refinement delta of one decoder layer (eq. 4); starts at zero."""

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(d_model, d_model), nn.ReLU(), nn.Linear(d_model, d_model), nn.ReLU(), nn.Linear(d_model, 2)
        )
        nn.init.zeros_(self.layers[-1].weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.layers[-1].bias)  # type: ignore[arg-type]

    def forward(self, query: Tensor) -> Tensor:
        """query (B, K, C) -> delta (B, K, 2), added to the logits of the key points."""
        return in_full_precision(self.layers, query)


class ScoreHead(nn.Module):
    """Expected quality of each key point, the sigmoid of a linear layer; learns without moving the network."""

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.linear = nn.Linear(d_model, 1)

    def forward(self, query: Tensor) -> Tensor:
        """query (B, K, C) -> scores (B, K) in [0, 1]."""
        return torch.sigmoid(self.linear(query.detach()).squeeze(-1))


class HeatmapHead(nn.Module):
    """C5's part of the memory back to a map, three deconvolutions, K heat maps at stride 4 (section 3.3)."""

    def __init__(self, d_model: int, channels: int, num_keypoints: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for i in range(3):
            layers += [
                nn.ConvTranspose2d(channels if i else d_model, channels, 4, 2, 1, bias=False),
                nn.BatchNorm2d(channels),
                nn.ReLU(),
            ]
        self.deconvolutions = nn.Sequential(*layers)
        self.out = nn.Conv2d(channels, num_keypoints, 1)
        for module in self.modules():
            if isinstance(module, nn.ConvTranspose2d | nn.Conv2d):
                nn.init.normal_(module.weight, std=1e-3)  # targets are nearly zero everywhere, so start there
        nn.init.zeros_(self.out.bias)  # type: ignore[arg-type]

    def forward(self, memory: Tensor, spatial_shape: tuple[int, int]) -> Tensor:
        """memory (B, S, C) whose last level has `spatial_shape` (h, w) -> heat maps (B, K, 8 h, 8 w)."""
        height, width = spatial_shape
        coarse = memory[:, -height * width :].transpose(1, 2)  # (B, C, h * w)
        coarse = coarse.reshape(coarse.shape[0], coarse.shape[1], height, width)
        return self.out(self.deconvolutions(coarse))  # type: ignore[no-any-return]
