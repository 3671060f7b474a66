"""The table of samplers: implementations of one operator, chosen by name.

    sample(value, reference_points, sampling_offsets, attention_logits, spatial_shapes) -> (B, Q, H * D)

value             (B, S, H, D); S runs through the levels in order, each row-major
reference_points  (B, Q, 2), (x, y) in fractions of the crop; inside is 0..1, never clamped
sampling_offsets  (B, Q, H, L * P, 2), in pixels of their level; index l * P + p
attention_logits  (B, Q, H, L * P), before the softmax over L * P
spatial_shapes    ((height, width), ...), Python ints

A sample lies at x_pixel = reference_x * width_l + offset_x - 0.5 (array index); bilinear, zeros outside. Coordinates
are computed in fp32 (fp64 for fp64 values); the result has value's dtype. Source: Deformable DETR, equation 3.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable

from torch import Tensor

Sampler = Callable[[Tensor, Tensor, Tensor, Tensor, tuple[tuple[int, int], ...]], Tensor]

SAMPLERS = {
    "grid_sample": "one F.grid_sample per level: the reference, and what most engines know",
    "gather": "rows gathered by flat index, one matmul: fastest after export on CPU engines",
    "tent": "tent-function weights and matmuls only: for accelerators that cannot gather",
}
"""Name -> what it is. Each lives in the module of that name and is called `sample`."""
AUTO = "grid_sample"
"""What "auto" picks: the reference, which runs everywhere."""
NOT_HERE = {"fused": "the GPU kernel is not part of this version"}
"""Samplers by name that cannot run -> why."""


def get_sampler(name: str) -> Sampler:
    """The sampler of that name, or the one that "auto" picks; ValueError lists the legal names."""
    name = AUTO if name == "auto" else name
    legal = f"auto, {', '.join(SAMPLERS)} or a callable"
    if name in NOT_HERE:
        raise ValueError(f"{name}: {NOT_HERE[name]}; legal here are {legal}")
    if name not in SAMPLERS:
        raise ValueError(f"unknown sampler {name!r}; legal are {legal}")
    sampler: Sampler = importlib.import_module(f"tfpose_edge.attention.{name}").sample
    return sampler


def resolve_sampler(sampler: str | Sampler) -> tuple[str, Sampler]:
    """(name, callable) for a name, "auto" or a callable; "auto" is `AUTO`."""
    if callable(sampler):
        return getattr(sampler, "__name__", type(sampler).__name__), sampler
    return AUTO if sampler == "auto" else sampler, get_sampler(sampler)
