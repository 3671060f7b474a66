"""Backbones of timm, which need not be installed: a stand-in with the interface that is used, and its errors."""

from __future__ import annotations

import dataclasses
import itertools
import sys
import types

import pytest
import torch
from converting import blob_crops, lively_model
from torch import nn

from converters.graph import ExportGraph
from converters.rewrites import REWRITES
from tfpose_edge import PRESETS, PoseConfig, TFPose, load_checkpoint, save_checkpoint
from training.weights import load_backbone

CONFIG = dataclasses.replace(
    PRESETS["tiny"], backbone="timm:net.v1", input_size_wh=(64, 64), levels=(3, 4, 5), d_model=32, ffn_dim=32
)


class NormAndRelu(nn.BatchNorm2d):
    """As timm's BatchNormAct2d: a BatchNorm that does more."""

    def forward(self, x):
        return super().forward(x).relu()


class Network(nn.Module):
    """Feature maps of the given strides, each half the size of the one before."""

    def __init__(self, strides):
        super().__init__()
        channels = [8 * (i + 1) for i in range(len(strides))]
        self.feature_info = types.SimpleNamespace(reduction=lambda: strides, channels=lambda: channels)
        self.conv_stem = nn.Conv2d(3, 8, 3, 2, 1, bias=False)
        self.bn1 = NormAndRelu(8)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(a, b, 3, 2, 1), nn.BatchNorm2d(b), nn.ReLU())
            for a, b in itertools.pairwise(channels)
        )

    def forward(self, x):
        maps = [self.bn1(self.conv_stem(x))]
        for block in self.blocks:
            maps.append(block(maps[-1]))
        return maps


@pytest.fixture
def timm(monkeypatch):
    """A package of two networks, net.v1 and flat."""

    def create_model(name, pretrained, features_only):
        assert not pretrained and features_only
        if name not in ("net.v1", "flat"):
            raise RuntimeError(f"Unknown model ({name})")
        return Network([2, 4, 8, 16, 32] if name == "net.v1" else [16, 16])

    monkeypatch.setitem(sys.modules, "timm", types.SimpleNamespace(create_model=create_model))


def test_feature_maps_are_told_apart_by_their_strides(timm):
    backbone = TFPose(CONFIG).backbone
    features = backbone(torch.zeros(1, 3, 64, 96))
    assert {level: tuple(one.shape[1:]) for level, one in features.items()} == {
        2: (16, 16, 24), 3: (24, 8, 12), 4: (32, 4, 6), 5: (40, 2, 3)
    }  # fmt: skip
    assert backbone.channels == {level: one.shape[1] for level, one in features.items()}


def test_rewrites_are_exact_also_where_a_norm_does_more(timm):
    model, crops = lively_model(CONFIG), torch.from_numpy(blob_crops(CONFIG, 3))
    with torch.no_grad():
        expected = model(crops.float()).keypoints
        found = ExportGraph(model, "gather", tuple(REWRITES))(crops)[0]
    assert (expected - expected.mean(0)).abs().max() > 0.01 and (found - expected).abs().max() < 1e-4


def test_a_checkpoint_comes_back(timm, tmp_path):
    model = TFPose(CONFIG).eval()
    save_checkpoint(tmp_path / "c.safetensors", model)
    again = load_checkpoint(tmp_path / "c.safetensors")
    assert again.config == CONFIG
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in again.state_dict().items())


def test_timms_weights_load_by_its_names_without_its_classifier(timm, tmp_path):
    theirs = Network([2, 4, 8, 16, 32]).state_dict()
    torch.save({**theirs, "conv_head.weight": torch.zeros(1), "classifier.weight": torch.zeros(1)}, tmp_path / "w.pth")
    model = TFPose(CONFIG)
    load_backbone(model, str(tmp_path / "w.pth"))
    assert all(torch.equal(model.backbone.state_dict()[f"body.{name}"], value) for name, value in theirs.items())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("net.v2", r"no feature maps of it: Unknown model \(net"),
        ("flat", r"strides \[16, 16\], not 4, 8"),
    ],
)
def test_what_timm_does_not_have_is_said(timm, name, message):
    with pytest.raises(ValueError, match=message):
        TFPose(dataclasses.replace(CONFIG, backbone=f"timm:{name}"))


def test_without_timm_the_error_says_what_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ValueError, match=r"timm:net\.v1 needs the packages timm and torchvision"):
        TFPose(CONFIG)


@pytest.mark.parametrize("name", ["timm:", "timm:a b", "timm:../x", "efficientnet"])
def test_names_are_checked(name):
    with pytest.raises(ValueError, match=r"legal are resnet10, .* and timm:NAME"):
        PoseConfig(backbone=name)
