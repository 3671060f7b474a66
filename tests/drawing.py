"""What figures are drawn of in tests: a random network whose attention is not at its start, and the log of a run."""

from __future__ import annotations

import torch

from tfpose_edge import PRESETS, TFPose, save_checkpoint
from training.run import RunFolder

TINY = PRESETS["tiny"]


def write_checkpoint(path, config=TINY, change=lambda model: None):
    """A random network whose attention is not at its start, after `change`."""
    torch.manual_seed(0)
    model = TFPose(config)
    for layer in model.decoder:
        torch.nn.init.normal_(layer.attention.sampling_offsets.weight, std=0.05)
        torch.nn.init.normal_(layer.attention.attention_weights.weight, std=0.2)
    for head in model.keypoint_heads:
        torch.nn.init.normal_(head.layers[-1].weight, std=0.05)
    with torch.no_grad():
        change(model)
    save_checkpoint(path, model)
    return path


def write_run(path, auxiliary):
    """A run folder with a log of 19 steps and 3 epochs, with or without an auxiliary loss; returns the path."""
    run = RunFolder(path)
    run.write_config({})
    for step in range(10, 200, 10):
        heatmaps = {"loss_heatmaps": 0.01} if auxiliary else {}
        run.log({"kind": "step", "step": step, "epoch": step // 50, "loss_keypoints": 1 / step, **heatmaps})
    for epoch in range(1, 4):
        run.log({"kind": "epoch", "step": 50 * epoch, "epoch": epoch, "oks": 20.0 * epoch})
    return path
