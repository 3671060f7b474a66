"""--explain and --decoder-layers: what they say is what they did."""

from __future__ import annotations

import dataclasses
import json
import re

import pytest
import torch
from converting import blob_crops, lively_model

from converters import explain
from converters.__main__ import main
from converters.graph import ExportGraph
from converters.rewrites import REWRITES, rewrites_for
from runtime.sidecar import Sidecar
from tfpose_edge import PRESETS, save_checkpoint

TINY = PRESETS["tiny"]
SMALL = dataclasses.replace(TINY, num_decoder_layers=1, backbone_width=8, input_size_wh=(64, 64))


@torch.no_grad()
def test_steps_grow_from_as_trained_to_everything():
    model, crops = lively_model(), torch.from_numpy(blob_crops(TINY, 2))
    steps = explain.growing(model, "gather", rewrites_for("onnx"))
    names = ["as trained", *rewrites_for("onnx")]
    names.insert(names.index("sample_then_project") + 1, "sampler gather")
    assert [name for name, _ in steps] == names
    expected = model(crops.float()).keypoints
    for name, graph in steps:
        assert (graph(crops)[0] - expected).abs().max() < 2e-5, name
    assert [name for name, _ in explain.growing(model, "tent", ("fold_batchnorm",))][-1] == "sampler tent"


def test_operations_and_multiply_adds_are_counted():
    model = lively_model()
    naive, whole = ExportGraph(model, "grid_sample"), ExportGraph(model, "gather", tuple(REWRITES))
    assert explain.operations(whole) < explain.operations(naive)
    assert explain.operations(ExportGraph(model, "grid_sample", ("fold_batchnorm",))) == explain.operations(naive) - 12
    tokens, channels, points = sum(h * w for h, w in TINY.spatial_shapes), TINY.d_model, 17 * TINY.n_heads
    projected = ExportGraph(model, "grid_sample", ("sample_then_project",))
    saved = 3 * channels * (tokens * channels - points * channels // TINY.n_heads) / 1e9  # of three decoder layers
    assert explain.gmacs(naive) - explain.gmacs(projected) == pytest.approx(saved, rel=1e-6)


def test_explain_prints_a_line_for_each_step(tmp_path, capsys):
    save_checkpoint(tmp_path / "best.safetensors", lively_model(SMALL))
    command = [str(tmp_path / "best.safetensors"), "--to", "onnx", "--explain", "--crops", "2"]
    assert main([*command, "--rewrites", "fold_batchnorm,sample_then_project"]) == 0
    lines = capsys.readouterr().out.split("\n\nonnx\n")[1].strip().splitlines()[1:]
    assert [line.split()[0] for line in lines] == ["as", "fold_batchnorm", "sample_then_project", "sampler"]
    assert all(re.search(r" \d+\.\d\d +[+-]\d+\.\d\d(  |$)", line) for line in lines)


@torch.no_grad()
@pytest.mark.parametrize("rewrites", [(), tuple(REWRITES)], ids=["none", "all"])
def test_fewer_decoder_layers_are_the_first_ones(rewrites):
    model, crops = lively_model(), torch.from_numpy(blob_crops(TINY, 2))
    per_layer = model(crops.float()).per_layer
    for count in (1, 2, 3):
        keypoints, _ = ExportGraph(model, "gather", rewrites, decoder_layers=count)(crops)
        assert (keypoints - per_layer[count - 1]).abs().max() < 2e-5
    for count in (0, 4):
        with pytest.raises(ValueError, match=f"decoder_layers is {count}; this network has 3"):
            ExportGraph(model, "gather", rewrites, decoder_layers=count)


def test_decoder_layers_are_checked_and_recorded(tmp_path, capsys):
    checkpoint = tmp_path / "best.safetensors"
    save_checkpoint(checkpoint, lively_model(dataclasses.replace(SMALL, num_decoder_layers=2)))
    command = [str(checkpoint), "--to", "onnx", "--crops", "2"]
    assert main([*command, "--decoder-layers", "3"]) == 3
    assert "--decoder-layers 3: the network has 2; legal are 1..2" in capsys.readouterr().err
    assert main([*command, "--decoder-layers", "1"]) == 3
    assert "nothing written" in capsys.readouterr().err and not (tmp_path / "pose.onnx").exists()
    assert main([*command, "--decoder-layers", "1", "--accept"]) == 0
    written = json.loads((tmp_path / "pose.onnx.json").read_text())
    assert written["decoder_layers"] == 1 and written["parity"]["accepted"]
    assert Sidecar.read(tmp_path / "pose.onnx").rewrites == rewrites_for("onnx")
    with pytest.raises(SystemExit, match="2"):
        main([*command, "--decoder-layers", "0"])
