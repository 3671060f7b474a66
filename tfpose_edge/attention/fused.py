"""The fused sampler: reference + offset, softmax, bilinear sampling and weighting in one GPU kernel each way.

Two operators of torch's registry, so that autograd, autocast, torch.compile, checkpointing, CUDA graphs and several
processes treat them as they do torch's own. Values in fp16, bf16, fp32 or fp64; coordinates and sums never below fp32.
Gradients are first-order only, and the value's is summed by atomics, so not reproducible to the last bit. The host
waits for the device in the first backward of a shape, where two ways are timed (`fused_choice`), and never else.
"""

from __future__ import annotations

import importlib.util
import os
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Shapes = tuple[tuple[int, int], ...]
MOST_IMAGES, MOST_NUMBERS = 2**16 - 1, 2**31 - 1  # a grid's third axis; int32 inside a level of an image
LEAST_CAPABILITY = (8, 0)  # bf16 arithmetic and 16-byte loads: Ampere
ROUTES = ("auto", "triton", "shared")
"""How the value's gradient is summed: by vector reductions, small levels in shared memory, or what suits the shapes."""


def sample(
    value: Tensor, reference_points: Tensor, sampling_offsets: Tensor, attention_logits: Tensor, spatial_shapes: Shapes
) -> Tensor:
    """Deformable sampling; the contract is that of `tfpose_edge.attention.samplers`.

    Raises:
        ValueError: tensors that are not on one CUDA device, shapes that do not fit, or a type that is no float.
    """
    return _sample(value, reference_points, sampling_offsets, attention_logits, spatial_shapes, "auto")


def with_backward(route: str) -> Callable[[Tensor, Tensor, Tensor, Tensor, Shapes], Tensor]:
    """`sample` with a fixed way to sum the value's gradient, one of `ROUTES`; ValueError otherwise."""
    if route not in ROUTES:
        raise ValueError(f"unknown route {route!r}; legal are {', '.join(ROUTES)}")

    def fused(value: Tensor, reference: Tensor, offsets: Tensor, logits: Tensor, spatial_shapes: Shapes) -> Tensor:
        return _sample(value, reference, offsets, logits, spatial_shapes, route)

    return fused


def why_not(device: str | torch.device = "cuda") -> str | None:
    """Why the sampler cannot run on that device of this machine; None if it can."""
    if importlib.util.find_spec("triton") is None:
        return "it needs Triton (pip install triton; Linux only)"
    if _interpreted():
        return None
    if torch.device(device).type != "cuda":
        return f"it needs a CUDA device, not {device}"
    if torch.version.cuda is None:
        return "it needs a CUDA build of torch"
    if not torch.cuda.is_available():
        return "it needs an NVIDIA GPU, and torch finds none here"
    capability = torch.cuda.get_device_capability(device)
    if capability < LEAST_CAPABILITY:
        return f"it needs compute capability 8.0 or later; {torch.cuda.get_device_name(device)} has {capability}"
    return None


def _interpreted() -> bool:
    """Whether Triton's interpreter stands in for a GPU; it runs on tensors of the CPU, slowly."""
    return os.environ.get("TRITON_INTERPRET", "0") not in ("", "0")


def _sample(
    value: Tensor, reference_points: Tensor, sampling_offsets: Tensor, attention_logits: Tensor, shapes: Shapes,
    route: str,
) -> Tensor:  # fmt: skip
    _check(value, reference_points, sampling_offsets, attention_logits, shapes)
    dtype = torch.promote_types(value.dtype, torch.float32)
    out: Tensor = deformable_sampling(
        value.contiguous(),
        reference_points.to(dtype).contiguous(),
        sampling_offsets.to(dtype).contiguous(),
        attention_logits.contiguous(),
        [size for shape in shapes for size in shape],
        route,
    )[0]
    return out


def _check(value: Tensor, reference_points: Tensor, offsets: Tensor, logits: Tensor, shapes: Shapes) -> None:
    """ValueError unless the inputs are what the kernels read without looking."""
    if why := why_not(value.device):
        raise ValueError(f"fused: {why}")
    batch, _, n_heads, head_dim = value.shape
    queries, samples = offsets.shape[1], offsets.shape[3]
    expected = {
        "value": (batch, sum(h * w for h, w in shapes), n_heads, head_dim),
        "reference_points": (batch, queries, 2),
        "sampling_offsets": (batch, queries, n_heads, samples, 2),
        "attention_logits": (batch, queries, n_heads, samples),
    }
    given = {"value": value, "reference_points": reference_points, "sampling_offsets": offsets}
    for name, tensor in {**given, "attention_logits": logits}.items():
        if tuple(tensor.shape) != expected[name]:
            raise ValueError(f"fused: {name} has shape {tuple(tensor.shape)}; it must be {expected[name]}")
        if not tensor.is_floating_point() or tensor.device != value.device:
            raise ValueError(f"fused: {name} is {tensor.dtype} on {tensor.device}; it must be floats on {value.device}")
    if samples % len(shapes):
        raise ValueError(f"fused: {samples} samples do not divide among {len(shapes)} levels")
    largest = max(h * w for h, w in shapes) * n_heads * head_dim
    if batch > MOST_IMAGES or largest > MOST_NUMBERS:
        legal = f"legal are {MOST_IMAGES} images, and {MOST_NUMBERS} in a level"
        raise ValueError(f"fused: {batch} images with {largest} numbers in the largest level; {legal}")


