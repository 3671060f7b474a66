"""Whole programs in the Core ML reference evaluator: precision, images, and what it refuses."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from mil_programs import IOS15, ct, floats, mb

from converters.errors import ConversionError
from converters.mil_reference import MilReference


def save_program(path, precision, function):
    """A package with one (2, 3) input `crops` whose output is `function(crops)`."""

    @mb.program(input_specs=[mb.TensorSpec(shape=(2, 3))], opset_version=IOS15)
    def program(crops):
        return function(crops)

    logging.disable(logging.WARNING)
    model = ct.convert(
        program, minimum_deployment_target=IOS15, compute_precision=precision, skip_model_load=True,
        outputs=[ct.TensorType(dtype=np.float32)],
    )  # fmt: skip
    model.save(str(path))
    logging.disable(logging.NOTSET)
    return path


def only_output(path, x):
    (output,) = MilReference(path).run({"crops": torch.from_numpy(x)}).values()
    return output.numpy()


def test_results_have_the_precision_that_the_program_states(tmp_path):
    x = floats(2, 3)

    def function(x):
        return mb.mul(x=mb.add(x=x, y=np.float32(1000)), y=np.float32(3))

    single = only_output(save_program(tmp_path / "single.mlpackage", ct.precision.FLOAT32, function), x)
    half = only_output(save_program(tmp_path / "half.mlpackage", ct.precision.FLOAT16, function), x)
    np.testing.assert_array_equal(single, (x + np.float32(1000)) * np.float32(3))
    np.testing.assert_array_equal(half, (x.astype(np.float16) + np.float16(1000)) * np.float16(3))


def test_half_is_rounded_after_each_operation_and_not_inside(tmp_path):
    x = np.float32([[2048, 1, 1], [60000, 60000, -60000]])  # 2049 is no half, 120000 is beyond all

    def function(x):
        return mb.reduce_sum(x=x, axes=[1], keep_dims=True)

    half = only_output(save_program(tmp_path / "half.mlpackage", ct.precision.FLOAT16, function), x)
    np.testing.assert_array_equal(half.reshape(-1), [2050, 60000])


@pytest.mark.parametrize("order", ["RGB", "BGR"])
def test_images_are_fed_in_their_own_order(tmp_path, order):
    @mb.program(input_specs=[mb.TensorSpec(shape=(1, 3, 2, 2))], opset_version=IOS15)
    def program(crops):
        return mb.mul(x=crops, y=np.float32([1, 10, 100]).reshape(1, 3, 1, 1), name="weighed")

    logging.disable(logging.WARNING)
    layout = getattr(ct.colorlayout, order)
    model = ct.convert(
        program, minimum_deployment_target=IOS15, compute_precision=ct.precision.FLOAT32, skip_model_load=True,
        inputs=[ct.ImageType("crops", (1, 3, 2, 2), color_layout=layout)],
    )  # fmt: skip
    model.save(str(tmp_path / "a.mlpackage"))
    logging.disable(logging.NOTSET)
    reference = MilReference(tmp_path / "a.mlpackage")
    crops = np.zeros((1, 3, 2, 2), np.uint8) + np.uint8([1, 2, 3])[:, None, None]
    (output,) = reference.run({"crops": reference.as_fed(crops)}).values()
    expected = [1, 20, 300] if order == "RGB" else [3, 20, 100]
    assert output[0, :, 0, 0].tolist() == expected
    with pytest.raises(ConversionError, match="takes one uint8 image, not float32"):
        reference.infer(crops.astype(np.float32))


def test_the_file_is_what_is_evaluated(tmp_path):
    weight, x = floats(40, 3), floats(2, 3)
    path = save_program(tmp_path / "a.mlpackage", ct.precision.FLOAT32, lambda x: mb.linear(x=x, weight=weight))
    np.testing.assert_allclose(only_output(path, x), x @ weight.T, rtol=1e-5, atol=1e-6)
    (weights_file,) = path.rglob("weight.bin")
    stored = weights_file.read_bytes()
    weights_file.write_bytes(stored.replace(weight.tobytes(), (2 * weight).tobytes()))
    np.testing.assert_allclose(only_output(path, x), x @ (2 * weight).T, rtol=1e-5, atol=1e-6)


def test_an_unknown_operation_is_named(tmp_path):
    path = save_program(tmp_path / "a.mlpackage", ct.precision.FLOAT32, lambda x: mb.erf(x=x))
    with pytest.raises(ConversionError, match="does not know the operation erf"):
        MilReference(path)


def test_an_operation_that_cannot_run_is_named(tmp_path):
    path = save_program(
        tmp_path / "a.mlpackage", ct.precision.FLOAT32,
        lambda x: mb.slice_by_index(x=x, begin=[1, 0], end=[0, 3], stride=[-1, 1]),
    )  # fmt: skip
    with pytest.raises(ConversionError, match=r"operation slice_by_index .* stride = -1"):
        only_output(path, floats(2, 3))


def test_a_program_without_the_outputs_of_a_pose_is_refused(tmp_path):
    path = save_program(tmp_path / "a.mlpackage", ct.precision.FLOAT32, lambda x: mb.square(x=x, name="keypoints"))
    with pytest.raises(ConversionError, match="has no output scores"):
        MilReference(path).infer(floats(2, 3))


@pytest.mark.parametrize("content", [None, b"no package"])
def test_what_is_not_a_package_is_refused(tmp_path, content):
    path = tmp_path / "a.mlpackage"
    if content:
        path.write_bytes(content)
    with pytest.raises(ConversionError, match="not readable as a Core ML package"):
        MilReference(path)
