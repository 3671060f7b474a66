"""Multi-scale deformable attention: projections around a sampler (Deformable DETR, equation 3)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from tfpose_edge.attention.precision import in_full_precision
from tfpose_edge.attention.samplers import Sampler


class DeformableAttention(nn.Module):
    """Each query looks at `n_points` places a head and level, at learned offsets from its reference point.

    Args:
        d_model: channels C of queries and memory.
        n_heads: H; each head has D = C / H channels.
        n_levels: L, levels of the memory.
        n_points: P, samples per head and level.
        sampler: the operator of `tfpose_edge.attention.samplers`; not a part of the state.
    """

    def __init__(self, d_model: int, n_heads: int, n_levels: int, n_points: int, sampler: Sampler) -> None:
        super().__init__()
        self.n_heads, self.n_levels, self.n_points = n_heads, n_levels, n_points
        self.sampler = sampler
        self.value_proj = nn.Linear(d_model, d_model)
        self.sampling_offsets = nn.Linear(d_model, n_heads * n_levels * n_points * 2)
        self.attention_weights = nn.Linear(d_model, n_heads * n_levels * n_points)
        self.output_proj = nn.Linear(d_model, d_model)
        self._initialise()

    def forward(
        self,
        query: Tensor,
        reference_points: Tensor,
        memory: Tensor,
        spatial_shapes: tuple[tuple[int, int], ...],
    ) -> Tensor:
        """query (B, Q, C), reference_points (B, Q, 2) as fractions of the crop, memory (B, S, C) -> (B, Q, C)."""
        value = self.value_proj(memory).reshape(memory.shape[0], memory.shape[1], self.n_heads, -1)  # (B, S, H, D)
        sampled = self.sampler(value, reference_points, *self.offsets_and_logits(query), spatial_shapes)
        return self.output_proj(sampled)  # type: ignore[no-any-return]

    def offsets_and_logits(self, query: Tensor) -> tuple[Tensor, Tensor]:
        """Where each query (B, Q, C) looks: offsets (B, Q, H, L * P, 2) in px, in fp32, and logits (B, Q, H, L * P)."""
        shape = (query.shape[0], query.shape[1], self.n_heads, self.n_levels * self.n_points)
        offsets = in_full_precision(self.sampling_offsets, query).reshape(*shape, 2)
        return offsets, self.attention_weights(query).reshape(shape)

    def _initialise(self) -> None:
        """Head h starts by looking in direction h, its point p at p + 1 pixels (Deformable DETR, appendix)."""
        angle = torch.arange(self.n_heads) * (2 * math.pi / self.n_heads)
        direction = torch.stack((angle.cos(), angle.sin()), dim=-1)
        direction = direction / direction.abs().amax(-1, keepdim=True)  # (H, 2)
        distance = torch.arange(1, self.n_points + 1, dtype=direction.dtype)
        offsets = direction[:, None, None] * distance[:, None]  # (H, 1, P, 2)
        nn.init.zeros_(self.sampling_offsets.weight)
        with torch.no_grad():
            self.sampling_offsets.bias.copy_(offsets.expand(-1, self.n_levels, -1, -1).flatten())
        nn.init.zeros_(self.attention_weights.weight)
        nn.init.zeros_(self.attention_weights.bias)
        for projection in (self.value_proj, self.output_proj):
            nn.init.xavier_uniform_(projection.weight)
            nn.init.zeros_(projection.bias)