@torch.library.custom_op("tfpose_edge::deformable_sampling", mutates_args=())
def deformable_sampling(
    value: Tensor, reference_points: Tensor, sampling_offsets: Tensor, attention_logits: Tensor,
    sizes: list[int], route: str,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """out (B, Q, H * D) and log(sum(exp(logits))) (B, Q, H), of contiguous inputs; sizes are height, width, ..."""
    from tfpose_edge.attention import fused_launch

    out, log_sum = _empty_outputs(value, sampling_offsets)
    fused_launch.forward(value, reference_points, sampling_offsets, attention_logits, out, log_sum, _shapes(sizes))
    return out, log_sum


@deformable_sampling.register_fake
def _(
    value: Tensor, reference_points: Tensor, sampling_offsets: Tensor, attention_logits: Tensor,
    sizes: list[int], route: str,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    return _empty_outputs(value, sampling_offsets)


@torch.library.custom_op("tfpose_edge::deformable_sampling_backward", mutates_args=())
def deformable_sampling_backward(
    grad: Tensor, out: Tensor, value: Tensor, reference_points: Tensor, sampling_offsets: Tensor,
    attention_logits: Tensor, log_sum: Tensor, sizes: list[int], route: str,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of value, sampling_offsets and attention_logits, each of its tensor's type."""
    from tfpose_edge.attention import fused_launch

    _alert_not_deterministic()
    grads = _empty_gradients(value, sampling_offsets, attention_logits)
    return fused_launch.backward(
        grad.contiguous(), out, value, reference_points, sampling_offsets, attention_logits, log_sum,
        grads, _shapes(sizes), route,
    )  # fmt: skip


@deformable_sampling_backward.register_fake
def _(
    grad: Tensor, out: Tensor, value: Tensor, reference_points: Tensor, sampling_offsets: Tensor,
    attention_logits: Tensor, log_sum: Tensor, sizes: list[int], route: str,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    return _empty_gradients(value, sampling_offsets, attention_logits)


def _save_for_backward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, ctx.sizes, ctx.route = inputs
    ctx.save_for_backward(output[0], *tensors, output[1])
    ctx.mark_non_differentiable(output[1])


def _backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    grad_value, grad_offsets, grad_logits = deformable_sampling_backward(
        grad, *ctx.saved_tensors, ctx.sizes, ctx.route
    )  # fmt: skip
    grad_reference = _reference_gradient(grad_offsets, _shapes(ctx.sizes)) if ctx.needs_input_grad[1] else None
    return grad_value, grad_reference, grad_offsets, grad_logits, None, None


deformable_sampling.register_autograd(_backward, setup_context=_save_for_backward)


def _reference_gradient(grad_offsets: Tensor, shapes: Shapes) -> Tensor:
    """A reference point moves all samples of its query, on each level by that level's size: (B, Q, 2)."""
    batch, queries, n_heads, samples = grad_offsets.shape[:4]
    n_levels = len(shapes)
    by_level = grad_offsets.reshape(batch, queries, n_heads, n_levels, samples // n_levels, 2).sum(dim=(2, 4))
    x = sum(by_level[:, :, level, 0] * width for level, (_, width) in enumerate(shapes))
    y = sum(by_level[:, :, level, 1] * height for level, (height, _) in enumerate(shapes))
    return torch.stack((x, y), dim=-1)  # type: ignore[arg-type]


def _shapes(sizes: list[int]) -> Shapes:
    return tuple(zip(sizes[::2], sizes[1::2], strict=True))


def _empty_outputs(value: Tensor, sampling_offsets: Tensor) -> tuple[Tensor, Tensor]:
    batch, queries, n_heads = sampling_offsets.shape[:3]
    out = value.new_empty(batch, queries, n_heads * value.shape[3])
    return out, sampling_offsets.new_empty(batch, queries, n_heads)


def _empty_gradients(value: Tensor, offsets: Tensor, logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(value), torch.empty_like(offsets), torch.empty_like(logits)


def _alert_not_deterministic() -> None:
    """As torch's own operators do under `torch.use_deterministic_algorithms`."""
    if not torch.are_deterministic_algorithms_enabled():
        return
    text = (
        "the backward of the fused sampler has no deterministic implementation, but "
        "torch.use_deterministic_algorithms(True) is set; choose the sampler gather or tent, or warn_only"
    )
    if not torch.is_deterministic_algorithms_warn_only_enabled():
        raise RuntimeError(text)
    warnings.warn(text, stacklevel=2)
