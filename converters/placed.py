"""Samplers at pixel positions, for inference: the operator of `tfpose_edge.attention` as export graphs hold it.

A sampler's work falls in two: a *plan*, which depends on positions and logits only, and its use on values. So where
positions are constants the plan is one, too. Everything that depends on shapes is a buffer: engines that do not fold
constants find none to compute. No gradients: these are flat at whole pixels.

    x, y       (B, Q, H, L * P), array indices of their level: the centre of the first pixel is 0
    logits     (B, Q, H, L * P), before the softmax
    value      (B, S, H, D)
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tfpose_edge.attention.float_gather import MAX_ROWS

Shapes = tuple[tuple[int, int], ...]
Plan = tuple[Tensor, ...]


class PlacedSampler(nn.Module):
    """A plan and its use.

    Args:
        spatial_shapes: (height, width) of each level.
        n_heads: H.
        n_points: P, samples per head and level.
    """

    width: Tensor
    height: Tensor

    def __init__(self, spatial_shapes: Shapes, n_heads: int, n_points: int) -> None:
        super().__init__()
        self.spatial_shapes, self.n_heads, self.n_points = spatial_shapes, n_heads, n_points
        self.tokens = [height * width for height, width in spatial_shapes]
        for i, name in enumerate(("height", "width")):
            self.register_buffer(name, self.of_samples([float(shape[i]) for shape in spatial_shapes]))

    def of_samples(self, of_levels: Sequence[float]) -> Tensor:
        """A number of each level, repeated for its samples: (L * P)."""
        return torch.tensor(of_levels).repeat_interleave(self.n_points)

    def plan(self, x: Tensor, y: Tensor, logits: Tensor) -> Plan:
        """What to take from where, and how much of it."""
        raise NotImplementedError

    def inside(self, x: Tensor, y: Tensor, logits: Tensor, plan: Plan) -> Tensor:
        """Attention that falls inside the image, what the sampler makes of values of one: (B, Q, H) in 0..1."""
        inside = _within(x, self.width) * _within(y, self.height)
        return (inside * logits.softmax(-1)).sum(-1)

    def forward(self, value: Tensor, *plan: Tensor) -> Tensor:
        """Values (B, S, H, D) by a plan for Q queries -> (B, Q, H * D)."""
        raise NotImplementedError


class Gather(PlacedSampler):
    """The four corners of each sample in one look-up, one batched matmul.

    A pair of neighbouring pixels that lies inside the map, and tent weights, which are zero where a pixel of the pair
    is none of the sample's corners: so nothing is compared, and the four rows are one row and three constants.
    """

    counting = torch.int32
    """In which rows are computed."""
    first: Tensor
    right: Tensor
    down: Tensor
    rows_below: Tensor

    def __init__(self, spatial_shapes: Shapes, n_heads: int, n_points: int) -> None:
        super().__init__(spatial_shapes, n_heads, n_points)
        starts = [sum(self.tokens[:level]) for level in range(len(self.tokens))]
        first = self.of_samples(starts)[None] * n_heads + torch.arange(n_heads)[:, None]  # (H, L * P)
        constants = {
            "first": first,
            "rows_below": self.width * n_heads,
            "right": (self.width > 1) * n_heads,  # a map of one column has no pixel to the right
            "down": (self.height > 1) * self.width * n_heads,
        }
        for name, constant in constants.items():
            self.register_buffer(name, constant.to(self.counting))
        for axis, size in (("x", self.width), ("y", self.height)):
            self.register_buffer(f"last_{axis}", (size - 2).clamp(min=0))
            self.register_buffer(f"second_{axis}", None if size.min() > 1 else (size > 1).float())
        self.chunk: int | None = None

    def plan(self, x: Tensor, y: Tensor, logits: Tensor) -> Plan:
        """Rows (B * Q * H, 4 * L * P) int32 of value.reshape(B * S * H, D), and their weights."""
        attention = logits.softmax(-1)
        column, left, right = self._pair(x, "x")
        row, upper, lower = self._pair(y, "y")
        column, row = (column * self.n_heads).to(self.counting), row.to(self.counting) * self.rows_below
        corner = row + column + self._first(len(x))
        below = corner + self.down
        rows = torch.cat((corner, corner + self.right, below, below + self.right), dim=-1)
        upper, lower = upper * attention, lower * attention
        weights = torch.cat((upper * left, upper * right, lower * left, lower * right), dim=-1)
        shape = (-1, rows.shape[-1])
        return rows.reshape(shape), weights.reshape(shape)

    def inside(self, x: Tensor, y: Tensor, logits: Tensor, plan: Plan) -> Tensor:
        """As the base class says; the weights of the plan are zero outside."""
        return plan[1].sum(-1).reshape(x.shape[:3])

    def forward(self, value: Tensor, *plan: Tensor) -> Tensor:
        """As the base class says."""
        rows, weights = plan
        table = value.reshape(-1, value.shape[-1])
        chunk = self.chunk or len(rows)
        parts = zip(rows.split(chunk), weights.split(chunk), strict=True)
        sampled = [torch.bmm(weight[:, None], F.embedding(row, table)) for row, weight in parts]
        out = sampled[0] if len(sampled) == 1 else torch.cat(sampled)  # (B * Q * H, 1, D)
        return out.reshape(value.shape[0], -1, self.n_heads * value.shape[-1])

    def _pair(self, position: Tensor, axis: str) -> tuple[Tensor, Tensor, Tensor]:
        """First of two neighbouring pixels on that axis, a whole number inside the map, and the weights of both."""
        last, second = getattr(self, f"last_{axis}"), getattr(self, f"second_{axis}")
        first = torch.minimum(position.floor().relu(), last)
        distance = position - first
        near, far = (1 - distance.abs()).relu(), (1 - (distance - 1).abs()).relu()
        return first, near, far if second is None else far * second  # a map of one pixel has no second one

    def _first(self, batch: int) -> Tensor:
        """Row where a sample's level starts: (H, L * P), or (B, 1, H, L * P)."""
        if batch == 1:
            return self.first
        images = torch.arange(batch, dtype=self.counting) * (sum(self.tokens) * self.n_heads)
        return self.first + images[:, None, None, None]


