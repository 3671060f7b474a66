"""Where each token of the memory lies: sine embeddings and reference points (paper, section 3.2)."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def sine_embedding(height: int, width: int, d_model: int) -> Tensor:
    """2-D sine embedding (height * width, d_model) of one level, row-major; first half y, second half x.

    Pixel centres, normalised to (0, 2 pi), temperature 10000, as in DETR; sines and cosines interleaved.
    """
    half = d_model // 2
    frequency = 10000 ** (2 * (torch.arange(half) // 2) / half)
    y = (torch.arange(height) + 0.5) / height * 2 * math.pi
    x = (torch.arange(width) + 0.5) / width * 2 * math.pi
    y_phase, x_phase = y[:, None] / frequency, x[:, None] / frequency  # (height, half), (width, half)
    embedded = [torch.stack((p[:, 0::2].sin(), p[:, 1::2].cos()), dim=2).flatten(1) for p in (y_phase, x_phase)]
    grid = torch.cat(
        (embedded[0][:, None].expand(height, width, half), embedded[1][None].expand(height, width, half)), dim=2
    )
    return grid.reshape(height * width, d_model)


def pixel_centres(spatial_shapes: tuple[tuple[int, int], ...]) -> Tensor:
    """Centres (S, 2) of all memory pixels, (x, y) in fractions of the crop, levels in order, each row-major."""
    centres = []
    for height, width in spatial_shapes:
        y, x = torch.meshgrid((torch.arange(height) + 0.5) / height, (torch.arange(width) + 0.5) / width, indexing="ij")
        centres.append(torch.stack((x, y), dim=-1).reshape(-1, 2))
    return torch.cat(centres)
