"""Row gather whose arithmetic is in floats: for engines that hand floats to a delegate and keep integers.

The look-up and the sum are those of `gather`; everything before them is elementwise on whole tensors, in operations
that XNNPACK takes (no comparison, no select, no broadcast copy), and one cast makes the indices. A sample's 2 x 2
window stays inside the image and its weights are tents around the pixels, so what falls outside weighs nothing.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from tfpose_edge.attention.constants import constant
from tfpose_edge.attention.precision import in_full_precision

MAX_ROWS = 2**24  # whole numbers that fp32 holds


def sample(
    value: Tensor,
    reference_points: Tensor,
    sampling_offsets: Tensor,
    attention_logits: Tensor,
    spatial_shapes: tuple[tuple[int, int], ...],
) -> Tensor:
    """Deformable sampling; the contract is that of `tfpose_edge.attention.samplers`.

    ValueError for values of more than 2 ** 24 rows B * S * H, whose indices fp32 cannot count.
    """
    batch, tokens, n_heads, head_dim = value.shape
    if batch * tokens * n_heads > MAX_ROWS:
        raise ValueError(f"float_gather counts rows in fp32, up to {MAX_ROWS}; these values have more: use gather")
    queries, samples = sampling_offsets.shape[1], sampling_offsets.shape[3]
    dtype = torch.promote_types(value.dtype, torch.float32)
    levels = _Levels(spatial_shapes, samples // len(spatial_shapes), n_heads, dtype, value.device)

    # (2, B * Q, H, L * P): x and y in one tensor, whose halves lie apart
    offsets = sampling_offsets.to(dtype).reshape(-1, 2).t().reshape(2, -1, n_heads, samples)
    reference = reference_points.to(dtype).reshape(-1, 2).t().reshape(2, -1, 1, 1)
    position = (reference * levels.sizes[:, None, None] - 0.5) + offsets
    first = torch.minimum(position.floor().relu(), levels.last_windows[:, None, None])
    distance = position - first
    x0, y0 = _halves((1.0 - distance.abs()).relu())
    x1, y1 = _halves((levels.has_second - (distance - 1.0).abs()).relu())
    column, row = _halves(first * levels.strides[:, None, None])  # (B * Q, H, L * P) each, as x0 ... y1

    corner = (column + row).reshape(batch, queries, n_heads, samples) + levels.first_rows(batch, tokens)
    right, down = levels.steps
    index = torch.cat((corner, corner + right, corner + down, corner + (right + down)), dim=-1)
    attention = attention_logits.to(dtype).softmax(-1).reshape(x0.shape)
    upper, lower = y0 * attention, y1 * attention
    weights = torch.cat((upper * x0, upper * x1, lower * x0, lower * x1), dim=-1)

    rows = F.embedding(index.reshape(-1, 4 * samples).to(torch.int32), value.to(dtype).reshape(-1, head_dim))
    out = in_full_precision(torch.bmm, weights.reshape(-1, 1, 4 * samples), rows)  # (B * Q * H, 1, D)
    return out.reshape(batch, queries, n_heads * head_dim).to(value.dtype)


class _Levels:
    """What samples need to know of their level, as floats: (2, L * P) with x first, where not said otherwise."""

    def __init__(
        self, shapes: tuple[tuple[int, int], ...], n_points: int, n_heads: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        repeated = [shape for shape in shapes for _ in range(n_points)]
        width, height = ([shape[axis] for shape in repeated] for axis in (1, 0))

        def table(*rows: list[int]) -> Tensor:
            return constant(rows, dtype, device)

        self.n_heads, self.shapes, self.n_points, self.table = n_heads, shapes, n_points, table
        self.sizes = table(width, height)
        self.last_windows = table([max(w - 2, 0) for w in width], [max(h - 2, 0) for h in height])
        self.strides = table([n_heads for _ in width], [n_heads * w for w in width])
        self.steps = table([n_heads * (w > 1) for w in width], [n_heads * w * (h > 1) for h, w in repeated])
        self.has_second: Tensor | float = 1.0
        if min(width + height) == 1:  # an image of one pixel has no second: its weight is relu(0 - |...|)
            self.has_second = table([int(w > 1) for w in width], [int(h > 1) for h in height])[:, None, None]

    def first_rows(self, batch: int, tokens: int) -> Tensor:
        """Row of value.reshape(B * S * H, D) where a head's level starts: (H, L * P), or (B, 1, H, L * P)."""
        starts = [sum(h * w for h, w in self.shapes[:level]) for level in range(len(self.shapes))]
        of_level = [start * self.n_heads for start in starts for _ in range(self.n_points)]
        first = self.table(*([start + head for start in of_level] for head in range(self.n_heads)))
        if batch == 1:
            return first
        images = self.table([image * tokens * self.n_heads for image in range(batch)])
        return first + images.reshape(batch, 1, 1, 1)


def _halves(pair: Tensor) -> tuple[Tensor, Tensor]:
    """The x and the y part of (2, ...), by slices."""
    x, y = (pair.narrow(0, axis, 1).reshape(pair.shape[1:]) for axis in range(2))
    return x, y
