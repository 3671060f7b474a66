"""Time, traffic and memory of one implementation on one case."""

from __future__ import annotations

import gc
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from benchmarks.attention.cases import Case, Inputs, random_inputs
from tfpose_edge.attention import EXPORTABLE, Sampler, get_sampler
from tfpose_edge.attention.fused_choice import HEAD_START_CYCLES

MAX_ROUNDS, MIN_ROUNDS = 200, 3
FLUSH_BYTES = 2**28  # more than any GPU's second-level cache
COPY_BYTES = {"cuda": 2**30, "cpu": 2**28}
SLOWEST = 0.05
"""Share of the copy bandwidth below which no implementation is expected: cells that need more time are not begun."""
FREE_SHARE = 0.6
"""Of the free memory that a cell may be expected to take."""


class Cell(NamedTuple):
    """One implementation on one case: figures, or the reason why there are none."""

    case: Case
    implementation: str
    forward_ms: float | None = None
    """Without gradients; median."""
    backward_ms: float | None = None
    both_ms: float | None = None
    """Forward with gradients, then backward; median of the pairs."""
    rounds: int = 0
    held_bytes: int | None = None
    """Kept for the backward pass beyond the inputs, every storage once."""
    held_with_inputs: int | None = None
    reason: str = ""


def measure(
    case: Case, name: str, sample: Sampler, device: torch.device, seconds: float, copy_bytes_per_s: float
) -> Cell:
    """Time a cell for about `seconds`; one that would not fit or take far too long is answered with its bytes."""
    if name.startswith("fused") and device.type != "cuda":
        return Cell(case, name, reason="interpreted: compared, not timed")
    need = needed_bytes(case, name, sample)
    if need > FREE_SHARE * free_bytes(device):
        return Cell(case, name, reason=f"does not fit: needs about {need / 1e9:.1f} GB")
    if need / (SLOWEST * copy_bytes_per_s) > 10 * seconds:
        return Cell(case, name, reason=f"too slow: moves at least {need / 1e9:.1f} GB")
    try:
        return _measured(case, name, sample, device, seconds)
    except torch.OutOfMemoryError:
        return Cell(case, name, reason=f"out of memory: expected to need {need / 1e9:.1f} GB")
    except (RuntimeError, ValueError) as error:
        return Cell(case, name, reason=f"cannot run: {' '.join(str(error).split())[:120]}")
    finally:
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()


def _measured(case: Case, name: str, sample: Sampler, device: torch.device, seconds: float) -> Cell:
    inputs = random_inputs(case, 0, device)
    leaves = [tensor.requires_grad_() for tensor in inputs]
    grad_out = torch.randn(case.batch, case.queries, case.n_heads * case.head_dim, device=device).to(case.dtype)

    @torch.no_grad()
    def forward() -> None:
        sample(*inputs, case.spatial_shapes)

    def forward_with_gradients() -> Tensor:
        return sample(*inputs, case.spatial_shapes)

    def backward(out: Tensor) -> None:
        torch.autograd.grad(out, leaves, grad_out)

    inside, outside = held_bytes(sample, inputs, case)
    forward_ms = timed(forward, None, device, seconds / 3)
    pairs = timed(forward_with_gradients, backward, device, seconds * 2 / 3)
    backward_ms = [second for _, second in pairs]
    return Cell(
        case, name, statistics.median(first for first, _ in forward_ms), statistics.median(backward_ms),
        statistics.median(first + second for first, second in pairs), len(pairs), outside, inside + outside,
    )  # fmt: skip


def timed(
    first: Callable[[], Tensor | None], second: Callable[[Tensor], None] | None, device: torch.device, seconds: float
) -> list[tuple[float, float]]:
    """Milliseconds of `first()` and of `second(its result)`, again and again; a GPU's caches are flushed before each.

    On a GPU by events, on a CPU by the wall clock.
    """
    warm_up = 3 if device.type == "cuda" else 1
    flush = torch.empty(FLUSH_BYTES if device.type == "cuda" else 0, dtype=torch.uint8, device=device)
    times: list[tuple[float, float]] = []
    started = time.perf_counter()
    while len(times) < warm_up + MIN_ROUNDS or (len(times) < MAX_ROUNDS and time.perf_counter() - started < seconds):
        if len(times) == warm_up:
            started = time.perf_counter()  # kernels are compiled, which must not take the time of the rounds
        flush.zero_()
        times.append(_round_on_gpu(first, second) if device.type == "cuda" else _round_on_cpu(first, second))
    return times[warm_up:]


def _round_on_gpu(first: Callable, second: Callable | None) -> tuple[float, float]:  # type: ignore[type-arg]
    events = [torch.cuda.Event(enable_timing=True) for _ in range(3)]
    torch.cuda._sleep(HEAD_START_CYCLES)  # kernels that wait in the queue are timed, not how fast Python launches them
    events[0].record()
    out = first()
    events[1].record()
    if second is not None:
        second(out)
    events[2].record()
    events[2].synchronize()
    return events[0].elapsed_time(events[1]), events[1].elapsed_time(events[2])


def _round_on_cpu(first: Callable, second: Callable | None) -> tuple[float, float]:  # type: ignore[type-arg]
    begun = time.perf_counter()
    out = first()
    between = time.perf_counter()
    if second is not None:
        second(out)
    return (between - begun) * 1e3, (time.perf_counter() - between) * 1e3


def held_bytes(sample: Sampler, inputs: Inputs, case: Case) -> tuple[int, int]:
    """Bytes that a forward pass keeps for its backward: (of the inputs themselves, of everything else)."""
    own = {tensor.untyped_storage()._cdata for tensor in inputs}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()  # stays alive with the tensor, so its address names it
        kept[storage._cdata] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        out = sample(*inputs, case.spatial_shapes)
    total = sum(kept.values())
    inside = sum(size for address, size in kept.items() if address in own)
    del out
    return inside, total - inside


def needed_bytes(case: Case, name: str, sample: Sampler) -> int:
    """`expected_bytes` of one of our samplers; of grid_sample for others, whose code may need real tensors."""
    if name.startswith("fused"):  # which keeps its inputs, its output and a number for each query and head
        return 4 * case.forward_bytes()
    return expected_bytes(case, sample if name in EXPORTABLE else get_sampler("grid_sample"))


def expected_bytes(case: Case, sample: Sampler) -> int:
    """What forward and backward take at most at one time: inputs, and twice what is kept, counted without memory."""
    inputs = random_inputs(case._replace(batch=1), 0, torch.device("meta"))
    inside, outside = held_bytes(sample, tuple(tensor.requires_grad_() for tensor in inputs), case)  # type: ignore[arg-type]
    return 2 * case.backward_bytes() + 2 * case.batch * (inside + outside)


def free_bytes(device: torch.device) -> int:
    """Memory that can be had: on Linux also what caches of files would give back."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    listed = Path("/proc/meminfo")
    if listed.is_file():
        return 1024 * int(listed.read_text().split("MemAvailable:")[1].split()[0])
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def copy_bandwidth(device: torch.device) -> float:
    """Bytes/s of a large copy, each byte read and written: what any implementation is measured against."""
    source = torch.zeros(COPY_BYTES[device.type], dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    times = timed(lambda: target.copy_(source), None, device, 1.0)
    return 2 * source.nbytes / (statistics.median(first for first, _ in times) / 1e3)
