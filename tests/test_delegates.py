"""ExecuTorch's delegates: names, what is legal, what is counted, and programs that nothing here can run."""

from __future__ import annotations

import pytest
import torch
from torch import fx, nn

from converters.__main__ import in_words
from converters.conversion import Options
from converters.delegation import DELEGATES, Delegation
from converters.pt2e import ADD, CONVOLUTION, is_quantised


def test_a_delegate_is_part_of_executorchs_file_names_only():
    options = Options(delegate="coreml")
    assert options.file_name("executorch") == "pose-coreml.pte" and options.file_name("onnx") == "pose.onnx"
    assert Options().file_name("executorch") == "pose.pte"
    assert Options("int8").file_name("executorch") == "pose-int8.pte"


def test_only_xnnpack_is_run_and_compared():
    verified = {name: Options(delegate=name).is_verifiable("executorch") for name in DELEGATES}
    assert verified == {"xnnpack": True, "coreml": False, "vulkan": False}
    assert Options(delegate="coreml").is_verifiable("onnx")
    assert in_words(None) == ("-", "-", "nothing here: unverified")


def test_each_delegate_has_its_sampler():
    assert Options().sampler_for("executorch") == "float_gather"
    assert Options(delegate="coreml").sampler_for("executorch") == "grid_sample"
    assert Options(delegate="coreml", sampler="gather").sampler_for("executorch") == "gather"


def test_int8_is_for_xnnpack():
    Options("int8").check("executorch")
    with pytest.raises(ValueError, match="int8 is for the delegate xnnpack; for coreml, legal is fp32"):
        Options("int8", delegate="coreml").check("executorch")


def test_a_division_says_and_stores_its_share():
    division = Delegation("xnnpack", 3, 97, {"embedding": 2, "bmm": 1})
    assert division.share == 0.97
    assert str(division) == ("3 xnnpack partitions, 97 of 100 operations inside (97.0%); outside: 2 embedding, 1 bmm")
    assert division.as_json() == {
        "delegate": "xnnpack", "partitions": 3, "operations_inside": 97, "operations_outside": 3, "share": 0.97,
        "outside": {"embedding": 2, "bmm": 1},
    }  # fmt: skip
    assert Delegation("vulkan", 0, 0, {}).share == 0 and "outside: nothing" in str(Delegation("vulkan", 1, 5, {}))


@pytest.mark.parametrize(
    ("target", "name", "kind", "height", "expected"),
    [
        (CONVOLUTION, "network.backbone.layer1.0.conv1", nn.Conv2d, 63, True),
        (CONVOLUTION, "network.backbone.conv1", nn.Conv2d, 64, False),  # half of the crop's rows
        (CONVOLUTION, "network.input_proj.0.1", "converters.xnnpack_forms.PooledGroupNorm", 8, False),
        (ADD, "network.backbone.layer1.0", "tfpose_edge.backbone.BasicBlock", 64, True),
        (ADD, "network.encoder.0", "tfpose_edge.transformer.EncoderLayer", 8, False),
    ],
)
def test_what_is_quantised(target, name, kind, height, expected):
    node = fx.Graph().call_function(target, ())
    node.meta["nn_module_stack"] = {"outer": ("", "converters.graph.ExportGraph"), "inner": (name, kind)}
    node.meta["val"] = torch.empty(1, 4, height, 9, device="meta")
    assert is_quantised(node, crop_height=128) is expected
