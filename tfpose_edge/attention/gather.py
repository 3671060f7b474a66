"""Row gather: the four corners of all samples in one embedding look-up, then one batched matmul.

Indices are int32: as floats they would lose pixels in fp16 beyond 2048.
"""

from __future__ import annotations

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
    batch, tokens, n_heads, head_dim = value.shape
    queries = sampling_offsets.shape[1]
    n_points = sampling_offsets.shape[3] // len(spatial_shapes)
    dtype = torch.promote_types(value.dtype, torch.float32)
    offsets = sampling_offsets.to(dtype)
    reference = reference_points.to(dtype)[:, :, None, None]  # (B, Q, 1, 1, 2)
    pixels, bilinear, start = [], [], 0
    for level, (height, width) in enumerate(spatial_shapes):
        offset = offsets[:, :, :, level * n_points : (level + 1) * n_points]  # (B, Q, H, P, 2)
        x = reference[..., 0] * width + offset[..., 0] - 0.5  # (B, Q, H, P)
        y = reference[..., 1] * height + offset[..., 1] - 0.5
        pixel, weight = _corners(x, y, height, width)
        pixels.append(pixel + start)
        bilinear.append(weight)
        start += height * width
    weights = torch.cat(bilinear, dim=3) * attention_logits.to(dtype).softmax(-1)[..., None]  # (B, Q, H, L * P, 4)
    index = torch.cat(pixels, dim=3) * n_heads + _row_offset(batch, tokens, n_heads, value.device)
    rows = F.embedding(index.reshape(-1, index.shape[3] * 4), value.reshape(batch * tokens * n_heads, head_dim))
    out = weights.reshape(-1, 1, rows.shape[1]) @ rows.to(dtype)  # (B * Q * H, 1, D)
    return out.reshape(batch, queries, n_heads * head_dim).to(value.dtype)


def _corners(x: Tensor, y: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Pixel index within the level, int32, and bilinear weight of each corner; both (..., 4), weight 0 outside."""
    x = x.clamp(-2.0, width + 1.0)  # farther out is outside all the same, and int32 cannot overflow
    y = y.clamp(-2.0, height + 1.0)
    left, top = x.floor(), y.floor()
    columns = torch.stack((left, left + 1, left, left + 1), dim=-1)
    rows = torch.stack((top, top, top + 1, top + 1), dim=-1)
    weight = (1 - (x[..., None] - columns).abs()) * (1 - (y[..., None] - rows).abs())
    column, row = columns.clamp(0, width - 1), rows.clamp(0, height - 1)
    weight = weight * (column == columns) * (row == rows)
    return row.to(torch.int32) * width + column.to(torch.int32), weight


def _row_offset(batch: int, tokens: int, n_heads: int, device: torch.device) -> Tensor:
    """Where head h of image b starts in value.reshape(B * S * H, D): (B, 1, H, 1, 1) int32."""
    image = torch.arange(batch, dtype=torch.int32, device=device)[:, None] * (tokens * n_heads)
    head = torch.arange(n_heads, dtype=torch.int32, device=device)
    return (image + head)[:, None, :, None, None]
