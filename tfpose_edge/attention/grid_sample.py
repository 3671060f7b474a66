"""The reference sampler: one `F.grid_sample` per level."""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F
from torch import Tensor


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
    weights = weights.reshape(batch * n_heads, 1, queries, weights.shape[-1])
    sizes = [height * width for height, width in spatial_shapes]
    values = torch.split(value, sizes, dim=1)  # which sums one gradient, where slices would sum one each
    of_levels = []
    for level, (height, width) in enumerate(spatial_shapes):
        points = slice(level * n_points, (level + 1) * n_points)
        plane = values[level].permute(0, 2, 3, 1)  # (B, H, D, S_l)
        plane = plane.reshape(batch * n_heads, head_dim, height, width).to(dtype).contiguous()
        offset = offsets[:, :, :, points]  # (B, H, Q, P, 2)
        x = 2 * (reference[..., 0] + offset[..., 0] / width) - 1
        y = 2 * (reference[..., 1] + offset[..., 1] / height) - 1
        grid = torch.stack((x, y), dim=-1).reshape(batch * n_heads, queries, n_points, 2)
        sampled = F.grid_sample(plane, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
        of_levels.append((sampled * weights[..., points]).sum(-1))  # (B * H, D, Q)
    out = functools.reduce(torch.add, of_levels)  # and not one long row of samples, which engines would copy
    return out.reshape(batch, n_heads * head_dim, queries).transpose(1, 2).to(value.dtype)
