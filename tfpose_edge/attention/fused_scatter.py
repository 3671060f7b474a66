"""The fused sampler's second way to sum the value's gradient: small levels in shared memory, by CUDA through NVRTC."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

SOURCE = Path(__file__).with_suffix(".cu")
KERNEL = "scatter_shared"
WARPS = 32  # of a block
SLICES = (32, 16)  # channels that a block may sum; fewer would repeat the arithmetic too often
MANY_QUERIES = 512  # with fewer, sums hardly ever meet at a pixel: what is assumed where nothing can be measured
LEAST_PER_BLOCK = 128  # queries
TYPES = (torch.float32, torch.bfloat16)
Shapes = tuple[tuple[int, int], ...]

_kernels: dict[tuple[Plan, int], Any] = {}
"""Of a plan and device: the kernel, or why there is none."""


@dataclass(frozen=True)
class Plan:
    """What the CUDA kernel is compiled for."""

    shapes: Shapes
    n_heads: int
    head_dim: int
    n_points: int
    first_level: int
    """Levels from this one on are summed in shared memory."""
    channels: int
    """Channels of a head that one block sums."""
    grad_bf16: bool = False
    logits_bf16: bool = False
    warps: int = WARPS

    @property
    def pixels(self) -> int:
        """Pixels of the levels that are summed."""
        return sum(height * width for height, width in self.shapes[self.first_level :])

    @property
    def shared_bytes(self) -> int:
        """Shared memory of a block: the sums, and each warp's list of corners, 8 bytes an entry."""
        entries = (len(self.shapes) - self.first_level) * self.n_points * 4
        return self.pixels * self.channels * 4 + self.warps * entries * 8

    def options(self) -> list[str]:
        """The macros of the source, as compiler options."""
        heights, widths = (",".join(str(size) for size in sizes) for sizes in zip(*self.shapes, strict=True))
        tokens = sum(height * width for height, width in self.shapes)
        macros = {
            "N_HEADS": self.n_heads, "HEAD_DIM": self.head_dim, "N_POINTS": self.n_points,
            "SAMPLES": len(self.shapes) * self.n_points, "N_LEVELS": len(self.shapes), "FIRST": self.first_level,
            "HEIGHTS": f"{{{heights}}}", "WIDTHS": f"{{{widths}}}", "TOKENS": tokens, "START": tokens - self.pixels,
            "PIXELS": self.pixels, "CHANNELS": self.channels, "WARPS": self.warps,
            "GRAD_BF16": int(self.grad_bf16), "LOGITS_BF16": int(self.logits_bf16),
        }  # fmt: skip
        return [f"-D{name}={value}" for name, value in macros.items()]


def plan(value: Tensor, sampling_offsets: Tensor, attention_logits: Tensor, shapes: Shapes, route: str) -> Plan | None:
    """The plan for these tensors; None where the plain reductions are to be used, or nothing else can be.

    Raises:
        ValueError: route "shared" where it cannot be taken, with the reason.
    """
    if route == "triton" or not sampling_offsets.shape[:2].numel():
        return None
    try:
        found = _plan(value, sampling_offsets, attention_logits, shapes)
        if (found, value.device.index) not in _kernels and torch.cuda.is_current_stream_capturing():
            raise ValueError(
                "fused, route shared: nothing can be compiled while a CUDA graph is captured; step once before"
            )
        compiled(found, value.device.index)  # which may fail: before anything is launched
        return found
    except ValueError:
        if route == "shared":
            raise
        return None


def _plan(value: Tensor, sampling_offsets: Tensor, attention_logits: Tensor, shapes: Shapes) -> Plan:
    if not value.is_cuda:
        raise ValueError(f"fused, route shared: it needs a CUDA device, not {value.device}")
    types = value.dtype, attention_logits.dtype
    if not set(types) <= set(TYPES):
        raise ValueError(f"fused, route shared: it needs fp32 or bf16, not values and logits of {types}")
    device = torch.cuda.get_device_properties(value.device)
    limit: int = device.shared_memory_per_block_optin  # type: ignore[attr-defined]
    fitting = fit(shapes, value.shape[2], value.shape[3], sampling_offsets.shape[3] // len(shapes), limit)
    if fitting is None:
        raise ValueError(f"fused, route shared: no level fits in {limit} bytes in slices of {SLICES} channels")
    return replace(fitting, grad_bf16=types[0] == torch.bfloat16, logits_bf16=types[1] == torch.bfloat16)


def fit(shapes: Shapes, n_heads: int, head_dim: int, n_points: int, limit: int) -> Plan | None:
    """The most levels, counted from the smallest, whose sums fit in `limit` bytes; then the widest slice."""
    for first_level in range(len(shapes)):
        for channels in SLICES:
            candidate = Plan(shapes, n_heads, head_dim, n_points, first_level, channels)
            if head_dim % channels == 0 and candidate.shared_bytes <= limit:
                return candidate
    return None


def run(
    plan: Plan, grad: Tensor, reference_points: Tensor, sampling_offsets: Tensor, attention_logits: Tensor,
    log_sum: Tensor, grad_value: Tensor,
) -> None:  # fmt: skip
    """grad_value (B, S, H, D) fp32 += what grad (B, Q, H * D) sends to the plan's levels."""
    batch, queries = sampling_offsets.shape[:2]
    if not batch:
        return  # and a grid of nothing is an error
    blocks = plan.n_heads * (plan.head_dim // plan.channels)
    processors = torch.cuda.get_device_properties(grad.device).multi_processor_count
    splits = max(1, min(2 * processors // (batch * blocks), queries // LEAST_PER_BLOCK))
    compiled(plan, grad.device.index)(
        grid=(splits, blocks, batch),
        block=(32 * plan.warps, 1, 1),
        args=[grad, reference_points, sampling_offsets, attention_logits, log_sum, grad_value, queries],
        shared_mem=plan.shared_bytes,
    )


def compiled(plan: Plan, device: int) -> Any:
    """The kernel of a plan, for the current device, whose index is `device`; ValueError where NVRTC cannot make it."""
    if (plan, device) not in _kernels:
        _kernels[plan, device] = _kernel_or_reason(plan)
    kernel = _kernels[plan, device]
    if isinstance(kernel, str):
        raise ValueError(f"fused, route shared: {kernel}")
    return kernel


def _kernel_or_reason(plan: Plan) -> Any:
    """The kernel, or why there is none, which is said: all is summed by Triton's kernel then."""
    try:
        with _toolkit_not_needed():
            kernel = torch.cuda._compile_kernel(SOURCE.read_text(), KERNEL, nvcc_options=plan.options())
        kernel.set_shared_memory_config(plan.shared_bytes)
    except (ImportError, AttributeError, OSError, RuntimeError) as error:  # no NVRTC, or none that torch can use
        if "out of memory" in str(error):
            raise  # which passes
        reason = f"NVRTC does not compile here ({error})"
        warnings.warn(f"fused: {reason}; small levels are not summed in shared memory", stacklevel=2)
        return reason
    return kernel


@contextlib.contextmanager
def _toolkit_not_needed() -> Iterator[None]:
    """torch asks for CUDA_HOME before it compiles; our source includes nothing, so the folder need not be there."""
    from torch.utils import cpp_extension

    home = cpp_extension.CUDA_HOME
    cpp_extension.CUDA_HOME = home or "/usr"  # whose headers torch never adds
    try:
        yield
    finally:
        cpp_extension.CUDA_HOME = home
