"""Mobile networks as backbones: published names and sizes, the formula, ImageNet weights, the presets for phones."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn
from torch.nn import functional

from converters.conversion import Options, convert_checkpoint
from runtime.errors import InputError
from tfpose_edge import PRESETS, TFPose, load_checkpoint, save_checkpoint
from tfpose_edge.flops import count_gmacs
from tfpose_edge.mobilenet import InvertedResidual, MobileNet
from training import networks
from training.weights import load_backbone, load_weights

SMALL = dataclasses.replace(
    PRESETS["edge-n"], backbone="mobilenetv2", backbone_width=8, input_size_wh=(64, 64), d_model=32, ffn_dim=32,
    levels=(4, 5), num_encoder_layers=1,
)  # fmt: skip


def test_mobilenet_has_torchvisions_names_and_sizes():
    """The size is torchvision's total of 3,504,872 less its 1000-way classifier and the convolution before it."""
    with torch.device("meta"):
        backbone = MobileNet()
        features = backbone(torch.zeros(1, 3, 256, 192))
    state = backbone.state_dict()
    learned = {k: v for k, v in state.items() if "running" not in k and "num_batches" not in k}
    assert sum(v.numel() for v in learned.values()) == 3_504_872 - 1_281_000 - 412_160
    assert state["features.1.conv.0.0.weight"].shape == (32, 1, 3, 3)  # no expansion in the first block
    assert state["features.2.conv.0.0.weight"].shape == (96, 16, 1, 1)
    assert state["features.17.conv.2.weight"].shape == (320, 960, 1, 1) and "features.17.conv.3.running_var" in state
    shapes = {level: tuple(feature.shape[1:]) for level, feature in features.items()}
    assert shapes == {2: (24, 64, 48), 3: (32, 32, 24), 4: (96, 16, 12), 5: (320, 8, 6)}
    assert backbone.channels == {level: shape[0] for level, shape in shapes.items()}


def test_efficientnet_lite0_has_the_published_sizes():
    """The size is its published total of 4,652,008 less what follows the blocks, and the last block."""
    with torch.device("meta"):
        backbone = MobileNet("efficientnet_lite0")
        features = backbone(torch.zeros(1, 3, 256, 192))
    state = backbone.state_dict()
    learned = sum(v.numel() for k, v in state.items() if "running" not in k and "num_batches" not in k)
    assert learned == 4_652_008 - (1280 * 1000 + 1000) - (320 * 1280 + 2 * 1280) - 605_440
    assert state["features.4.conv.1.0.weight"].shape == (144, 1, 5, 5)
    shapes = {level: tuple(feature.shape[1:]) for level, feature in features.items()}
    assert shapes == {2: (24, 64, 48), 3: (40, 32, 24), 4: (112, 16, 12), 5: (192, 8, 6)}
    assert {module.eps for module in backbone.modules() if isinstance(module, nn.BatchNorm2d)} == {1e-3}


@pytest.mark.parametrize(("width", "channels"), [(24, [24, 24, 72, 240]), (16, [16, 16, 48, 160]), (8, [8, 8, 24, 80])])
def test_narrow_mobilenets_have_multiples_of_8_channels(width, channels):
    assert list(MobileNet(width=width).channels.values()) == channels


def test_a_mobilenet_equals_its_formula():
    """One inverted residual, written out: up, each channel for itself, down, and the shortcut."""
    torch.manual_seed(0)
    block = InvertedResidual(16, 16, 1, 6).eval()
    x, (up, each, down, last) = torch.randn(2, 16, 5, 4), block.conv
    clipped = functional.conv2d(x, up[0].weight).clamp(0, 6)
    rows = [functional.conv2d(clipped[:, i : i + 1], each[0].weight[i : i + 1], padding=1) for i in range(96)]
    expected = x + functional.conv2d(torch.cat(rows, 1).clamp(0, 6), down.weight)
    for norm in (up[1], each[1], last):
        norm.eps = 0.0  # untrained statistics are 0 and 1
    torch.testing.assert_close(block(x), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("preset", "most"), [("edge-n", 0.36), ("edge-s", 0.70)])
