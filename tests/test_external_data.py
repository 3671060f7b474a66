"""ONNX files that lead to other files are refused by the runtime itself, and the engine would not follow either."""

from __future__ import annotations

import os

import numpy as np
import onnx
import pytest
from conftest import write_sidecar
from onnx import TensorProto, helper, numpy_helper

import runtime
from runtime.backends import onnxruntime as backend
from runtime.backends import open_backend
from runtime.backends.onnx_tensors import has_external_tensors
from runtime.errors import ModelFileError


def outside(location="weights.data"):
    """A tensor whose numbers lie in another file."""
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[2], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=location)
    return tensor


def constant(tensor):
    return helper.make_node("Constant", [], ["w"], value=tensor)


def graph(nodes=(), tensors=()):
    return helper.make_graph(list(nodes), "g", [], [], list(tensors))


def branch(inner):
    return helper.make_node("If", ["c"], ["w"], then_branch=inner, else_branch=graph())


def sparse(values):
    indices = numpy_helper.from_array(np.array([0, 1]), "i")
    return helper.make_sparse_tensor(values, indices, [4])


PLACES = {
    "initializer": lambda t: helper.make_model(graph(tensors=[t])),
    "constant": lambda t: helper.make_model(graph([constant(t)])),
    "branch": lambda t: helper.make_model(graph([branch(graph([constant(t)]))])),
    "branch of a branch": lambda t: helper.make_model(graph([branch(graph([branch(graph(tensors=[t]))]))])),
    "list of tensors": lambda t: helper.make_model(graph([helper.make_node("Odd", [], ["w"], many=[t])])),
    "list of graphs": lambda t: helper.make_model(graph([helper.make_node("Odd", [], ["w"], many=[graph([], [t])])])),
    "sparse attribute": lambda t: helper.make_model(
        graph([helper.make_node("Constant", [], ["w"], sparse_value=sparse(t))])
    ),
    "function": lambda t: helper.make_model(
        graph(), functions=[helper.make_function("d", "f", [], ["w"], [constant(t)], [helper.make_opsetid("", 20)])]
    ),
}


def in_sparse_initializer(tensor):
    model = helper.make_model(graph())
    model.graph.sparse_initializer.append(sparse(tensor))
    return model


def in_training(tensor):
    model = helper.make_model(graph())
    model.training_info.add().initialization.CopyFrom(graph(tensors=[tensor]))
    return model


PLACES |= {"sparse initializer": in_sparse_initializer, "training": in_training}


@pytest.mark.parametrize("place", PLACES)
def test_external_data_is_found_wherever_a_tensor_can_be(place):
    inside = numpy_helper.from_array(np.float32([1, 2]), "w")
    assert has_external_tensors(PLACES[place](outside()).SerializeToString())
    assert not has_external_tensors(PLACES[place](inside).SerializeToString())


def test_a_location_alone_or_an_entry_alone_is_enough():
    only_location = TensorProto(data_location=TensorProto.EXTERNAL)
    only_entry = TensorProto()
    only_entry.external_data.add(key="location", value="x")
    for tensor in (only_location, only_entry):
        assert has_external_tensors(helper.make_model(graph(tensors=[tensor])).SerializeToString())


def test_the_packaged_model_is_self_contained():
    assert not has_external_tensors(runtime.Pose().path.read_bytes())


@pytest.mark.parametrize("content", [b"\xff" * 40, b"\x0b", b"\x3a\xff\x01", b"\x3a", b"\x3c\x01"])
def test_bytes_that_are_no_protocol_buffer_are_an_error(content):
    with pytest.raises(ValueError):
        has_external_tensors(content)


def test_endless_nesting_is_an_error():
    inner = graph()
    for _ in range(25):
        inner = graph([branch(inner)])
    with pytest.raises(ValueError, match="nested deeper than 64"):
        has_external_tensors(helper.make_model(inner).SerializeToString())


LINKS = {"beside": None, "hard link": os.link, "symbolic link": os.symlink}


@pytest.mark.parametrize("how", LINKS)
@pytest.mark.parametrize("scanned", [True, False], ids=["by the runtime", "by the engine alone"])
def test_weights_in_another_file_are_never_read(centroid_onnx, tmp_path, monkeypatch, how, scanned):
    """By reading the file first; and with that switched off, because the engine is given bytes and no folder."""
    import onnxruntime

    monkeypatch.chdir(centroid_onnx.parent)
    onnx.save(
        onnx.load(centroid_onnx), centroid_onnx, save_as_external_data=True, location="weights.data", size_threshold=100
    )
    if LINKS[how]:
        (centroid_onnx.parent / "weights.data").rename(tmp_path / "secret")
        LINKS[how](tmp_path / "secret", centroid_onnx.parent / "weights.data")
    if how != "symbolic link":
        onnxruntime.InferenceSession(str(centroid_onnx))  # given the path, the engine would follow
    write_sidecar(centroid_onnx)
    if not scanned:
        monkeypatch.setattr(backend, "has_external_tensors", lambda model: False)
    with pytest.raises(ModelFileError, match=r"external data" if scanned else r"[Ee]xternal"):
        open_backend(centroid_onnx)
    with pytest.raises(ModelFileError):
        runtime.Pose(centroid_onnx)