class FloatGather(Gather):
    """The same with rows counted in floats and cast at the end, for engines whose delegate computes floats only."""

    counting = torch.float32  # type: ignore[assignment]

    def plan(self, x: Tensor, y: Tensor, logits: Tensor) -> Plan:
        """As the base class says; ValueError for values of more than 2 ** 24 rows, which fp32 cannot count."""
        rows_of_values = len(x) * sum(self.tokens) * self.n_heads
        if rows_of_values > MAX_ROWS:
            raise ValueError(f"float_gather counts up to {MAX_ROWS} rows, here are {rows_of_values}: use gather")
        rows, weights = super().plan(x, y, logits)
        return rows.to(torch.int32), weights


class Bag(Gather):
    """The same rows, weighted and summed inside one look-up."""

    def forward(self, value: Tensor, *plan: Tensor) -> Tensor:
        """As the base class says."""
        rows, weights = plan
        table = value.reshape(-1, value.shape[-1])
        out = F.embedding_bag(rows, table, mode="sum", per_sample_weights=weights)
        return out.reshape(value.shape[0], -1, self.n_heads * value.shape[-1])


class GridSample(PlacedSampler):
    """One `F.grid_sample` per level."""

    def plan(self, x: Tensor, y: Tensor, logits: Tensor) -> Plan:
        """Weights (B * H, 1, Q, L * P), and the grid (B * H, Q, P, 2) of each level."""
        x = x * (2 / self.width) + (1 / self.width - 1)
        y = y * (2 / self.height) + (1 / self.height - 1)
        shape = (-1, x.shape[1], self.n_points, 2)
        grids = [
            torch.stack(pair, dim=-1).transpose(1, 2).reshape(shape)
            for pair in zip(x.split(self.n_points, -1), y.split(self.n_points, -1), strict=True)
        ]
        weights = logits.softmax(-1).transpose(1, 2)
        return weights.reshape(-1, 1, *weights.shape[2:]), *grids

    def forward(self, value: Tensor, *plan: Tensor) -> Tensor:
        """As the base class says."""
        weights, *grids = plan
        batch, _, n_heads, head_dim = value.shape
        out = []
        levels = zip(value.split(self.tokens, dim=1), grids, weights.split(self.n_points, -1), strict=True)
        for (plane, grid, weight), (height, width) in zip(levels, self.spatial_shapes, strict=True):
            plane = plane.permute(0, 2, 3, 1).reshape(batch * n_heads, head_dim, height, width)
            sampled = F.grid_sample(plane, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
            out.append((sampled * weight).sum(-1))  # (B * H, D, Q)
        return functools.reduce(torch.add, out).reshape(batch, n_heads * head_dim, -1).transpose(1, 2)


class Tent(PlacedSampler):
    """Tent weights and matmuls."""

    pixels: Tensor

    def __init__(self, spatial_shapes: Shapes, n_heads: int, n_points: int) -> None:
        super().__init__(spatial_shapes, n_heads, n_points)
        self.register_buffer("pixels", torch.arange(max(max(shape) for shape in spatial_shapes)).float())

    def plan(self, x: Tensor, y: Tensor, logits: Tensor) -> Plan:
        """How much of each pixel: (B, H, Q, S_l) of each level."""
        maps = []
        parts = (x.split(self.n_points, -1), y.split(self.n_points, -1), logits.softmax(-1).split(self.n_points, -1))
        for (height, width), column, row, weight in zip(self.spatial_shapes, *parts, strict=True):
            vertical = self._tent(row, height) * weight[..., None]  # (B, Q, H, P, height)
            level = vertical.transpose(-1, -2) @ self._tent(column, width)  # (B, Q, H, height, width)
            maps.append(level.reshape(*level.shape[:3], height * width).transpose(1, 2))
        return tuple(maps)

    def forward(self, value: Tensor, *plan: Tensor) -> Tensor:
        """As the base class says."""
        levels = zip(plan, value.transpose(1, 2).split(self.tokens, dim=2), strict=True)
        out = functools.reduce(torch.add, (maps @ values for maps, values in levels))  # (B, H, Q, D)
        return out.transpose(1, 2).reshape(value.shape[0], -1, self.n_heads * value.shape[-1])

    def _tent(self, position: Tensor, size: int) -> Tensor:
        return (1 - (position[..., None] - self.pixels[:size]).abs()).relu()


PLACED: dict[str, type[PlacedSampler]] = {
    "grid_sample": GridSample,
    "gather": Gather,
    "float_gather": FloatGather,
    "bag": Bag,
    "tent": Tent,
}
"""Name of a sampler of `tfpose_edge.attention` -> the same operator at pixel positions."""


def _within(position: Tensor, size: Tensor) -> Tensor:
    """Sum of the bilinear weights that fall on 0..size - 1."""
    return torch.minimum(position + 1, size - position).clamp(0, 1)
