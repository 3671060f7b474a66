"""Tent weights: bilinear sampling as matrix products, without gather, floor or bounds.

A sample at (x, y) takes pixel (i, j) with relu(1 - |x - i|) * relu(1 - |y - j|); summed over points this is one
(height, width) map per query and head, multiplied by the values. Pixels outside do not exist, so padding is free.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tfpose_edge.attention.precision import in_full_precision


def sample(
    value: Tensor,
    reference_points: Tensor,
    sampling_offsets: Tensor,
    attention_logits: Tensor,
    spatial_shapes: tuple[tuple[int, int], ...],
) -> Tensor:
    """Deformable sampling; the contract is that of `tfpose_edge.attention.samplers`."""
    batch, _, n_heads, head_dim = value.shape
    queries = sampling_offsets.shape[1]
    n_points = sampling_offsets.shape[3] // len(spatial_shapes)
    dtype = torch.promote_types(value.dtype, torch.float32)
    offsets = sampling_offsets.to(dtype).transpose(1, 2)  # (B, H, Q, L * P, 2)
    reference = reference_points.to(dtype)[:, None, :, None]  # (B, 1, Q, 1, 2)
    weights = attention_logits.to(dtype).softmax(-1).transpose(1, 2)  # (B, H, Q, L * P)
    values = value.to(dtype).transpose(1, 2)  # (B, H, S, D)
    out, start = torch.zeros((), dtype=dtype, device=value.device), 0
    for level, (height, width) in enumerate(spatial_shapes):
        points = slice(level * n_points, (level + 1) * n_points)
        x = reference[..., 0] * width + offsets[:, :, :, points, 0] - 0.5  # (B, H, Q, P)
        y = reference[..., 1] * height + offsets[:, :, :, points, 1] - 0.5
        vertical = _tent(y, height) * weights[:, :, :, points, None]  # (B, H, Q, P, height)
        maps = in_full_precision(torch.matmul, vertical.transpose(-1, -2), _tent(x, width))  # (B, H, Q, height, width)
        maps = maps.reshape(batch, n_heads, queries, height * width)
        of_level = values[:, :, start : start + height * width]
        out = out + in_full_precision(torch.matmul, maps, of_level)  # (B, H, Q, D)
        start += height * width
    return out.transpose(1, 2).reshape(batch, queries, n_heads * head_dim).to(value.dtype)


def _tent(position: Tensor, size: int) -> Tensor:
    """relu(1 - |position - i|) for the pixels i = 0..size - 1: (...) -> (..., size)."""
    pixels = torch.arange(size, dtype=position.dtype, device=position.device)
    return (1 - (position[..., None] - pixels).abs()).relu()
