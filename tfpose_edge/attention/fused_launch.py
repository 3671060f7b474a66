"""Launches the fused sampler's kernels: block sizes, and which way the value's gradient is summed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import torch
import triton
from torch import Tensor

from tfpose_edge.attention import fused_choice, fused_kernels, fused_scatter

THREADS = 128  # of a program: 4 warps
VECTOR = 16  # bytes of one load
Shapes = tuple[tuple[int, int], ...]


def forward(
    value: Tensor, reference_points: Tensor, sampling_offsets: Tensor, attention_logits: Tensor,
    out: Tensor, log_sum: Tensor, shapes: Shapes,
) -> None:  # fmt: skip
    """Fill out (B, Q, H * D) and log_sum (B, Q, H)."""
    fixed = constants(value, sampling_offsets, shapes, value.element_size())
    samples = sampling_offsets.shape[3]
    inputs = value, reference_points, sampling_offsets, attention_logits
    with _device(value):
        fused_kernels.forward[_grid(sampling_offsets, fixed)](
            *inputs, out, log_sum, sampling_offsets.shape[1], **fixed, BLOCK_S=triton.next_power_of_2(samples)
        )


def backward(
    grad: Tensor, out: Tensor, value: Tensor, reference_points: Tensor, sampling_offsets: Tensor,
    attention_logits: Tensor, log_sum: Tensor, grads: tuple[Tensor, Tensor, Tensor], shapes: Shapes, route: str,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of value, offsets and logits; `grads` are empty tensors of theirs, filled where the type allows it."""
    _, grad_offsets, grad_logits = grads
    points = reference_points, sampling_offsets, attention_logits, log_sum

    def zeros() -> Tensor:
        return torch.zeros_like(value, dtype=log_sum.dtype)  # sums never in half precision

    def scatter(plan: fused_scatter.Plan | None, into: Tensor) -> None:
        _scatter(plan, value, grad, points, into, shapes)

    with _device(value):
        plan = fused_scatter.plan(value, sampling_offsets, attention_logits, shapes, route)
        if plan and route == "auto":
            plan = _faster(plan, value, sampling_offsets, lambda plan: scatter(plan, zeros()))
        fixed = constants(value, sampling_offsets, shapes, value.element_size())
        fused_kernels.backward[_grid(sampling_offsets, fixed)](
            grad, out, value, *points, grad_offsets, grad_logits, sampling_offsets.shape[1], **fixed
        )
        grad_value = zeros()  # now: what timing took is free again
        scatter(plan, grad_value)
    return grad_value.to(value.dtype), grad_offsets, grad_logits


def _scatter(
    plan: fused_scatter.Plan | None, value: Tensor, grad: Tensor, points: tuple[Tensor, Tensor, Tensor, Tensor],
    grad_value: Tensor, shapes: Shapes,
) -> None:  # fmt: skip
    """grad_value (B, S, H, D) += what grad sends to it: levels of the plan in shared memory, others by reductions."""
    _, sampling_offsets, _, log_sum = points
    levels = plan.first_level if plan else len(shapes)
    if levels:
        fixed = constants(value, sampling_offsets, shapes, log_sum.element_size())
        fused_kernels.scatter[_grid(sampling_offsets, fixed)](
            grad, *points, grad_value, sampling_offsets.shape[1], **fixed, LEVELS=levels
        )
    if plan:
        fused_scatter.run(plan, grad, *points, grad_value)


def _faster(
    plan: fused_scatter.Plan, value: Tensor, offsets: Tensor, scatter: Callable[[fused_scatter.Plan | None], None]
) -> fused_scatter.Plan | None:
    """The plan, or None where the plain reductions are faster for tensors of these shapes on this device."""
    batch, queries = offsets.shape[:2]
    ways = {"triton": lambda: scatter(None), "shared": lambda: scatter(plan)}
    unmeasured = "shared" if queries >= fused_scatter.MANY_QUERIES else "triton"
    return plan if fused_choice.fastest((value.device, plan, batch, queries), ways, unmeasured) == "shared" else None


def constants(value: Tensor, offsets: Tensor, shapes: Shapes, element_size: int) -> dict[str, Any]:
    """What a kernel is compiled for; as many queries as let every thread hold `VECTOR` bytes of half a head."""
    n_heads, head_dim = value.shape[2:]
    block_d = max(2, triton.next_power_of_2(head_dim))
    threads_per_query = max(1, block_d // 2 * element_size // VECTOR)
    return {
        "SHAPES": shapes, "N_HEADS": n_heads, "HEAD_DIM": head_dim, "N_POINTS": offsets.shape[3] // len(shapes),
        "BLOCK_Q": max(1, THREADS // threads_per_query), "BLOCK_D": block_d,
    }  # fmt: skip


def _grid(offsets: Tensor, constants: dict[str, Any]) -> tuple[int, int, int]:
    batch, queries, n_heads = offsets.shape[:3]
    return triton.cdiv(queries, constants["BLOCK_Q"]), n_heads, batch


def _device(tensor: Tensor) -> contextlib.AbstractContextManager[Any]:
    """Kernels start on the current device: make it the tensor's."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else contextlib.nullcontext()
