"""fp16 that is stored and not computed with: `--precision fp16 --mix storage`."""

from __future__ import annotations

import json

import onnx
import pytest
from converting import lively_model

from converters.__main__ import main
from tfpose_edge import save_checkpoint

HALF = onnx.TensorProto.FLOAT16


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("c") / "tiny.safetensors"
    save_checkpoint(path, lively_model())
    return path


def convert(checkpoint, folder, *more):
    """Exit code of an ONNX conversion into the folder."""
    return main([str(checkpoint), "--to", "onnx", "--output", str(folder), "--crops", "16", *more])


def test_nothing_but_weights_is_in_half(checkpoint, tmp_path):
    """They are cast to single before anything reads them; small constants stay single."""
    assert convert(checkpoint, tmp_path, "--precision", "fp16", "--mix", "storage") == 0
    assert convert(checkpoint, tmp_path) == 0
    graph = onnx.shape_inference.infer_shapes(onnx.load(tmp_path / "pose-fp16.onnx")).graph
    halves = {tensor.name for tensor in graph.initializer if tensor.data_type == HALF}
    readers = [node for node in graph.node if halves & set(node.input)]
    assert halves and {node.op_type for node in readers} == {"Cast"}
    assert not [value.name for value in graph.value_info if value.type.tensor_type.elem_type == HALF]
    sizes = [(tmp_path / name).stat().st_size for name in ("pose-fp16.onnx", "pose.onnx")]
    assert sizes[0] < 0.65 * sizes[1]
    sidecar = json.loads((tmp_path / "pose-fp16.onnx.json").read_text())
    assert sidecar["export"]["mix"] == "storage" and sidecar["parity"]["max_px"] < 0.5


@pytest.mark.parametrize(
    ("more", "legal"),
    [
        (("--precision", "fp16", "--mix", "palette"), "onnx has no mix 'palette' of fp16; legal are auto, arith"),
        (
            ("--precision", "int8", "--mix", "storage"),
            "onnx has no mix 'storage' of int8; legal are auto, conv",
        ),
        (("--mix", "storage"), "onnx has no mix 'storage' of fp32; legal are auto"),
    ],
)
def test_what_a_precision_does_not_mean_is_refused(checkpoint, tmp_path, capsys, more, legal):
    with pytest.raises(SystemExit) as caught:
        convert(checkpoint, tmp_path, *more)
    assert caught.value.code == 2
    assert legal in capsys.readouterr().err and not list(tmp_path.iterdir())
