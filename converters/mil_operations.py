"""What each operation of a Core ML program computes, in torch: one small function an operation type.

Names, arguments and defaults are those of Core ML's Model Intermediate Language, iOS 15 and 16. Tensor arguments come
as tensors, texts as str. An argument value that is not covered raises `Unsupported`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

DTYPES = {
    "fp16": torch.float16, "fp32": torch.float32, "int8": torch.int8, "uint8": torch.uint8, "int32": torch.int32,
    "uint32": torch.int64, "bool": torch.bool,
}  # fmt: skip
"""Name in the program -> dtype of the tensor."""


class Unsupported(Exception):
    """An argument value that this evaluator does not implement."""


def ints(values: Tensor | None, default: list[int]) -> list[int]:
    """A constant list argument, or its default."""
    return default if values is None else [int(v) for v in values.reshape(-1).tolist()]


def legal(name: str, value: Any, *values: Any) -> Any:
    """`value` if it is one of `values`, else `Unsupported`."""
    if value not in values:
        raise Unsupported(f"{name} = {value!r} (implemented: {', '.join(map(repr, values))})")
    return value


def conv(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, strides: Tensor | None = None, pad_type: str = "valid",
    pad: Tensor | None = None, dilations: Tensor | None = None, groups: Tensor | int = 1,
) -> Tensor:  # fmt: skip
    """2-D convolution, x (N, C, H, W); pad is (top, bottom, left, right)."""
    x = pad_plane(x, pad_type, pad, 0.0)
    return F.conv2d(x, weight, bias, ints(strides, [1, 1]), 0, ints(dilations, [1, 1]), int(groups))


def max_pool(
    x: Tensor, kernel_sizes: Tensor, strides: Tensor | None = None, pad_type: str = "valid", pad: Tensor | None = None,
    ceil_mode: Tensor | bool = False,
) -> Tensor:  # fmt: skip
    """2-D maximum; the padding never wins."""
    legal("ceil_mode", bool(ceil_mode), False)
    return F.max_pool2d(pad_plane(x, pad_type, pad, -torch.inf), ints(kernel_sizes, []), ints(strides, [1, 1]))


def pad_plane(x: Tensor, pad_type: str, pad: Tensor | None, value: float) -> Tensor:
    """x (N, C, H, W) with the padding of a convolution or a pooling."""
    if legal("pad_type", pad_type, "valid", "custom") == "valid":
        return x
    top, bottom, left, right = ints(pad, [0, 0, 0, 0])
    return F.pad(x, (left, right, top, bottom), value=value)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x (..., C) times weight (D, C) transposed, plus bias (D)."""
    return F.linear(x, weight, bias)


def matmul(x: Tensor, y: Tensor, transpose_x: Tensor | bool = False, transpose_y: Tensor | bool = False) -> Tensor:
    """Batched product; either side may be transposed in its last two axes."""
    return (x.transpose(-1, -2) if transpose_x else x) @ (y.transpose(-1, -2) if transpose_y else y)


def batch_norm(
    x: Tensor, mean: Tensor, variance: Tensor, gamma: Tensor | None = None, beta: Tensor | None = None,
    epsilon: Tensor | float = 1e-5,
) -> Tensor:  # fmt: skip
    """Normalisation of each channel (axis 1) by constants."""
    return F.batch_norm(x, mean, variance, gamma, beta, training=False, eps=float(epsilon))


def layer_norm(
    x: Tensor, axes: Tensor | None = None, gamma: Tensor | None = None, beta: Tensor | None = None,
    epsilon: Tensor | float = 1e-5,
) -> Tensor:  # fmt: skip
    """Normalisation over the last axes."""
    over = sorted(axis % x.ndim for axis in ints(axes, list(range(x.ndim))))
    legal("axes", over, list(range(x.ndim - len(over), x.ndim)))
    return F.layer_norm(x, x.shape[over[0] :], gamma, beta, float(epsilon))


def softmax(x: Tensor, axis: Tensor | int = -1) -> Tensor:
    """Exponentials that sum to 1 along an axis."""
    return x.softmax(int(axis))


