"""Four formats from one checkpoint, through the command line, read back by what will use them."""

from __future__ import annotations

import dataclasses
import json
import logging

import numpy as np
import pytest
from converting import blob_crops, lively_model

import runtime
from converters.__main__ import main
from converters.conversion import quiet
from converters.formats import FORMATS
from converters.mil_reference import MilReference, load_program
from runtime.backends import open_backend
from runtime.sidecar import Sidecar
from tfpose_edge import PRESETS, save_checkpoint

CONFIG = dataclasses.replace(PRESETS["tiny"], num_decoder_layers=1)
RUNNABLE = [name for name in FORMATS if name != "coreml"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The output folder of one conversion to everything, and its JSON table."""
    folder = tmp_path_factory.mktemp("made")
    save_checkpoint(folder / "best.safetensors", lively_model(CONFIG), {"epochs": 3})
    command = [str(folder / "best.safetensors"), "--output", str(folder / "out"), "--json", str(folder / "table.json")]
    assert main([*command, "--to", *FORMATS]) == 0
    return folder / "out", json.loads((folder / "table.json").read_text())


def artifact(made, name):
    return made[0] / FORMATS[name].file_name("fp32")


def test_the_folder_holds_artifacts_and_sidecars_only(made):
    expected = {"pose.onnx", "pose.xml", "pose.bin", "pose.pte", "pose.mlpackage"}
    expected |= {f"{name}.json" for name in expected - {"pose.bin"}}
    assert {path.name for path in made[0].iterdir()} == expected


@pytest.mark.parametrize("row", range(len(FORMATS)), ids=FORMATS)
def test_key_points_are_those_of_the_checkpoint(made, row):
    parity = made[1][row]["parity"]
    assert parity["images"] == 64 and parity["meaningful"] and parity["motion_px"] > 1
    assert parity["max_px"] <= 1e-3 and parity["p99_px"] <= parity["max_px"] and not parity["accepted"]
    assert parity["within_1px"] == parity["within_4px"] == 1
    assert parity["max_score_difference"] <= 1e-4


@pytest.mark.parametrize("name", FORMATS)
def test_sidecars_are_read_by_the_runtime(made, name):
    sidecar = Sidecar.read(artifact(made, name))
    sidecar.verify(artifact(made, name))
    assert sidecar.input_dtype == FORMATS[name].input_dtype
    assert sidecar.input_size_wh == CONFIG.input_size_wh and sidecar.padding == CONFIG.padding
    assert sidecar.keypoint_names == CONFIG.keypoint_names and (5, 7) in sidecar.skeleton
    assert (1, 2) in sidecar.flip_pairs and len(sidecar.sigmas) == 17
    assert (sidecar.batch, sidecar.precision, sidecar.sampler) == (1, "fp32", FORMATS[name].sampler)
    assert "sample_then_project" in sidecar.rewrites
    assert sidecar.provenance["training"] == {"epochs": 3}
    assert str(made[0].parent) not in artifact(made, name).with_name(artifact(made, name).name + ".json").read_text()


@pytest.mark.parametrize("name", FORMATS)
def test_sidecars_name_the_engine_that_verified(made, name):
    sidecar = Sidecar.read(artifact(made, name))
    (engine, version), *others = sidecar.engines.items()
    assert engine == FORMATS[name].engine and not others
    if name in RUNNABLE:
        assert version[0].isdigit() and sidecar.parity["engine"] == engine


def test_executorch_is_divided_once_for_each_look_up(made):
    sidecar = json.loads(artifact(made, "executorch").with_name("pose.pte.json").read_text())
    found, layers = sidecar["export"]["delegation"], CONFIG.num_encoder_layers + CONFIG.num_decoder_layers
    assert found["delegate"] == "xnnpack" and found["partitions"] == layers + 1
    # a layer's look-up and sum, and the cast of its indices, which are constant in the first decoder layer
    assert found["outside"] == {"embedding": layers, "bmm": layers, "_to_dim_order_copy": layers - 1}
    assert found["share"] > 0.97 and found["operations_inside"] > 150


@pytest.mark.parametrize("name", RUNNABLE)
def test_the_runtime_opens_artifacts(made, name):
    image = np.random.default_rng(0).integers(0, 255, (200, 150, 3), dtype=np.uint8)
    with runtime.Pose(artifact(made, name)) as pose:
        result = pose(image, [[10, 10, 90, 180], [0, 0, 150, 200]])
    assert result.keypoints_xy.shape == (2, 17, 2) and result.scores.min() >= 0


def test_formats_agree_with_each_other(made):
    crops = blob_crops(CONFIG, 3)
    backends = {name: open_backend(artifact(made, name)) for name in RUNNABLE}
    with quiet():
        backends["coreml"] = MilReference(artifact(made, "coreml"))
    for crop in crops:
        all_keypoints = [b.infer(crop[None].astype(FORMATS[name].input_dtype))[0] for name, b in backends.items()]
        assert np.ptp(np.stack(all_keypoints), axis=0).max() < 1e-4


def test_onnx_is_one_checked_file_that_keeps_no_source_paths(made):
    onnx = pytest.importorskip("onnx")
    content = artifact(made, "onnx").read_bytes()
    model = onnx.load_from_string(content)
    onnx.checker.check_model(model, full_check=True)
    assert [entry.version for entry in model.opset_import if entry.domain == ""] == [20]
    assert not any(tensor.external_data for tensor in model.graph.initializer)
    assert b"converters" not in content and b".py" not in content
    (crops,), outputs = model.graph.input, model.graph.output
    assert crops.name == "crops" and crops.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert [d.dim_value for d in crops.type.tensor_type.shape.dim] == [1, 3, 128, 96]
    assert [(o.name, o.type.tensor_type.elem_type) for o in outputs] == [("keypoints", 1), ("scores", 1)]
    assert [[d.dim_value for d in o.type.tensor_type.shape.dim] for o in outputs] == [[1, 17, 2], [1, 17]]


def test_openvino_is_static_with_uint8_input(made):
    model = pytest.importorskip("openvino").Core().read_model(artifact(made, "openvino"))
    assert [o.any_name for o in model.outputs] == ["keypoints", "scores"]
    assert model.input("crops").element_type.to_string() == "u8"
    assert list(model.input("crops").shape) == [1, 3, 128, 96]
    assert {o.element_type.to_string() for o in model.outputs} == {"f32"}


def test_core_ml_states_types_target_and_low_ranks(made):
    coremltools = pytest.importorskip("coremltools")
    logging.disable(logging.WARNING)
    spec = coremltools.utils.load_spec(str(artifact(made, "coreml")))
    logging.disable(logging.NOTSET)
    assert spec.specificationVersion == 6  # iOS 15
    (crops,), outputs = spec.description.input, spec.description.output
    assert crops.name == "crops" and list(crops.type.multiArrayType.shape) == [1, 3, 128, 96]
    assert [o.name for o in outputs] == ["keypoints", "scores"]
    single = coremltools.proto.FeatureTypes_pb2.ArrayFeatureType.FLOAT32
    assert {feature.type.multiArrayType.dataType for feature in (crops, *outputs)} == {single}
    operations = load_program(artifact(made, "coreml")).functions["main"].operations
    assert max(len(v.shape) for op in operations if op.op_type != "const" for v in op.outputs) <= 5


def test_a_batch_of_four(tmp_path):
    save_checkpoint(tmp_path / "best.safetensors", lively_model(CONFIG))
    assert main([str(tmp_path / "best.safetensors"), "--to", "onnx", "--batch", "4"]) == 0
    sidecar = Sidecar.read(tmp_path / "pose.onnx")
    assert sidecar.batch == 4 and sidecar.parity["max_px"] <= 1e-3
    image = np.random.default_rng(0).integers(0, 255, (200, 150, 3), dtype=np.uint8)
    with runtime.Pose(tmp_path / "pose.onnx") as pose:
        boxes = np.array([[10, 10, 90, 180], [0, 0, 150, 200], [30, 20, 100, 90], [5, 0, 70, 90], [0, 0, 60, 80]])
        together = pose(image, boxes).keypoints_xy
        alone = np.concatenate([pose(image, box[None]).keypoints_xy for box in boxes])
    np.testing.assert_allclose(together, alone, atol=1e-3)
