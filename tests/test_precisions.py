"""fp16 and int8 in every format, through the command line, looked at in the files themselves."""

from __future__ import annotations

import collections
import dataclasses
import json

import numpy as np
import pytest
from converting import blob_crops, lively_model

from converters.__main__ import main
from converters.conversion import quiet
from converters.mil_reference import load_program
from converters.quantize import kept_float, openvino_anatomy
from runtime.sidecar import Sidecar
from tfpose_edge import PRESETS, save_checkpoint
from training.data.calibration import Subjects

CONFIG = dataclasses.replace(PRESETS["tiny"], num_decoder_layers=1)


@pytest.fixture(scope="module")
def convert(tmp_path_factory):
    """Run a conversion of a lively network, on few crops; returns the folder."""
    folder = tmp_path_factory.mktemp("checkpoint")
    save_checkpoint(folder / "best.safetensors", lively_model(CONFIG))
    crops = blob_crops(CONFIG, 16)
    found = tuple(Subjects(some, np.zeros((len(some), 2, 3))) for some in (crops[:4], crops[4:]))

    def run(*arguments):
        output = tmp_path_factory.mktemp("made")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("training.data.calibration.subjects", lambda *_: found)
            assert main([str(folder / "best.safetensors"), "--output", str(output), *arguments]) == 0
        return output

    return run


def test_int8_of_onnx_leaves_coordinates_in_float(convert):
    onnx = pytest.importorskip("onnx")
    folder = convert("--to", "onnx", "--precision", "int8", "--mix", "all", "--accept")
    sidecar = Sidecar.read(folder / "pose-int8.onnx")
    assert sidecar.precision == "int8" and sidecar.provenance["parity_crops"].endswith("int8 from others of them")
    assert json.loads((folder / "pose-int8.onnx.json").read_text())["export"]["mix"] == "all"
    assert sidecar.parity["within_4px"] >= 0.95 and "onnxruntime" in sidecar.provenance["versions"]
    model = onnx.load(folder / "pose-int8.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert not any(tensor.external_data for tensor in model.graph.initializer)
    makers = {output: node for node in model.graph.node for output in node.output}
    quantised = collections.Counter(
        (node.op_type, makers[node.input[1]].op_type == "DequantizeLinear" if node.input[1] in makers else False)
        for node in model.graph.node
        if node.op_type in ("Conv", "MatMul")
    )
    assert quantised["Conv", True] > 5 and quantised["Conv", False] == 1 and quantised["MatMul", True] > 5  # the stem
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    products = [node for node in model.graph.node if node.op_type in ("MatMul", "Gemm")]
    read = [weights[node.input[1]].dims for node in products if node.input[1] in weights]
    floats = [dims for dims in read if len(dims) == 2]  # stacks of matrices stay float, too
    assert 2 <= len(floats) <= 3, floats  # the head's last layer, the encoder's offsets, the decoder's unless folded
    assert sum(2 in dims for dims in floats) == 1


def test_int8_of_onnx_leaves_the_first_convolutions_in_float(convert):
    """Those of maps of half the crop's size: everything reads them."""
    onnx = pytest.importorskip("onnx")
    model = onnx.load(convert("--to", "onnx", "--precision", "int8", "--accept") / "pose-int8.onnx")
    made_by = {output: node.op_type for node in model.graph.node for output in node.output}
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    reads = ["DequantizeLinear" in (made_by.get(name) for name in node.input) for node in convolutions]
    assert reads == [False] + [True] * (len(convolutions) - 1)  # ResNet-10: the stem alone


def test_int8_of_openvino_in_convolutions_alone(convert):
    openvino = pytest.importorskip("openvino")
    folder = convert("--to", "openvino", "--precision", "int8", "--mix", "convolutions", "--accept")
    assert Sidecar.read(folder / "pose-int8.xml").parity["within_4px"] >= 0.95
    model = openvino.Core().read_model(folder / "pose-int8.xml")
    nodes = {"Convolution": [], "MatMul": []}
    for node in model.get_ordered_ops():
        if node.get_type_name() in nodes:
            read = [node.input_value(0).get_node().get_type_name()]
            nodes[node.get_type_name()].append("FakeQuantize" in read)
    assert all(nodes["Convolution"]) and not any(nodes["MatMul"])
    assert (folder / "pose-int8.bin").stat().st_size < 0.9 * 4 * sum(
        p.numel() for p in lively_model(CONFIG).parameters()
    )


def test_openvino_s_search_finds_offsets_and_heads(convert):
    openvino = pytest.importorskip("openvino")
    folder = convert("--to", "openvino", "--precision", "fp16")
    anatomy = openvino_anatomy(openvino.Core().read_model(folder / "pose-fp16.xml"))
    kept = [n for n in kept_float(anatomy, "all") if n in anatomy.weighted and anatomy.kinds[n] == "MatMul"]
    assert 2 <= len(kept) <= 3, kept  # the head's last layer, the encoder's offsets, the decoder's unless folded
    assert Sidecar.read(folder / "pose-fp16.xml").parity["max_px"] < 1


def test_core_ml_in_half_keeps_coordinates_in_single(convert):
    pytest.importorskip("coremltools")
    folder = convert("--to", "coreml", "--precision", "fp16")
    sidecar = Sidecar.read(folder / "pose-fp16.mlpackage")
    assert 0 < sidecar.parity["max_px"] < 1 and sidecar.engines == {"coreml": None}
    assert types_of(folder / "pose-fp16.mlpackage") == {
        ("conv", "fp16"), ("linear", "fp16"), ("linear", "fp32"), ("matmul", "fp16"), ("resample", "fp32"),
    }  # fmt: skip


@pytest.mark.parametrize("mix", ["weights", "palette"])
def test_core_ml_with_small_weights(convert, mix):
    pytest.importorskip("coremltools")
    folder = convert("--to", "coreml", "--precision", "int8", "--mix", mix, "--accept")
    package = folder / "pose-int8.mlpackage"
    assert Sidecar.read(package).parity["within_4px"] >= 0.95
    assert json.loads(package.with_name(package.name + ".json").read_text())["export"]["minimum_target"] == "iOS16"
    operations = list(load_program(package).functions["main"].operations)
    wanted = {"weights": "constexpr_affine_dequantize", "palette": "constexpr_lut_to_dense"}[mix]
    assert sum(op.op_type == wanted for op in operations) > 15
    single = [op for op in operations if op.op_type == "linear" and str(op.outputs[0].dtype).endswith("fp32'>")]
    assert ("resample", "fp32") in types_of(package) and ("resample", "fp16") not in types_of(package)
    assert not any(op.weight.op.op_type.startswith("constexpr") for op in single)


def test_core_ml_takes_an_image(convert):
    pytest.importorskip("coremltools")
    folder = convert("--to", "coreml", "--image-input")
    sidecar = Sidecar.read(folder / "pose.mlpackage")
    assert sidecar.input_dtype == "uint8" and sidecar.parity["max_px"] < 1e-3


def types_of(package):
    """(operation type, type of its result) of what computes much."""
    from coremltools.converters.mil.mil import types

    with quiet():
        operations = load_program(package).functions["main"].operations
    kinds = ("conv", "linear", "matmul", "resample")
    return {(op.op_type, types.builtin_to_string(op.outputs[0].dtype)) for op in operations if op.op_type in kinds}