def test_edge_presets_keep_to_their_budget(preset, most):
    assert count_gmacs(PRESETS[preset]) <= most


@pytest.mark.parametrize(("stride", "kernel"), [(2, 3), (1, 5), (2, 5)])
def test_autocast_leaves_slow_depthwise_convolutions_in_full_precision(stride, kernel):
    block = InvertedResidual(8, 8, stride, 6, kernel)
    seen = {}
    convolution = block.conv[1][0]
    convolution.register_forward_hook(lambda module, given, found: seen.update(given=given[0], found=found))
    with torch.autocast("cpu", torch.bfloat16):
        block(torch.randn(1, 8, 8, 8))
    exact = functional.conv2d(seen["given"].float(), convolution.weight, stride=stride, padding=kernel // 2, groups=48)
    assert seen["found"].dtype == seen["given"].dtype and torch.equal(seen["found"], exact.to(seen["found"].dtype))


def test_torchvisions_checkpoint_loads_as_it_is(tmp_path):
    """Its last convolution and its classifier stay out."""
    torch.manual_seed(1)
    truth = MobileNet(width=8).state_dict()
    others = {"features.18.0.weight": torch.zeros(4, 80, 1, 1), "classifier.1.bias": torch.zeros(3)}
    torch.save({**truth, **others}, tmp_path / "mobilenet_v2.pth")
    model = TFPose(SMALL)
    load_backbone(model, str(tmp_path / "mobilenet_v2.pth"))
    assert all(torch.equal(value, truth[name]) for name, value in model.backbone.state_dict().items())


@pytest.mark.parametrize("prefix", ["", "_"])
def test_weights_of_efficientnet_lite_load_by_their_order(tmp_path, prefix):
    """Their stem sees (rgb - 127) / 128, ours the mean and deviation of ImageNet: its answers must be the same."""
    torch.manual_seed(2)
    theirs = MobileNet("efficientnet_lite0", 8)
    for module in theirs.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    ours = [name for name in theirs.state_dict() if not name.endswith("num_batches_tracked")]
    names = {name: f"{prefix}blocks.{i:03d}" for i, name in enumerate(ours)} | {ours[0]: f"{prefix}conv_stem.weight"}
    state = {names[name]: value.clone() for name, value in theirs.state_dict().items() if name in names}
    others = {"conv_head.weight": torch.zeros(4, 48, 1, 1), "classifier.weight": torch.zeros(3, 4)}
    torch.save(state | {prefix + name: value for name, value in others.items()}, tmp_path / "lite0.pth")
    model = TFPose(dataclasses.replace(SMALL, backbone="efficientnet_lite0")).eval()
    load_backbone(model, str(tmp_path / "lite0.pth"))
    rgb = torch.rand(1, 3, 64, 64) * 255
    found = model.backbone.features[0]((rgb - model.mean) / model.std)
    expected = theirs.eval().features[0]((rgb - 127) / 128)
    torch.testing.assert_close(found[..., 1:, 1:], expected[..., 1:, 1:], atol=1e-4, rtol=1e-4)
    later = [name for name in ours if not name.startswith("features.0.")]
    assert all(torch.equal(model.backbone.state_dict()[name], theirs.state_dict()[name]) for name in later)


def test_initial_weights_fit_crops_of_another_size(tmp_path):
    small = TFPose(SMALL)
    save_checkpoint(tmp_path / "small.safetensors", small)
    large = TFPose(dataclasses.replace(SMALL, input_size_wh=(96, 128)))
    load_weights(large, tmp_path / "small.safetensors")
    assert all(torch.equal(value, small.state_dict()[name]) for name, value in large.state_dict().items())
    assert large.reference_points.shape[1] == 8 * 6 + 4 * 3  # positions are its own


def test_initial_weights_may_have_more_decoder_layers_and_no_fewer(tmp_path):
    deep = TFPose(dataclasses.replace(SMALL, num_decoder_layers=4))
    shallow = TFPose(dataclasses.replace(SMALL, num_decoder_layers=2))
    save_checkpoint(tmp_path / "deep.safetensors", deep)
    save_checkpoint(tmp_path / "shallow.safetensors", shallow)
    load_weights(shallow, tmp_path / "deep.safetensors")
    assert all(torch.equal(value, deep.state_dict()[name]) for name, value in shallow.state_dict().items())
    crops = torch.rand(2, 3, 64, 64) * 255
    torch.testing.assert_close(shallow.eval()(crops).keypoints, deep.eval()(crops).per_layer[1])
    with pytest.raises(InputError, match="another configuration"):
        load_weights(deep, tmp_path / "shallow.safetensors")


def test_initial_weights_may_have_a_longer_backbone(tmp_path):
    """The short form's answers at C5 are the long one's after so many blocks."""
    long = TFPose(dataclasses.replace(SMALL, backbone="efficientnet_lite0")).eval()
    short = TFPose(dataclasses.replace(SMALL, backbone="efficientnet_lite0_short")).eval()
    save_checkpoint(tmp_path / "long.safetensors", long)
    save_checkpoint(tmp_path / "short.safetensors", short)
    load_weights(short, tmp_path / "long.safetensors")
    crops = torch.rand(2, 3, 64, 64) * 255
    expected = crops
    for layer in long.backbone.features[:-2]:
        expected = layer(expected)
    torch.testing.assert_close(short.backbone(crops)[5], expected)
    assert len(long.backbone.features) - len(short.backbone.features) == 2
    with pytest.raises(InputError, match="another configuration"):
        load_weights(long, tmp_path / "short.safetensors")


def test_initial_weights_may_lack_the_head_of_the_heat_maps(tmp_path):
    without = TFPose(dataclasses.replace(SMALL, heatmap_head=False))
    save_checkpoint(tmp_path / "without.safetensors", without)
    model = TFPose(SMALL)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    load_weights(model, tmp_path / "without.safetensors")
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name] if name.startswith("heatmap_head") else without.state_dict()[name])
    save_checkpoint(tmp_path / "with.safetensors", model)
    load_weights(without, tmp_path / "with.safetensors")
    assert torch.equal(without.query_embed, model.query_embed)


