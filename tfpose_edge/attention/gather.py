"""Row gather: the four corners of all samples in one embedding look-up, then one batched matmul.

Written for engines, where each line is an operation over every sample: no comparison (slow or foreign to some), no
expanded operand (`@` would copy all rows in ExecuTorch), corners joined in runs and not interleaved. Indices are int32:
as floats they would lose pixels in fp16 beyond 2048. At whole pixels the gradients are the reference sampler's, too.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from tfpose_edge.attention.constants import constant
from tfpose_edge.attention.precision import in_full_precision

PIECE, MOST_PIECES = 2**20, 16
"""Numbers that are gathered at once, 4 MiB of fp32, so that caches still hold them when they are summed."""


def sample(
    value: Tensor,
    reference_points: Tensor,
    sampling_offsets: Tensor,
    attention_logits: Tensor,
    spatial_shapes: tuple[tuple[int, int], ...],
) -> Tensor:
    """Deformable sampling; the contract is that of `tfpose_edge.attention.samplers`."""
    rows, weights, table = corners(value, reference_points, sampling_offsets, attention_logits, spatial_shapes)
    n_pieces = max(1, min(MOST_PIECES, rows.numel() * value.shape[3] // PIECE))
    length = max(1, -(-len(rows) // n_pieces))
    pieces = zip(torch.split(rows, length), torch.split(weights, length), strict=True)
    sums = [
        in_full_precision(torch.bmm, weight[:, None], F.embedding(row, table)) for row, weight in pieces
    ]  # (..., 1, D)
    out = sums[0] if len(sums) == 1 else torch.cat(sums)
    return out.reshape(*sampling_offsets.shape[:2], value.shape[2] * value.shape[3]).to(value.dtype)


def corners(
    value: Tensor,
    reference_points: Tensor,
    sampling_offsets: Tensor,
    attention_logits: Tensor,
    spatial_shapes: tuple[tuple[int, int], ...],
) -> tuple[Tensor, Tensor, Tensor]:
    """What each head of each query adds up, for inputs as a sampler's: rows of a table, times weights.

    Returns:
        Rows (B * Q * H, 4 * L * P) int32, their weights of the same shape, and the table (B * S * H, D) that they count
        in; weights and table are fp32 (fp64 for fp64 values), or the gradients of half values would be summed in half.
    """
    n_heads, head_dim, samples = *value.shape[2:], sampling_offsets.shape[3]
    n_points = samples // len(spatial_shapes)
    repeated = [shape for shape in spatial_shapes for _ in range(n_points)]  # L * P
    dtype = torch.promote_types(value.dtype, torch.float32)
    height, width = (constant(size, dtype, value.device) for size in zip(*repeated, strict=True))
    reference, offsets = reference_points.to(dtype)[:, :, None, None], sampling_offsets.to(dtype)
    columns, in_x = _neighbours(reference[..., 0] * width - 0.5 + offsets[..., 0], width)
    rows, in_y = _neighbours(reference[..., 1] * height - 0.5 + offsets[..., 1], height)

    # pixel (column, row) of head h is row (start + row * width + column) * H + h of value.reshape(B * S * H, D)
    stride = constant([w * n_heads for _, w in repeated], torch.int32, value.device)
    first = _first_rows(value, spatial_shapes, n_points)
    top, bottom = (row.to(torch.int32) * stride + first for row in rows)
    left, right = ((column * n_heads).to(torch.int32) for column in columns)
    index = torch.cat((top + left, top + right, bottom + left, bottom + right), dim=-1)  # (B, Q, H, 4 * L * P)

    attention = attention_logits.to(dtype).softmax(-1)
    upper, lower = in_y[0] * attention, in_y[1] * attention
    weights = torch.cat((upper * in_x[0], upper * in_x[1], lower * in_x[0], lower * in_x[1]), dim=-1)
    shape = (-1, 4 * samples)
    return index.reshape(shape), weights.reshape(shape), value.to(dtype).reshape(-1, head_dim)


def _neighbours(position: Tensor, size: Tensor) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """The two pixels around each position on one axis, whole numbers in 0..size - 1, and their linear weights.

    A pixel outside is replaced by the nearest one inside, with weight 0. `position` (B, Q, H, L * P) in array indices,
    `size` (L * P); so are the four results.
    """
    position, last = position.clamp(min=-1), size - 1
    before = torch.minimum(position.floor(), last)  # -1..size - 1; past the end the distance exceeds 1
    distance = position - before
    first, second = before.relu(), torch.minimum(before + 1, last)
    exists = before - first + 1, second - before  # 1, or 0 at -1 and at size
    return (first, second), ((1 - distance).relu() * exists[0], distance * exists[1])


def _first_rows(value: Tensor, spatial_shapes: tuple[tuple[int, int], ...], n_points: int) -> Tensor:
    """Row of value.reshape(B * S * H, D) where a sample's level starts, int32: (H, L * P), or (B, 1, H, L * P)."""
    batch, tokens, n_heads, _ = value.shape
    starts = [sum(h * w for h, w in spatial_shapes[:level]) for level in range(len(spatial_shapes))]
    of_image = [[start * n_heads + head for start in starts for _ in range(n_points)] for head in range(n_heads)]
    first = constant(of_image, torch.int32, value.device)
    if batch == 1:  # engines need not add what is a constant
        return first
    images = torch.arange(batch, dtype=torch.int32, device=value.device) * (tokens * n_heads)
    return first + images[:, None, None, None]
