"""What is measured: TFPose's shapes, and random inputs of a sampler for them."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import torch
from torch import Tensor

from tfpose_edge.position import pixel_centres

N_HEADS, HEAD_DIM, N_POINTS = 8, 32, 4  # of every preset but tiny
NUM_KEYPOINTS = 17
Inputs = tuple[Tensor, Tensor, Tensor, Tensor]
"""Value, reference points, offsets, logits."""
SPREAD_PX = 2.0
"""Standard deviation of the offsets, in pixels of their level; learned ones are of that size."""


class Case(NamedTuple):
    """One shape of the operator."""

    crop_hw: tuple[int, int]
    levels: tuple[int, ...]
    part: str
    """"encoder": every token of the memory asks; "decoder": the key points ask."""
    batch: int
    dtype: torch.dtype
    """Of the values, and of what comes out; coordinates and logits are fp32 (fp64 with fp64 values)."""
    n_heads: int = N_HEADS
    head_dim: int = HEAD_DIM
    n_points: int = N_POINTS

    @property
    def spatial_shapes(self) -> tuple[tuple[int, int], ...]:
        """(height, width) of each level, finest first."""
        height, width = self.crop_hw
        return tuple((height >> level, width >> level) for level in self.levels)

    @property
    def tokens(self) -> int:
        """S, pixels of all levels."""
        return sum(height * width for height, width in self.spatial_shapes)

    @property
    def queries(self) -> int:
        """Q."""
        return self.tokens if self.part == "encoder" else NUM_KEYPOINTS

    @property
    def samples(self) -> int:
        """L * P, of a head and query."""
        return len(self.levels) * self.n_points

    @property
    def name(self) -> str:
        """Such as `256x192 C2-C5 encoder b32 fp32`; what --filter looks into."""
        height, width = self.crop_hw
        kind = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float64: "fp64"}[self.dtype]
        return f"{height}x{width} C{self.levels[0]}-C{self.levels[-1]} {self.part} b{self.batch} {kind}"

    def forward_bytes(self) -> int:
        """Least traffic of a forward pass: what is used of the value and all other inputs read once, output written.

        With e bytes a value and 4 a coordinate or logit (8 with fp64 values), and R rows of the value that the four
        corners of all samples can touch, R = min(S, 4 * Q * L * P):
        B * (R * H * D * e + Q * 2 * 4 + Q * H * L * P * 3 * 4 + Q * H * D * e).
        """
        return self.batch * (self._row * (self._touched + self.queries) + self._small)

    def backward_bytes(self) -> int:
        """Least traffic of a backward pass: the same inputs and the gradient of the output read once, the gradients of
        all inputs, that of the value whole, written once: `forward_bytes` + B * (S * H * D * e + the small inputs).
        """
        return self.forward_bytes() + self.batch * (self._row * self.tokens + self._small)

    @property
    def _row(self) -> int:
        """Bytes of all heads of one pixel or query."""
        return self.n_heads * self.head_dim * self.dtype.itemsize

    @property
    def _touched(self) -> int:
        return min(self.tokens, 4 * self.queries * self.samples)

    @property
    def _small(self) -> int:
        """Bytes of one image's reference points, offsets and logits."""
        return self.queries * (2 + 3 * self.n_heads * self.samples) * max(4, self.dtype.itemsize)


def random_inputs(case: Case, seed: int, device: torch.device) -> Inputs:
    """Value (B, S, H, D), reference points (B, Q, 2), offsets (B, Q, H, L * P, 2) and logits (B, Q, H, L * P).

    The encoder's reference points are the pixels' centres, as in the network; the decoder's are anywhere, some outside.
    """
    generator = None if device.type == "meta" else torch.Generator(device).manual_seed(seed)
    exact = torch.promote_types(case.dtype, torch.float32)
    batch, queries, n_heads = case.batch, case.queries, case.n_heads

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, device=device, dtype=exact)

    value = normal(batch, case.tokens, n_heads, case.head_dim).to(case.dtype)
    if case.part == "encoder":
        reference = pixel_centres(case.spatial_shapes).to(device, exact).repeat(batch, 1, 1)
    else:
        reference = 0.5 + 0.25 * normal(batch, queries, 2)
    offsets = normal(batch, queries, n_heads, case.samples, 2) * SPREAD_PX
    return value, reference, offsets, normal(batch, queries, n_heads, case.samples)


def cases(device: torch.device, quick: bool = False) -> list[Case]:
    """TFPose's shapes, as large as the device is made for; `quick` is 256x192 with all levels at the smallest batch."""
    crops, levels = [(256, 192), (384, 288)], [(2, 3, 4, 5), (3, 4, 5)]
    on_gpu = device.type == "cuda"
    batches, dtypes = ([32, 128, 256], [torch.float32, torch.bfloat16]) if on_gpu else ([1, 8], [torch.float32])
    if quick:
        crops, levels, batches = crops[:1], levels[:1], batches[:1]
    return [
        Case(crop, its_levels, part, batch, dtype)
        for part, crop, its_levels, batch, dtype in itertools.product(
            ("encoder", "decoder"), crops, levels, batches, dtypes
        )
    ]
