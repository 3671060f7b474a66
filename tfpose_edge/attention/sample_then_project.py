"""Deformable attention for few queries: the samples are projected, not the whole memory."""

from __future__ import annotations

import torch
from torch import Tensor

from tfpose_edge.attention.constants import constant
from tfpose_edge.attention.module import DeformableAttention


class SampleThenProject(DeformableAttention):
    """`DeformableAttention` in another order: same parameters, same result, same gradients.

    Sampling is linear, so `sample(W m + b)` is `W sample(m) + b inside`, where `inside` is the share of the attention
    that falls inside the image: samples outside are zero and get no bias. Cheaper where Q * H is far below S.
    """

    def forward(
        self,
        query: Tensor,
        reference_points: Tensor,
        memory: Tensor,
        spatial_shapes: tuple[tuple[int, int], ...],
    ) -> Tensor:
        """query (B, Q, C), reference_points (B, Q, 2) as fractions of the crop, memory (B, S, C) -> (B, Q, C)."""
        offsets, logits = self.offsets_and_logits(query)
        sampled = self.sample_memory(memory, reference_points, offsets, logits, spatial_shapes)  # (H, B * Q, C)
        weight = self.value_proj.weight.reshape(self.n_heads, -1, self.value_proj.in_features)  # (H, D, C)
        projected = (sampled @ weight.transpose(1, 2)).transpose(0, 1)  # (B * Q, H, D)
        inside = share_inside(reference_points, offsets, logits, spatial_shapes)  # (B, Q, H)
        bias = inside.reshape(-1, self.n_heads, 1) * self.value_proj.bias.reshape(self.n_heads, -1)
        return self.output_proj((projected + bias).to(projected.dtype).reshape(query.shape))  # type: ignore[no-any-return]

    def sample_memory(
        self,
        memory: Tensor,
        reference_points: Tensor,
        offsets: Tensor,
        logits: Tensor,
        spatial_shapes: tuple[tuple[int, int], ...],
    ) -> Tensor:
        """What each head sees of memory (B, S, C), in all its channels: (H, B * Q, C)."""
        # every head of every query becomes a query of its own, with the whole memory as its only head
        references = reference_points[:, :, None].expand(-1, -1, self.n_heads, -1).flatten(1, 2)  # (B, Q * H, 2)
        offsets, logits = offsets.flatten(1, 2)[:, :, None], logits.flatten(1, 2)[:, :, None]
        sampled = self.sampler(memory[:, :, None], references, offsets, logits, spatial_shapes)  # (B, Q * H, C)
        return sampled.reshape(-1, self.n_heads, memory.shape[2]).transpose(0, 1)


def share_inside(
    reference_points: Tensor,
    sampling_offsets: Tensor,
    attention_logits: Tensor,
    spatial_shapes: tuple[tuple[int, int], ...],
) -> Tensor:
    """Attention that falls inside the image, what a sampler makes of a memory of ones: (B, Q, H) in 0..1.

    Inputs as a sampler's, on which a map of width W puts bilinear weights that sum to 1 for x in 0..W - 1 (array
    index) and fall to 0 at -1 and W. Computed in fp32 (fp64 for fp64 offsets).
    """
    dtype = torch.promote_types(sampling_offsets.dtype, torch.float32)
    n_points = sampling_offsets.shape[3] // len(spatial_shapes)
    sizes = [(width, height) for height, width in spatial_shapes for _ in range(n_points)]
    sizes_wh = constant(sizes, dtype, sampling_offsets.device)  # (L * P, 2)
    reference = reference_points.to(dtype)[:, :, None, None]  # (B, Q, 1, 1, 2)
    position = reference * sizes_wh + sampling_offsets.to(dtype) - 0.5  # (B, Q, H, L * P, 2)
    # min(x + 1, W - x) within 0..1, but with the reference sampler's gradients in the corners, at -1, 0, W - 1 and W
    sides = (sizes_wh - position).relu().clamp(max=1) - (-position).relu().clamp(max=1)
    return (sides[..., 0] * sides[..., 1] * attention_logits.to(dtype).softmax(-1)).sum(-1)
