"""Every implementation against grid_sample in fp64: what comes out, and every gradient."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from benchmarks.attention.cases import Case, Inputs, random_inputs
from tfpose_edge.attention import Sampler, get_sampler

CASES = tuple(
    Case((128, 96), levels, part, batch, dtype)
    for dtype in (torch.float32, torch.bfloat16)
    for levels, part, batch in (((2, 3, 4, 5), "encoder", 2), ((2, 3, 4, 5), "decoder", 18), ((3, 4, 5), "encoder", 3))
)
QUICK_CASES = tuple(Case((64, 96), (3, 4, 5), part, 2, torch.float32) for part in ("encoder", "decoder"))
GPU_CASES = tuple(
    Case(crop, levels, part, batch, dtype)
    for dtype in (torch.float32, torch.bfloat16)
    for crop, levels, part, batch in (
        ((256, 192), (2, 3, 4, 5), "encoder", 2),
        ((256, 192), (2, 3, 4, 5), "decoder", 32),
        ((384, 288), (2, 3, 4, 5), "encoder", 1),
        ((384, 288), (3, 4, 5), "encoder", 1),
    )
)
"""The shapes that are timed on a GPU: the kernels are compiled anew for each, some with other levels and slices in
shared memory; only batches are smaller."""
TENSORS = ("out", "value", "reference_points", "offsets", "logits")
"""What is compared: the output, and the gradient of each input."""
TOLERANCES = {torch.float32: 2e-5, torch.bfloat16: 1e-2}
"""Largest difference, as a share of the largest number of its tensor; by the type of the values."""
KINK = 0.01
"""Pixels that positions keep from whole numbers: there the derivative jumps, and rounding decides which one holds."""


def cases_for(device: torch.device, quick: bool) -> tuple[Case, ...]:
    """What is compared on a device before anything is timed."""
    if quick:
        return QUICK_CASES
    return CASES + GPU_CASES if device.type == "cuda" else CASES


class Check(NamedTuple):
    """One implementation on one case."""

    case: str
    implementation: str
    differences: dict[str, float]
    """Tensor -> largest difference as a share of the exact tensor's largest number."""
    tolerance: float

    @property
    def passed(self) -> bool:
        """Whether every difference is a number within the tolerance."""
        return all(difference <= self.tolerance for difference in self.differences.values())

    def line(self) -> str:
        """Such as `ok    gather ... out 1.2e-07  value 3.0e-07 ...`."""
        shown = "  ".join(f"{name} {difference:.1e}" for name, difference in self.differences.items())
        verdict = "ok  " if self.passed else "FAIL"
        return f"{verdict}  {self.implementation:<21} {self.case:<34} {shown}  (at most {self.tolerance:.0e})"


def check(case: Case, name: str, sample: Sampler, seed: int, device: torch.device) -> Check:
    """Compare one implementation; whatever it raises passes through."""
    inputs = away_from_kinks(case, random_inputs(case, seed, device))
    generator = torch.Generator(device).manual_seed(seed + 1)
    shape = (case.batch, case.queries, case.n_heads * case.head_dim)
    grad_out = torch.randn(shape, generator=generator, device=device).to(case.dtype)
    exact_inputs = tuple(tensor.double() for tensor in inputs)
    expected = results(get_sampler("grid_sample"), exact_inputs, grad_out.double(), case)  # type: ignore[arg-type]
    actual = results(sample, inputs, grad_out, case)
    differences = {
        tensor: float((a.double() - e).abs().max() / e.abs().max())
        for tensor, a, e in zip(TENSORS, actual, expected, strict=True)
    }
    return Check(case.name, name, differences, TOLERANCES[case.dtype])


def results(sample: Sampler, inputs: Inputs, grad_out: Tensor, case: Case) -> list[Tensor]:
    """Output and gradients, in the order of `TENSORS`."""
    leaves = [tensor.detach().requires_grad_() for tensor in inputs]
    out = sample(*leaves, case.spatial_shapes)  # type: ignore[call-arg, arg-type]
    return [out.detach(), *torch.autograd.grad(out, leaves, grad_out)]


def away_from_kinks(case: Case, inputs: Inputs) -> Inputs:
    """The same inputs with offsets moved so that no position is within `KINK` px of a whole number."""
    value, reference, offsets, logits = inputs
    sizes = [(width, height) for height, width in case.spatial_shapes for _ in range(case.n_points)]
    sizes_wh = torch.tensor(sizes, dtype=torch.float64, device=offsets.device)  # (L * P, 2)
    position = reference[:, :, None, None].double() * sizes_wh + offsets.double() - 0.5
    close = (position - position.round()).abs() < KINK
    return value, reference, offsets + 2 * KINK * close, logits
