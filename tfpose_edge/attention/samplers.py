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

import torch
from torch import Tensor

Sampler = Callable[[Tensor, Tensor, Tensor, Tensor, tuple[tuple[int, int], ...]], Tensor]

SAMPLERS = {
    "grid_sample": "one F.grid_sample per level: the reference, and what most engines know",
    "gather": "rows gathered by flat index, one matmul: fastest after export on CPU engines",
    "float_gather": "the same in floats up to the look-up: fastest where a delegate computes floats only",
    "bag": "the same rows, weighted and summed inside one look-up: fastest where that operation exists",
    "tent": "tent-function weights and matmuls only: for accelerators that cannot gather",
    "fused": "one Triton kernel each way: for training on an NVIDIA GPU",
}
"""Name -> what it is. Each lives in the module of that name and is called `sample`."""
EXPORTABLE = tuple(name for name in SAMPLERS if name != "fused")
"""Samplers of torch's own operators; which format can hold which, `converters/formats.py` says."""


def get_sampler(name: str, device: str | torch.device = "cpu") -> Sampler:
    """The sampler of that name, or the one that "auto" picks for tensors on `device`.

    Raises:
        ValueError: unknown, with the legal names; or unable to run on this machine, with the reason.
    """
    name = choose_sampler(name, device)
    if name not in SAMPLERS:
        raise ValueError(f"unknown sampler {name!r}; legal are auto, {', '.join(SAMPLERS)} or a callable")
    module = importlib.import_module(f"tfpose_edge.attention.{name}")
    if name == "fused" and (why := module.why_not()):
        raise ValueError(f"fused: {why}; legal here are auto, {', '.join(EXPORTABLE)} or a callable")
    sampler: Sampler = module.sample
    return sampler


def choose_sampler(name: str, device: str | torch.device) -> str:
    """`name`, or for "auto" what suits tensors on `device`: fused on a GPU that can run it, else grid_sample."""
    if name != "auto":
        return name
    if torch.device(device).type != "cuda":
        return "grid_sample"
    return "grid_sample" if importlib.import_module("tfpose_edge.attention.fused").why_not(device) else "fused"


def resolve_sampler(sampler: str | Sampler, device: str | torch.device = "cpu") -> tuple[str, Sampler]:
    """(name, callable) for a name, "auto" or a callable; for "auto" the name is that of `choose_sampler`."""
    if callable(sampler):
        return getattr(sampler, "__name__", type(sampler).__name__), sampler
    return choose_sampler(sampler, device), get_sampler(sampler, device)