def clip(x: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
    """x limited to [alpha, beta]."""
    return x.clamp(alpha.item(), beta.item())


def cast(x: Tensor, dtype: str) -> Tensor:
    """x in another type; floats lose their fraction towards zero when they become integers."""
    return x.to(DTYPES[legal("dtype", dtype, *DTYPES)])


def reduce_sum(x: Tensor, axes: Tensor | None = None, keep_dims: Tensor | bool = False) -> Tensor:
    """Sum over axes, all by default."""
    return x.sum(ints(axes, list(range(x.ndim))), keepdim=bool(keep_dims))


def reduce_mean(x: Tensor, axes: Tensor | None = None, keep_dims: Tensor | bool = False) -> Tensor:
    """Mean over axes, all by default."""
    return x.mean(ints(axes, list(range(x.ndim))), keepdim=bool(keep_dims))


def reshape(x: Tensor, shape: Tensor) -> Tensor:
    """Row-major; -1 is inferred, 0 keeps the size of that axis."""
    sizes = ints(shape, [])
    return x.reshape([x.shape[i] if size == 0 else size for i, size in enumerate(sizes)])


def transpose(x: Tensor, perm: Tensor) -> Tensor:
    """Axes in another order."""
    return x.permute(ints(perm, []))


def expand_dims(x: Tensor, axes: Tensor) -> Tensor:
    """Axes of size 1 at these places of the result."""
    rank = x.ndim + axes.numel()
    for axis in sorted(axis % rank for axis in ints(axes, [])):
        x = x.unsqueeze(axis)
    return x


def squeeze(x: Tensor, axes: Tensor | None = None) -> Tensor:
    """Without these axes of size 1, all by default."""
    return x.squeeze() if axes is None else x.squeeze(tuple(ints(axes, [])))


def concat(values: list[Tensor], axis: Tensor, interleave: Tensor | bool = False) -> Tensor:
    """One after the other along an existing axis."""
    legal("interleave", bool(interleave), False)
    return torch.cat(values, int(axis))


def split(x: Tensor, axis: Tensor, split_sizes: Tensor) -> tuple[Tensor, ...]:
    """Consecutive parts of those sizes along one axis."""
    return x.split(ints(split_sizes, []), int(axis))


def stack(values: list[Tensor], axis: Tensor) -> Tensor:
    """One after the other along a new axis."""
    return torch.stack(values, int(axis))


def tile(x: Tensor, reps: Tensor) -> Tensor:
    """x repeated along each axis."""
    return x.repeat(ints(reps, []))


def pad(x: Tensor, pad: Tensor, mode: str = "constant", constant_val: Tensor | float = 0.0) -> Tensor:
    """(before, after) of each of the last axes, filled with a constant."""
    legal("mode", mode, "constant")
    amounts = ints(pad, [])
    last_first = [amounts[i + side] for i in range(len(amounts) - 2, -2, -2) for side in (0, 1)]
    return F.pad(x, last_first, value=float(constant_val))


def slice_by_index(
    x: Tensor, begin: Tensor, end: Tensor, stride: Tensor | None = None, begin_mask: Tensor | None = None,
    end_mask: Tensor | None = None, squeeze_mask: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """x[begin:end:stride] on each axis; a mask of begin or end ignores it, one of squeeze takes a single index."""
    begins, ends, strides = ints(begin, []), ints(end, []), ints(stride, [1] * x.ndim)
    masks = [ints(mask, [0] * x.ndim) for mask in (begin_mask, end_mask, squeeze_mask)]
    index: list[slice | int] = []
    for axis, (from_start, to_end, single) in enumerate(zip(*masks, strict=True)):
        if strides[axis] < 1:
            raise Unsupported(f"stride = {strides[axis]} (implemented: positive ones)")
        span = slice(None if from_start else begins[axis], None if to_end else ends[axis], strides[axis])
        index.append(begins[axis] if single else span)
    return x[tuple(index)]


def gather(
    x: Tensor, indices: Tensor, axis: Tensor | int = 0, batch_dims: Tensor | int = 0,
    validate_indices: Tensor | bool = False,
) -> Tensor:  # fmt: skip
    """Slices of x along an axis; negative indices count from its end, others outside are an error."""
    legal("batch_dims", int(batch_dims), 0)
    along = int(axis) % x.ndim
    size = x.shape[along]
    rows = torch.where(indices < 0, indices + size, indices).long()
    shape = (*x.shape[:along], *indices.shape, *x.shape[along + 1 :])
    return x.index_select(along, rows.reshape(-1)).reshape(shape)


def resample(
    x: Tensor, coordinates: Tensor, sampling_mode: str, padding_mode: str, padding_value: Tensor,
    coordinates_mode: str, align_corners: Tensor | bool,
) -> Tensor:  # fmt: skip
    """Bilinear samples of x (N, C, H, W) at coordinates (N, H', W', 2), (x, y) from -1 to 1, zeros outside."""
    legal("sampling_mode", sampling_mode, "bilinear")
    legal("padding_mode", padding_mode, "constant")
    legal("padding_value", float(padding_value), 0.0)
    legal("coordinates_mode", coordinates_mode, "normalized_minus_one_to_one")
    grid = coordinates.to(x.dtype)
    return F.grid_sample(x.contiguous(), grid, "bilinear", "zeros", align_corners=bool(align_corners))


def constexpr_affine_dequantize(quantized_data: Tensor, zero_point: Tensor, scale: Tensor, axis: Tensor) -> Tensor:
    """Weights from eight bits: (data - zero point) * scale, each one number or one for each place on the axis."""
    along = [-1 if i == int(axis) % quantized_data.ndim else 1 for i in range(quantized_data.ndim)]
    zero, factor = (t.reshape(along) if t.numel() > 1 else t.reshape(()) for t in (zero_point, scale))
    return (quantized_data.float() - zero.float()) * factor.float()


def constexpr_lut_to_dense(indices: Tensor, lut: Tensor, shape: Tensor) -> Tensor:
    """Weights from a palette of 2, 4, 16, 64 or 256 values; indices lie packed in bytes, lowest bit first."""
    bits = legal("size of the palette", lut.numel(), 2, 4, 16, 64, 256).bit_length() - 1
    sizes = ints(shape, [])
    count = math.prod(sizes)
    stream = indices.reshape(-1, 1).int() >> torch.arange(8, dtype=torch.int32) & 1  # (bytes, 8)
    places = stream.reshape(-1)[: count * bits].reshape(count, bits) << torch.arange(bits, dtype=torch.int32)
    return lut.reshape(-1)[places.sum(1).long()].reshape(sizes)


def constexpr_sparse_to_dense(nonzero_data: Tensor, mask: Tensor, shape: Tensor) -> Tensor:
    """Weights that are zero where a bit of the mask is; its bits lie packed in bytes, lowest first."""
    sizes = ints(shape, [])
    bits = mask.reshape(-1, 1).int() >> torch.arange(8, dtype=torch.int32) & 1
    dense = torch.zeros(math.prod(sizes), dtype=nonzero_data.dtype)
    dense[bits.reshape(-1)[: len(dense)].bool()] = nonzero_data.reshape(-1)
    return dense.reshape(sizes)


def constexpr_cast(source_val: Tensor, output_dtype: str) -> Tensor:
    """Weights stored in half, for arithmetic in single."""
    return source_val.to(DTYPES[legal("output_dtype", output_dtype, "fp32")])


OPERATIONS: dict[str, Callable[..., Tensor | tuple[Tensor, ...]]] = {
    "abs": lambda x: x.abs(),
    "add": lambda x, y: x + y,
    "batch_norm": batch_norm,
    "cast": cast,
    "clip": clip,
    "concat": concat,
    "constexpr_affine_dequantize": constexpr_affine_dequantize,
    "constexpr_cast": constexpr_cast,
    "constexpr_lut_to_dense": constexpr_lut_to_dense,
    "constexpr_sparse_to_dense": constexpr_sparse_to_dense,
    "conv": conv,
    "equal": lambda x, y: x == y,
    "expand_dims": expand_dims,
    "floor": lambda x: x.floor(),
    "gather": gather,
    "layer_norm": layer_norm,
    "linear": linear,
    "matmul": matmul,
    "max_pool": max_pool,
    "maximum": lambda x, y: torch.maximum(x, y),
    "minimum": lambda x, y: torch.minimum(x, y),
    "mul": lambda x, y: x * y,
    "pad": pad,
    "real_div": lambda x, y: x / y,
    "reduce_mean": reduce_mean,
    "reduce_sum": reduce_sum,
    "relu": lambda x: x.relu(),
    "resample": resample,
    "reshape": reshape,
    "sigmoid": lambda x: x.sigmoid(),
    "slice_by_index": slice_by_index,
    "softmax": softmax,
    "sqrt": lambda x: x.sqrt(),
    "square": lambda x: x * x,
    "split": split,
    "squeeze": squeeze,
    "stack": stack,
    "sub": lambda x, y: x - y,
    "tile": tile,
    "transpose": transpose,
}
"""Operation type -> function; every one is tested."""
