"""--explain, --decoder-layers and the benchmark of export graphs: what they say is what they did."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import pytest
import torch
from converting import blob_crops, lively_model

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # benchmarks is a folder of the checkout

from converters import explain
from converters.graph import ExportGraph
from converters.rewrites import REWRITES, rewrites_for
from tfpose_edge import PRESETS

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
