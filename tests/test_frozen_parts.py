"""What a run leaves as it is: all but the score head (`--scores-only`), or the backbone's first layers."""

from __future__ import annotations

import pytest
import torch

from tfpose_edge import load_checkpoint
from tfpose_edge.backbone import build_backbone
from training.train import main

COMMON = ["--rendered", "4", "--batch-size", "2", "--epochs", "2", "--workers", "0", "--threads", "1"]
SMALL = ["--change", "input_size_wh=64,64", "backbone_width=8", "d_model=32", "ffn_dim=32", "heatmap_channels=32"]


def test_nothing_but_the_score_head_changes(tmp_path):
    """Statistics of BatchNorm included; the average of the weights holds the new head, too."""
    assert main([*COMMON, *SMALL, "--output", str(tmp_path / "a")]) == 0
    first = tmp_path / "a" / "last.safetensors"
    again = ["--scores-only", "--initial-weights", str(first), "--output", str(tmp_path / "b"), "--lr", "0.01"]
    assert main([*COMMON, *SMALL, *again]) == 0
    before, after = (load_checkpoint(tmp_path / run / "last.safetensors").state_dict() for run in ("a", "b"))
    changed = {name for name, value in before.items() if not torch.equal(value, after[name])}
    assert changed == {"score_head.linear.weight", "score_head.linear.bias"}


@pytest.mark.parametrize("others", [[], ["--initial-weights", "x.safetensors", "--network", "deeppose"]])
def test_it_needs_a_trained_tfpose(others, tmp_path, capsys):
    assert main([*COMMON, "--scores-only", "--output", str(tmp_path / "run"), *others]) == 2
    assert "--scores-only is for a trained TFPose" in capsys.readouterr().err


@pytest.mark.parametrize(("backbone", "channels"), [("resnet18", 8), ("mobilenetv2", 8), ("efficientnet_lite0", 16)])
@pytest.mark.parametrize("level", [2, 3, 4, 5])
def test_the_layers_up_to_a_level_are_those_that_compute_it(backbone, channels, level):
    """Exactly they: gradients of C_level reach all of them, and nothing else."""
    network = build_backbone(backbone, channels)
    network(torch.rand(2, 3, 64, 64))[level].square().sum().backward()
    reached = {name for name, parameter in network.named_parameters() if parameter.grad is not None}
    layers = {id(parameter) for module in network.up_to(level) for parameter in module.parameters()}
    assert reached == {name for name, parameter in network.named_parameters() if id(parameter) in layers}


def test_the_backbone_keeps_its_first_layers_and_their_statistics(tmp_path):
    assert main([*COMMON, *SMALL, "--output", str(tmp_path / "a")]) == 0
    again = ["--initial-weights", str(tmp_path / "a" / "last.safetensors"), "--output", str(tmp_path / "b")]
    assert main([*COMMON, *SMALL, "--freeze-backbone", "3", *again]) == 0
    before, after = (load_checkpoint(tmp_path / run / "last.safetensors").state_dict() for run in ("a", "b"))
    frozen = ("backbone.conv1.", "backbone.bn1.", "backbone.layer1.", "backbone.layer2.")
    changed = {name for name, value in before.items() if not torch.equal(value, after[name])}
    assert not {name for name in changed if name.startswith(frozen)}
    learnt = {
        name for name in before if "num_batches" not in name and name.startswith(("backbone.layer3.", "keypoint"))
    }
    assert learnt and learnt <= changed


def test_frozen_layers_must_have_been_trained(tmp_path, capsys):
    assert main([*COMMON, "--freeze-backbone", "2", "--output", str(tmp_path / "run")]) == 2
    assert "--freeze-backbone keeps weights: it needs" in capsys.readouterr().err
