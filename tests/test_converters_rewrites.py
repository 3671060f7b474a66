"""The export graph: every rewrite is exact, alone and together, with every sampler; the model stays as it was."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
from converting import blob_crops, lively_model
from torch import nn

from converters.graph import ExportGraph
from converters.rewrites import REWRITES, SampleThenProject
from tfpose_edge import PRESETS
from tfpose_edge.attention import SAMPLERS, DeformableAttention, get_sampler

TINY = PRESETS["tiny"]
CONFIGS = {
    "tiny": TINY,
    "no encoder, C2..C5": dataclasses.replace(TINY, num_encoder_layers=0, levels=(2, 3, 4, 5)),
    "no q2q, bottlenecks": dataclasses.replace(
        TINY, query_self_attention=False, backbone="resnet50", backbone_width=8, input_size_wh=(64, 64)
    ),
}
EXPORTABLE = [name for name in SAMPLERS if name != "fused"]
CHOICES = [(), *[(name,) for name in REWRITES], tuple(REWRITES)]


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Many small operations: on a busy machine, threads that wait for each other take most of the time."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module", params=CONFIGS.values(), ids=CONFIGS)
def trained(request):
    """(model, crops, its key points and scores)."""
    model, crops = lively_model(request.param), torch.from_numpy(blob_crops(request.param, 3))
    with torch.no_grad():
        output = model(crops.float())
    spread = (output.keypoints - output.keypoints.mean(0)).abs().max()
    assert spread > 0.01, "the key points of this model do not move: the comparison would say nothing"
    return model, crops, output


@pytest.mark.parametrize("rewrites", CHOICES, ids=lambda names: "+".join(names) or "none")
@torch.no_grad()
def test_rewrites_are_exact(trained, rewrites):
    model, crops, expected = trained
    keypoints, scores = ExportGraph(model, "grid_sample", rewrites)(crops)
    assert (keypoints - expected.keypoints).abs().max() < 2e-5
    assert (scores - expected.scores).abs().max() < 2e-5


@pytest.mark.parametrize("rewrites", [(), tuple(REWRITES)], ids=["none", "all"])
@pytest.mark.parametrize("sampler", EXPORTABLE)
@torch.no_grad()
def test_samplers_are_exact_in_the_graph(trained, sampler, rewrites):
    model, crops, expected = trained
    keypoints, _ = ExportGraph(model, sampler, rewrites)(crops)
    assert (keypoints - expected.keypoints).abs().max() < 2e-5


@torch.no_grad()
def test_the_model_stays_as_it_was():
    model = lively_model().train()
    before = copy.deepcopy(model.state_dict())
    ExportGraph(model, "gather", tuple(REWRITES))
    assert model.training and model.heatmap_head is not None
    after = model.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)


def test_the_graph_is_for_inference_only():
    graph = ExportGraph(lively_model().train(), "gather")
    assert not any(module.training for module in graph.modules())
    assert not any("heatmap" in name for name, _ in graph.named_parameters())
    assert not any(parameter.requires_grad for parameter in graph.parameters())


def test_folding_leaves_no_batchnorm():
    graph = ExportGraph(lively_model(CONFIGS["no q2q, bottlenecks"]), "gather", ("fold_batchnorm",))
    assert not any(isinstance(module, nn.BatchNorm2d) for module in graph.modules())


def test_no_rewrite_no_change():
    graph = ExportGraph(lively_model(), "grid_sample", ())
    assert sum(isinstance(module, nn.BatchNorm2d) for module in graph.modules()) == 12
    assert isinstance(graph.network.decoder[0].attention, DeformableAttention)
    assert isinstance(graph.extend, nn.Identity)


@pytest.mark.parametrize("sampler", EXPORTABLE)
@torch.no_grad()
def test_sample_then_project_gives_no_bias_outside(sampler):
    torch.manual_seed(0)
    shapes = ((8, 6), (4, 3))
    attention = DeformableAttention(64, 4, 2, 3, get_sampler(sampler))
    for layer in (attention.value_proj, attention.sampling_offsets, attention.attention_weights):
        nn.init.normal_(layer.weight, 0, 0.3)
        nn.init.normal_(layer.bias, 0, 2)
    query, memory = torch.randn(2, 5, 64), torch.randn(2, 60, 64)
    reference_points = torch.rand(2, 5, 2) * 2 - 0.5  # half of them outside
    expected = attention(query, reference_points, memory, shapes)
    rewritten = SampleThenProject(attention)
    extended = torch.cat((memory, torch.ones(2, 60, 1)), dim=2)
    torch.testing.assert_close(rewritten(query, reference_points, extended, shapes), expected, rtol=1e-4, atol=1e-4)


def test_examples_are_crops_of_the_asked_type():
    graph = ExportGraph(lively_model(), "gather")
    assert graph.example(3, "uint8").shape == (3, 3, 128, 96)
    assert graph.example(1, "uint8").dtype == torch.uint8 and graph.example(1, "float32").dtype == torch.float32
