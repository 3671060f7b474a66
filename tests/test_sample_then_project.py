"""Projecting the samples instead of the memory: the same layer, the same network, the same gradients."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from accelerate import Accelerator
from converting import blob_crops, lively_model
from test_samplers import NAMES
from torch import nn

from tfpose_edge import PRESETS, TFPose, load_checkpoint, save_checkpoint
from tfpose_edge.attention import EXPORTABLE, DeformableAttention, SampleThenProject, get_sampler
from tfpose_edge.attention.sample_then_project import share_inside
from training.options import Options, with_defaults
from training.run import RunFolder
from training.session import Session

SHAPES = ((8, 6), (4, 3), (2, 1), (1, 1))
TOKENS = sum(height * width for height, width in SHAPES)


def layers(sampler="grid_sample", dtype=torch.float32, d_model=64, n_heads=4, n_points=3, shapes=SHAPES):
    """The plain layer, every parameter random, and one that got its state."""
    torch.manual_seed(0)
    sizes = (d_model, n_heads, len(shapes), n_points, get_sampler(sampler))
    plain, option = (layer(*sizes).to(dtype) for layer in (DeformableAttention, SampleThenProject))
    for parameter in plain.parameters():
        nn.init.normal_(parameter, 0, 0.3)
    nn.init.normal_(plain.sampling_offsets.bias, 0, 2)
    option.load_state_dict(plain.state_dict())
    return plain, option


def inputs(dtype=torch.float32, d_model=64, queries=5, tokens=TOKENS):
    """Query, reference points, a good part of them outside the image, and memory; all want a gradient."""
    query, memory = torch.randn(2, queries, d_model, dtype=dtype), torch.randn(2, tokens, d_model, dtype=dtype)
    return [t.requires_grad_() for t in (query, torch.rand(2, queries, 2, dtype=dtype) * 2 - 0.5, memory)]


@pytest.mark.parametrize("sampler", NAMES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-5)])
def test_result_and_every_gradient_equal_the_plain_layers(sampler, dtype, tolerance):
    plain, option = layers(sampler, dtype)
    given = inputs(dtype)
    weight = torch.randn(2, 5, 64, dtype=dtype)
    found = []
    for layer in (plain, option):
        out = layer(*given, SHAPES)
        gradients = torch.autograd.grad((out * weight).sum(), [*given, *layer.parameters()])
        found.append((out.detach(), *gradients))
    names = ["output", "query", "reference_points", "memory", *dict(plain.named_parameters())]
    for name, expected, actual in zip(names, *found, strict=True):
        assert expected.abs().max() > 0.1, f"{name} is too small to say anything"
        difference = (actual - expected).abs().max() / expected.abs().max().clamp(min=1)
        assert difference < tolerance, f"{name}: {difference}"


@pytest.mark.parametrize("sampler", EXPORTABLE)  # the kernels of `fused` take minutes for it
def test_gradients_equal_differences(sampler):
    shapes = ((2, 3), (1, 2))
    _, option = layers(sampler, torch.float64, 4, 2, 2, shapes)
    given = inputs(torch.float64, 4, 1, 8)
    names, parameters = zip(*option.named_parameters(), strict=True)

    def function(query, reference_points, memory, *values):
        return torch.func.functional_call(
            option, dict(zip(names, values, strict=True)), (query, reference_points, memory, shapes)
        )

    assert torch.autograd.gradcheck(function, (*given, *parameters))


@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_the_share_inside_is_what_sampling_ones_gives(size):
    """With the gradient, also on pixel centres and borders, where it jumps (sizes that need no rounding)."""
    steps = torch.cat((torch.arange(-2, size + 1.25, 0.25), torch.tensor([-1e6, 1e6])))
    places = torch.cartesian_prod(steps, steps).double()
    offsets = (places + 0.5)[None, :, None, None].requires_grad_()  # one query a place, reference point 0
    reference_points, logits = torch.zeros(1, len(places), 2).double(), torch.zeros(1, len(places), 1, 1).double()
    ones = torch.ones(1, size * size, 1, 1).double()
    share = share_inside(reference_points, offsets, logits, ((size, size),))
    expected = get_sampler("grid_sample")(ones, reference_points, offsets, logits, ((size, size),))
    assert 0 < expected.mean() < 1
    torch.testing.assert_close(share, expected, atol=1e-9, rtol=0)
    gradients = [torch.autograd.grad(one.sum(), offsets)[0] for one in (share, expected)]
    torch.testing.assert_close(*gradients, atol=1e-9, rtol=0)


def test_wholly_outside_is_the_output_bias():
    for layer in layers():
        query, reference_points, memory = inputs()
        out = layer(query, reference_points * 0 + 100, memory, SHAPES)
        torch.testing.assert_close(out, layer.output_proj.bias.expand_as(out))


@pytest.mark.parametrize("preset", ["tiny", "r18-ne0"])
@torch.no_grad()
def test_networks_agree_and_exchange_checkpoints(tmp_path, preset):
    plain = lively_model(PRESETS[preset])
    option = TFPose(PRESETS[preset], sample_then_project=True).eval()
    assert all(isinstance(layer.attention, SampleThenProject) for layer in option.decoder)
    assert not any(isinstance(layer.attention, SampleThenProject) for layer in [*option.encoder, *plain.decoder])
    option.load_state_dict(plain.state_dict())
    save_checkpoint(tmp_path / "option.safetensors", option)
    again = load_checkpoint(tmp_path / "option.safetensors")
    assert {type(layer.attention) for layer in again.decoder} == {DeformableAttention}
    assert all(torch.equal(value, plain.state_dict()[name]) for name, value in again.state_dict().items())
    crops = torch.from_numpy(blob_crops(PRESETS[preset], 2)).float()
    expected = plain(crops)
    assert (expected.keypoints[0] - expected.keypoints[1]).abs().max() > 0.01, "key points that do not move say nothing"
    for actual, wanted in zip(option(crops), expected, strict=True):
        torch.testing.assert_close(actual, wanted, atol=1e-5, rtol=1e-5)


def test_training_starts_from_the_same_weights_and_takes_the_same_step():
    networks, config = [], dataclasses.replace(PRESETS["tiny"], num_encoder_layers=0)
    for option in (False, True):
        torch.manual_seed(3)
        networks.append(TFPose(config, sample_then_project=option).double())
    crops = torch.from_numpy(blob_crops(config, 2)).double()
    for network in networks:
        torch.manual_seed(4)  # the heads start at zero and would stop every gradient
        for head in network.keypoint_heads:
            nn.init.normal_(head.layers[-1].weight, 0, 0.2)
        output = network(crops)
        (output.per_layer.sum() + output.scores.sum() + network.heatmaps(output.memory).sum()).backward()
    for (name, one), other in zip(networks[0].named_parameters(), networks[1].parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, atol=1e-9, rtol=1e-9, msg=lambda text, n=name: f"{n}: {text}")


@pytest.mark.parametrize(
    ("preset", "wish", "used"),
    [("tiny", None, False), ("r18-ne0", None, True), ("r18-ne0-c128", None, False), ("tiny", True, True)],
)
def test_training_takes_it_by_preset_or_as_told(tmp_path, preset, wish, used):
    plan = with_defaults(Options(preset, output=tmp_path, rendered=4, sample_then_project=wish))
    assert plan.sample_then_project is used
    session = Session(plan, RunFolder(tmp_path), Accelerator(cpu=True))
    expected = SampleThenProject if used else DeformableAttention
    assert {type(layer.attention) for layer in session.model.decoder} == {expected}


@pytest.mark.parametrize("sampler", NAMES)
def test_bf16_autocast_keeps_fp32_coordinates_and_stays_close(sampler):
    plain, option = layers(sampler)
    seen = []

    def spy(value, reference_points, sampling_offsets, attention_logits, spatial_shapes):
        seen.append((reference_points.dtype, sampling_offsets.dtype))
        return get_sampler(sampler)(value, reference_points, sampling_offsets, attention_logits, spatial_shapes)

    given = inputs()
    expected = plain(*given, SHAPES)
    option.sampler = spy
    with torch.autocast("cpu", torch.bfloat16):
        out, as_plain = option(*given, SHAPES), plain(*given, SHAPES)
    assert seen == [(torch.float32, torch.float32)] and out.dtype == as_plain.dtype == torch.bfloat16
    error, plain_error = ((one.float() - expected).abs().max() for one in (out, as_plain))
    assert error < 0.02 * expected.abs().max() and error < 2 * plain_error
    out.float().sum().backward()
    assert all(p.grad is not None and p.grad.dtype == p.dtype for p in (*option.parameters(), *given))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_weights_work_without_autocast(dtype):
    plain, option = layers(dtype=dtype)
    given = [t.to(dtype) for t in inputs()]
    out, expected = option(*given, SHAPES), plain(*given, SHAPES)
    assert out.dtype == dtype
    assert (out.float() - expected.float()).abs().max() < 0.05 * expected.float().abs().max()