@pytest.mark.parametrize("network", networks.RIVALS)
def test_rivals_stand_on_the_same_backbone(network):
    rival = networks.build(network, SMALL).eval()
    assert rival.backbone.state_dict().keys() == TFPose(SMALL).backbone.state_dict().keys()
    assert rival(torch.rand(1, 3, 64, 64) * 255).keypoints.shape == (1, 17, 2)


def test_checkpoint_round_trip(tmp_path):
    model = TFPose(SMALL).eval()
    save_checkpoint(tmp_path / "edge.safetensors", model)
    again, crops = load_checkpoint(tmp_path / "edge.safetensors"), torch.rand(1, 3, 64, 64) * 255
    assert again.config == SMALL and torch.equal(again(crops).keypoints, model(crops).keypoints)


def test_core_ml_and_onnx_take_a_whole_mobile_network(tmp_path):
    """ReLU6, depthwise convolutions and 5x5 kernels included: parity is within the limit, or nothing is written."""
    checkpoint = tmp_path / "mobile.safetensors"
    save_checkpoint(checkpoint, TFPose(dataclasses.replace(SMALL, backbone="efficientnet_lite0")))
    converted = convert_checkpoint(checkpoint, ["coreml", "onnx"], tmp_path / "out", Options(crops=4))
    assert [one.file.exists() for one in converted] == [True, True]
    assert all(one.parity is not None and one.parity.max_px < 0.05 for one in converted)
