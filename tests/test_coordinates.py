"""Which operations compute coordinates: the search alone, and on graphs that were exported with every sampler."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from converting import blob_crops, lively_model

from converters.conversion import quiet
from converters.coordinates import origins, reach
from converters.graph import ExportGraph
from converters.onnx_half import LINEAR as LINEAR_TYPES
from converters.onnx_half import coordinate_outputs, to_half
from converters.recipe import Recipe
from converters.rewrites import REWRITES
from tfpose_edge import PRESETS

onnx = pytest.importorskip("onnx")
CONFIG = dataclasses.replace(PRESETS["tiny"], num_decoder_layers=2)
#   image -> conv -> offsets -> add -> cast -> gather -> out        value, like offsets, is a linear layer of conv
GRAPH = {
    "conv": ["image"], "offsets": ["conv"], "value": ["conv"], "add": ["offsets"], "cast": ["add"],
    "fraction": ["add", "cast"], "weigh": ["fraction"], "product": ["weigh", "value"], "relu": ["product"],
}  # fmt: skip
LINEAR = {"conv", "offsets", "value", "product"}


def test_origins_end_at_linear_layers_and_hold_them():
    assert origins(GRAPH, ["add"], LINEAR) == {"add", "offsets"}
    assert origins(GRAPH, ["nothing"], LINEAR) == set()


def test_reach_ends_before_linear_layers():
    assert reach(GRAPH, {"add", "offsets"}, LINEAR) == {"offsets", "add", "cast", "fraction", "weigh"}


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Sampler -> the ONNX model in single precision."""
    from converters import onnx as converter

    found = {}
    with quiet():
        for sampler in ("gather", "grid_sample", "tent"):
            graph = ExportGraph(lively_model(CONFIG), sampler, tuple(REWRITES))
            path = tmp_path_factory.mktemp("exported") / f"{sampler}.onnx"
            converter.convert(graph, graph.example(1, "uint8"), path, Recipe())
            found[sampler] = onnx.load(path)
    return found


def test_every_sampler_has_the_offsets_and_heads_among_its_coordinates(exported):
    for sampler, model in exported.items():
        precise = coordinate_outputs(model.graph)
        linear = [n for n in model.graph.node if n.op_type in LINEAR_TYPES and n.output[0] in precise]
        # one linear layer a deformable attention (one of the encoder, two of the decoder) and one a coordinate head,
        # unless the first layer's offsets were folded into constants
        assert 3 + 1 <= len(linear) <= 3 + 2, (sampler, [n.name for n in linear])
        weights = {t.name: t for t in model.graph.initializer}
        assert sum(weights[n.input[1]].dims[-1] == 2 for n in linear if n.input[1] in weights) == 2, sampler


def test_half_keeps_coordinates_in_single_and_the_rest_in_half(exported):
    for sampler, model in exported.items():
        half = to_half(model)
        onnx.checker.check_model(half, full_check=True)
        stored = {t.name: t.data_type for t in half.graph.initializer}
        single = [t for t in half.graph.initializer if t.data_type == onnx.TensorProto.FLOAT]
        large = [t.name for t in single if np.prod(t.dims) >= 1024]
        precise = coordinate_outputs(half.graph)
        readers = {i: n.output[0] for n in half.graph.node for i in n.input}
        assert all(readers[name] in precise for name in large), (sampler, large)
        convolutions = [n for n in half.graph.node if n.op_type == "Conv"]
        assert {stored[n.input[1]] for n in convolutions} == {onnx.TensorProto.FLOAT16}
        assert [o.type.tensor_type.elem_type for o in half.graph.output] == [onnx.TensorProto.FLOAT] * 2


def test_half_computes_almost_the_same(exported):
    runtime = pytest.importorskip("onnxruntime")
    crops = blob_crops(CONFIG, 4)
    for sampler, model in exported.items():
        half = runtime.InferenceSession(to_half(model).SerializeToString())
        full = runtime.InferenceSession(model.SerializeToString())
        for crop in crops:
            expected, actual = (one.run(None, {"crops": crop[None]})[0] for one in (full, half))
            distance = np.linalg.norm((actual - expected) * CONFIG.input_size_wh, axis=-1)
            assert 0 < distance.max() < 1, sampler


def test_a_weight_beyond_half_is_an_error(exported):
    model = onnx.ModelProto()
    model.CopyFrom(exported["gather"])
    name = next(n.input[1] for n in model.graph.node if n.op_type == "Conv")
    tensor = next(t for t in model.graph.initializer if t.name == name)
    value = onnx.numpy_helper.to_array(tensor).copy()
    value.flat[0] = 1e5
    tensor.CopyFrom(onnx.numpy_helper.from_array(value, name))
    with pytest.raises(OverflowError, match="half holds"):
        to_half(model)
