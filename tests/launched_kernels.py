"""Lets the fused sampler's launcher compile for a GPU that is not there, for odd sizes; prints the kernels' names.

Run as a process of its own, without Triton's interpreter: python tests/launched_kernels.py
"""

from __future__ import annotations

from typing import Any

import torch
from triton.backends.compiler import GPUTarget
from triton.runtime import JITFunction, driver

from tfpose_edge.attention import fused_launch

SHAPES = ((4, 3), (2, 2))
TOKENS, N_HEADS, SAMPLES = 16, 3, 4


class Hopper:
    """A driver of Triton's as far as its compiler asks: an H100."""

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


def compile_only(kernel: JITFunction, grid: tuple[int, int, int]) -> Any:
    """In the place of a launch."""

    def run(*args: Any, **constants: Any) -> None:
        kernel.warmup(*args, grid=grid, **constants)
        print(kernel.__name__)

    return run


def launch(dtype: torch.dtype, head_dim: int, queries: int, first: int) -> None:
    """Forward and backward; the value starts `first` elements into its storage."""
    wide, queried = torch.promote_types(dtype, torch.float32), (2, queries, N_HEADS)
    value = torch.zeros(2 * TOKENS * N_HEADS * head_dim + first, dtype=dtype)[first:]
    value = value.reshape(2, TOKENS, N_HEADS, head_dim)
    reference, offsets = torch.zeros(2, queries, 2, dtype=wide), torch.zeros(*queried, SAMPLES, 2, dtype=wide)
    logits, log_sum = torch.zeros(*queried, SAMPLES, dtype=dtype), torch.zeros(queried, dtype=wide)
    out = torch.zeros(2, queries, N_HEADS * head_dim, dtype=dtype)
    points, grads = (reference, offsets, logits), (value, offsets, logits)
    fused_launch.forward(value, *points, out, log_sum, SHAPES)
    fused_launch.backward(out, out, value, *points, log_sum, grads, SHAPES, "triton")


if __name__ == "__main__":
    driver.set_active(Hopper())
    JITFunction.__getitem__ = compile_only
    for sizes in ((torch.float16, 12, 1, 0), (torch.float64, 8, 16, 0), (torch.bfloat16, 128, 17, 1)):
        launch(*sizes)
