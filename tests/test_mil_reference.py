"""The Core ML reference evaluator: each operation against coremltools' own constant folding or a written-out loop."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from mil_programs import IOS15, RANDOM, ct, floats, mb

from converters.mil_operations import OPERATIONS, Unsupported

X, Y, COLUMN = floats(2, 3, 4), floats(2, 3, 4), floats(3, 1)
FOLDED = [  # operations that coremltools computes itself when all inputs are constant
    ("abs", {"x": X}),
    ("add", {"x": X, "y": COLUMN}),
    ("sub", {"x": X, "y": COLUMN}),
    ("mul", {"x": X, "y": Y}),
    ("real_div", {"x": X, "y": np.abs(Y) + 1}),
    ("maximum", {"x": X, "y": COLUMN}),
    ("minimum", {"x": X, "y": COLUMN}),
    ("equal", {"x": np.float32([1, 2, 3]), "y": np.float32([1, 0, 3])}),
    ("floor", {"x": 3 * X}),
    ("relu", {"x": X}),
    ("sigmoid", {"x": X}),
    ("sqrt", {"x": np.abs(X)}),
    ("square", {"x": X}),
    ("clip", {"x": X, "alpha": np.float32(-0.5), "beta": np.float32(0.25)}),
    ("cast", {"x": np.float32([-1.7, -0.2, 0.9, 2.5]), "dtype": "int32"}),
    ("cast", {"x": np.array([True, False]), "dtype": "fp32"}),
    ("softmax", {"x": X, "axis": 1}),
    ("reduce_sum", {"x": X, "axes": [0, 2], "keep_dims": False}),
    ("reduce_mean", {"x": X, "axes": [-1], "keep_dims": True}),
    ("reshape", {"x": X, "shape": [4, -1]}),
    ("transpose", {"x": X, "perm": [2, 0, 1]}),
    ("expand_dims", {"x": X, "axes": [0, 2, -1]}),
    ("squeeze", {"x": floats(1, 3, 1, 2), "axes": [0, 2]}),
    ("squeeze", {"x": floats(1, 3, 1, 2)}),
    ("concat", {"values": [X, Y], "axis": 1}),
    ("stack", {"values": [X, Y], "axis": -1}),
    ("tile", {"x": X, "reps": [1, 2, 3]}),
    ("slice_by_index", {"x": X, "begin": [0, 1, -3], "end": [2, 3, -1]}),
    ("slice_by_index", {"x": X, "begin": [0, 0, 1], "end": [1, 2, 4], "stride": [1, 1, 2]}),
    (
        "slice_by_index",
        {"x": X, "begin": [1, 1, 1], "end": [1, 2, 2], "begin_mask": [False, True, False],
         "end_mask": [False, False, True], "squeeze_mask": [True, False, False]},
    ),
    ("gather", {"x": X, "indices": np.int32([[2, 0], [1, 1]]), "axis": 1}),
    ("gather", {"x": X, "indices": np.int32([-1, 0]), "axis": 2}),
    ("matmul", {"x": X, "y": floats(4, 5)}),
    ("matmul", {"x": X, "y": Y, "transpose_x": True, "transpose_y": False}),
    ("matmul", {"x": X, "y": Y, "transpose_x": False, "transpose_y": True}),
    ("linear", {"x": floats(3, 4), "weight": floats(5, 4), "bias": floats(5)}),
    ("linear", {"x": floats(3, 4), "weight": floats(5, 4)}),
    ("layer_norm", {"x": X, "axes": [-1], "gamma": floats(4), "beta": floats(4), "epsilon": np.float32(0.1)}),
    ("layer_norm", {"x": X, "axes": [1, 2], "epsilon": np.float32(1e-3)}),
]  # fmt: skip
LOOPS = {"conv", "max_pool", "batch_norm", "pad", "resample", "split"}
BYTES, SHORT_LUT = RANDOM.integers(0, 255, 200).astype(np.uint8), floats(16)
SMALL_WEIGHTS = [  # of iOS 16, which coremltools decompresses itself
    ("constexpr_affine_dequantize", {
        "quantized_data": BYTES[:24].reshape(4, 6).view(np.int8), "zero_point": np.int8([1, -3, 0, 100]),
        "scale": np.float32([0.5, 2, 1, 0.1]), "axis": np.int32(0),
    }),
    ("constexpr_affine_dequantize", {
        "quantized_data": BYTES[:24].reshape(4, 6), "zero_point": np.uint8(7), "scale": np.float32(0.25),
        "axis": np.int32(1),
    }),
    ("constexpr_lut_to_dense", {"indices": BYTES[:8], "lut": SHORT_LUT, "shape": np.uint32([3, 5])}),
    ("constexpr_lut_to_dense", {"indices": BYTES[:12], "lut": floats(64), "shape": np.uint32([5, 3])}),
    ("constexpr_lut_to_dense", {"indices": BYTES[:2], "lut": floats(2), "shape": np.uint32([9])}),
    ("constexpr_lut_to_dense", {"indices": BYTES[:6], "lut": floats(256), "shape": np.uint32([2, 3])}),
    ("constexpr_sparse_to_dense", {
        "nonzero_data": floats(7), "mask": np.uint8([0b10110001, 0b00000111]), "shape": np.uint32([3, 4]),
    }),
    ("constexpr_cast", {"source_val": floats(2, 3).astype(np.float16), "output_dtype": "fp32"}),
]  # fmt: skip


def tensors(arguments):
    """Arguments as the evaluator passes them on."""

    def convert(value):
        return value if isinstance(value, str) else torch.from_numpy(np.array(value))

    return {
        name: [convert(v) for v in value] if name == "values" else convert(value) for name, value in arguments.items()
    }


def folded(operation, arguments, target=IOS15):
    """The value that coremltools computes."""
    values = []

    @mb.program(input_specs=[], opset_version=target)
    def program():
        result = getattr(mb, operation)(**arguments)
        values.append(result.op.materialized_val_inference() if operation.startswith("constexpr") else result.val)
        return mb.const(val=0)

    return values[0]


@pytest.mark.parametrize(("operation", "arguments"), FOLDED, ids=[f"{i}-{o}" for i, (o, _) in enumerate(FOLDED)])
def test_operations_agree_with_constant_folding(operation, arguments):
    expected = folded(operation, arguments)
    if expected is None:
        pytest.fail(f"coremltools does not fold {operation}: write a loop for it")
    actual = OPERATIONS[operation](**tensors(arguments)).numpy()
    assert actual.shape == expected.shape
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("operation", "arguments"), SMALL_WEIGHTS)
def test_small_weights_agree_with_coremltools(operation, arguments):
    expected = folded(operation, arguments, ct.target.iOS16)
    actual = OPERATIONS[operation](**tensors(arguments)).numpy()
    assert actual.shape == expected.shape and actual.dtype == expected.dtype
    np.testing.assert_allclose(actual, expected, rtol=1e-6)


def test_indices_of_palettes_lie_lowest_bit_first():
    packed = np.uint8([0b01_10_11_00, 0b11])  # the example of coremltools' documentation: 0, 3, 2, 1, 3
    arguments = {"indices": packed, "lut": np.float32([0, 10, 20, 30]), "shape": np.uint32([5])}
    assert OPERATIONS["constexpr_lut_to_dense"](**tensors(arguments)).tolist() == [0, 30, 20, 10, 30]


def test_every_operation_is_tested():
    assert {operation for operation, _ in FOLDED + SMALL_WEIGHTS} | LOOPS == set(OPERATIONS)


def test_conv_agrees_with_a_loop():
    x, weight, bias = floats(1, 4, 5, 6), floats(6, 2, 3, 2), floats(6)
    arguments = {"strides": [2, 1], "pad_type": "custom", "pad": [1, 0, 2, 1], "dilations": [1, 2], "groups": 2}
    actual = OPERATIONS["conv"](**tensors({"x": x, "weight": weight, "bias": bias, **arguments}))
    padded = np.pad(x, ((0, 0), (0, 0), (1, 0), (2, 1)))
    expected = np.zeros((1, 6, 2, 7), dtype=np.float32)
    for c, i, j in itertools.product(range(6), range(2), range(7)):
        window = padded[0, c // 3 * 2 : c // 3 * 2 + 2, 2 * i : 2 * i + 3, j : j + 3 : 2]
        expected[0, c, i, j] = (window * weight[c]).sum() + bias[c]
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


def test_max_pool_agrees_with_a_loop_and_ignores_its_padding():
    x = -np.abs(floats(1, 2, 5, 4)) - 1
    arguments = {"kernel_sizes": [3, 2], "strides": [2, 2], "pad_type": "custom", "pad": [1, 1, 1, 1]}
    actual = OPERATIONS["max_pool"](**tensors({"x": x, **arguments}))
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=-np.inf)
    expected = np.zeros((1, 2, 3, 3), dtype=np.float32)
    for i, j in itertools.product(range(3), range(3)):
        expected[:, :, i, j] = padded[:, :, 2 * i : 2 * i + 3, 2 * j : 2 * j + 2].max(axis=(2, 3))
    np.testing.assert_array_equal(actual, expected)


def test_batch_norm_agrees_with_its_formula():
    x, mean, variance, gamma, beta = floats(2, 3, 4, 5), floats(3), np.abs(floats(3)), floats(3), floats(3)
    arguments = {"mean": mean, "variance": variance, "gamma": gamma, "beta": beta, "epsilon": np.float32(0.1)}
    actual = OPERATIONS["batch_norm"](**tensors({"x": x, **arguments}))
    expected = [(x[:, c] - mean[c]) / np.sqrt(variance[c] + 0.1) * gamma[c] + beta[c] for c in range(3)]
    np.testing.assert_allclose(actual, np.stack(expected, axis=1), rtol=1e-4, atol=1e-5)


def test_pad_agrees_with_numpy():
    actual = OPERATIONS["pad"](**tensors({"x": X, "pad": [1, 2, 0, 3], "mode": "constant", "constant_val": 7.0}))
    np.testing.assert_array_equal(actual, np.pad(X, ((0, 0), (1, 2), (0, 3)), constant_values=7))


def test_split_agrees_with_numpy():
    actual = OPERATIONS["split"](**tensors({"x": X, "axis": np.int32(2), "split_sizes": np.int32([1, 3])}))
    for part, expected in zip(actual, np.split(X, [1], axis=2), strict=True):
        np.testing.assert_array_equal(part, expected)


@pytest.mark.parametrize("align_corners", [False, True])
def test_resample_agrees_with_a_loop(align_corners):
    x, coordinates = floats(2, 3, 4, 5), (1.4 * RANDOM.uniform(-1, 1, (2, 3, 2, 2))).astype(np.float32)
    arguments = resample_arguments(x, coordinates, align_corners=align_corners)
    expected = np.zeros((2, 3, 3, 2), dtype=np.float32)
    for n, i, j in itertools.product(range(2), range(3), range(2)):
        u, v = coordinates[n, i, j]
        column = (u + 1) / 2 * 4 if align_corners else (u + 1) / 2 * 5 - 0.5
        row = (v + 1) / 2 * 3 if align_corners else (v + 1) / 2 * 4 - 0.5
        for r, c in itertools.product(range(4), range(5)):
            expected[n, :, i, j] += max(0, 1 - abs(row - r)) * max(0, 1 - abs(column - c)) * x[n, :, r, c]
    np.testing.assert_allclose(OPERATIONS["resample"](**tensors(arguments)), expected, rtol=1e-4, atol=1e-5)


def resample_arguments(x, coordinates, **changes):
    fixed = {"sampling_mode": "bilinear", "padding_mode": "constant", "padding_value": np.float32(0)}
    fixed |= {"coordinates_mode": "normalized_minus_one_to_one", "align_corners": False}
    return {"x": x, "coordinates": coordinates, **fixed, **changes}


@pytest.mark.parametrize(
    ("operation", "arguments"),
    [
        ("resample", resample_arguments(floats(1, 1, 2, 2), floats(1, 1, 1, 2), padding_mode="border")),
        ("resample", resample_arguments(floats(1, 1, 2, 2), floats(1, 1, 1, 2), sampling_mode="nearest")),
        ("conv", {"x": floats(1, 1, 3, 3), "weight": floats(1, 1, 2, 2), "pad_type": "same"}),
        ("max_pool", {"x": floats(1, 1, 3, 3), "kernel_sizes": [2, 2], "ceil_mode": True}),
        ("slice_by_index", {"x": X, "begin": [0, 0, 3], "end": [2, 3, 0], "stride": [1, 1, -1]}),
        ("layer_norm", {"x": X, "axes": [0]}),
        ("gather", {"x": X, "indices": np.int32([[0], [0]]), "axis": 1, "batch_dims": 1}),
        ("concat", {"values": [X, Y], "axis": 1, "interleave": True}),
        ("pad", {"x": X, "pad": [1, 1], "mode": "reflect"}),
        ("cast", {"x": X, "dtype": "string"}),
        ("constexpr_lut_to_dense", {"indices": BYTES, "lut": floats(5), "shape": np.uint32([3])}),
        ("constexpr_cast", {"source_val": X, "output_dtype": "fp16"}),
    ],
)
def test_what_is_not_implemented_is_refused(operation, arguments):
    with pytest.raises(Unsupported, match="implemented: "):
        OPERATIONS[operation](**tensors(arguments))
