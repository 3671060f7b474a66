"""Weighted bags: the rows of `gather`, summed inside one look-up, so that no gathered row is ever written.

For what has such an operation: PyTorch and OpenVINO (EmbeddingBagPackedSum). ONNX and ExecuTorch have none.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from tfpose_edge.attention.gather import corners


def sample(
    value: Tensor,
    reference_points: Tensor,
    sampling_offsets: Tensor,
    attention_logits: Tensor,
    spatial_shapes: tuple[tuple[int, int], ...],
) -> Tensor:
    """Deformable sampling; the contract is that of `tfpose_edge.attention.samplers`."""
    rows, weights, table = corners(value, reference_points, sampling_offsets, attention_logits, spatial_shapes)
    out = F.embedding_bag(rows, table, mode="sum", per_sample_weights=weights)  # (B * Q * H, D)
    return out.reshape(*sampling_offsets.shape[:2], value.shape[2] * value.shape[3]).to(value.dtype)
