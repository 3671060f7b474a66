"""`--scores-only`: the last run, which teaches a finished network what its answers are worth."""

from __future__ import annotations

import pytest
import torch

from tfpose_edge import load_checkpoint
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
