"""The export graph: every rewrite is exact, alone and together, with every sampler; the model stays as it was."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
from converting import blob_crops, lively_model
from torch import nn

from converters.formats import FORMATS
from converters.graph import ExportGraph
from converters.placed import Gather
from converters.rewrites import REWRITES, rewrites_for
from tfpose_edge import PRESETS, TFPose
from tfpose_edge.attention import EXPORTABLE, DeformableAttention, SampleThenProject

TINY = PRESETS["tiny"]
CONFIGS = {
    "tiny": TINY,
    "no encoder, C2..C5": dataclasses.replace(TINY, num_encoder_layers=0, levels=(2, 3, 4, 5)),
    "for phones": dataclasses.replace(PRESETS["edge-n"], input_size_wh=(64, 64), backbone_width=16),
    "no q2q, bottlenecks": dataclasses.replace(
        TINY, query_self_attention=False, backbone="resnet50", backbone_width=8, input_size_wh=(64, 64)
    ),
}
NAMES = tuple(REWRITES)
CHOICES = [(), *[(name,) for name in NAMES], *[NAMES[: i + 1] for i in range(1, len(NAMES))]]  # alone, and growing


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Many small operations: on a busy machine, threads that wait for each other take most of the time."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def take_statistics(model, crops):
    """BatchNorm as after training on these crops: in deep networks of random weights nothing else reaches the end."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    model.train()(crops.float())
    model.eval()


@pytest.fixture(scope="module", params=CONFIGS.values(), ids=CONFIGS)
def trained(request):
    """(model, crops, its key points and scores)."""
    model, crops = lively_model(request.param), torch.from_numpy(blob_crops(request.param, 3))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():  # no bias stays zero, no scale one
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
        take_statistics(model, crops)
        output = model(crops.float())
    spread = (output.keypoints - output.keypoints.mean(0)).abs().max()
    assert spread > 0.01, "the key points of this model do not move: the comparison would say nothing"
    return model, crops, output


@pytest.mark.parametrize(
    "rewrites", CHOICES, ids=lambda names: f"first {len(names)}" if len(names) > 1 else "".join(names) or "none"
)
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


def kinds(graph, part):
    return {type(layer.attention).__name__ for layer in getattr(graph.network, part)}


@pytest.mark.parametrize("name", FORMATS)
def test_formats_take_the_rewrites_that_help_their_engines(name):
    names = rewrites_for(name)
    assert names == tuple(rewrite for rewrite, row in REWRITES.items() if name in row.formats)
    assert rewrites_for(name, ("sample_then_project", "fold_batchnorm")) == ("fold_batchnorm", "sample_then_project")
    assert rewrites_for(name, ()) == ()
    graph = ExportGraph(lively_model(), "gather", names)
    assert kinds(graph, "encoder") <= {"PixelAttention", "OneProjection"} and kinds(graph, "decoder") == {"QueryPlaces"}


def test_a_rewrite_without_its_predecessor_changes_nothing():
    graph = ExportGraph(lively_model(), "gather", ("merge_projections", "place_samples", "fold_first_layer"))
    assert kinds(graph, "encoder") == kinds(graph, "decoder") == {"DeformableAttention"}


@torch.no_grad()
def test_the_first_layer_depends_on_the_memory_only():
    graph = ExportGraph(lively_model(), "gather", tuple(REWRITES))
    memory = torch.randn(2, sum(h * w for h, w in TINY.spatial_shapes), TINY.d_model)
    first, nothing = graph.network.decoder[0], torch.full((1,), torch.nan)
    out = first(nothing, nothing, nothing, memory, TINY.spatial_shapes)
    assert out.shape == (2, 17, TINY.d_model) and out.isfinite().all() and (out[0] - out[1]).abs().max() > 0.1


def test_chunks_are_as_large_as_a_cache_holds():
    graph = ExportGraph(lively_model(PRESETS["r18-ne0"]), "gather", rewrites_for("onnx"))
    chunks = [module.chunk for module in graph.modules() if isinstance(module, Gather)]
    assert chunks == [2**20 // (4 * 16 * 256 * 4)] * 6
