"""The export graph: every rewrite is exact, alone and together, with every sampler; the model stays as it was."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
from converting import blob_crops, lively_model
from torch import nn

from converters.graph import ExportGraph
from converters.rewrites import REWRITES
from tfpose_edge import PRESETS, TFPose
from tfpose_edge.attention import EXPORTABLE, DeformableAttention, SampleThenProject

TINY = PRESETS["tiny"]
CONFIGS = {
    "tiny": TINY,
    "no encoder, C2..C5": dataclasses.replace(TINY, num_encoder_layers=0, levels=(2, 3, 4, 5)),
    "no q2q, bottlenecks": dataclasses.replace(
        TINY, query_self_attention=False, backbone="resnet50", backbone_width=8, input_size_wh=(64, 64)
    ),
}
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
    assert {type(layer.attention) for layer in graph.network.decoder} == {DeformableAttention}


def test_sample_then_project_is_the_layer_with_the_same_parameters():
    model = lively_model()
    graph = ExportGraph(model, "gather", ("sample_then_project",))
    assert {type(layer.attention) for layer in graph.network.decoder} == {SampleThenProject}
    assert {type(layer.attention) for layer in graph.network.encoder} == {DeformableAttention}
    for name, value in graph.network.state_dict().items():
        assert torch.equal(value, model.state_dict()[name]), name


@pytest.mark.parametrize("rewrites", [(), tuple(REWRITES)], ids=["none", "all"])
@torch.no_grad()
def test_a_network_that_projects_samples_in_training_gives_the_same_graph(rewrites):
    plain, crops = lively_model(), torch.from_numpy(blob_crops(TINY, 3))
    trained = TFPose(TINY, sample_then_project=True).eval()
    trained.load_state_dict(plain.state_dict())
    one, other = (ExportGraph(model, "gather", rewrites)(crops)[0] for model in (plain, trained))
    assert (one - other).abs().max() < 2e-5


def test_examples_are_crops_of_the_asked_type():
    graph = ExportGraph(lively_model(), "gather")
    assert graph.example(3, "uint8").shape == (3, 3, 128, 96)
    assert graph.example(1, "uint8").dtype == torch.uint8 and graph.example(1, "float32").dtype == torch.float32
