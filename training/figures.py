"""Figures of a run: the curves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

LOSSES = {"loss_keypoints": "key points (L1)", "loss_heatmaps": "heat maps (MSE)", "loss_scores": "scores"}
FIGURES = {"oks": "mean OKS", "pck": "PCK@0.2"}


def draw_curves(path: Path, log: list[dict[str, Any]]) -> None:
    """Draw the losses over steps and the validation figures over epochs from the lines of metrics.jsonl."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    steps = [line for line in log if line["kind"] == "step"]
    epochs = [line for line in log if line["kind"] == "epoch"]
    measured = [name for name in FIGURES if any(name in line for line in epochs)]
    figure, axes = plt.subplots(1, 2 if measured else 1, figsize=(12 if measured else 7, 4.2), squeeze=False)
    for name, label in LOSSES.items():
        points = [(line["step"], line[name]) for line in steps if line.get(name)]
        if points:
            axes[0, 0].plot(*zip(*points, strict=True), label=label, linewidth=1.2)
    axes[0, 0].set(xlabel="optimiser steps", ylabel="loss, unweighted", yscale="log")
    if steps:
        axes[0, 0].legend(frameon=False)
    for name in measured:
        points = [(line["epoch"], line[name]) for line in epochs if name in line]
        axes[0, 1].plot(*zip(*points, strict=True), marker="o", markersize=3, label=FIGURES[name])
    if measured:
        axes[0, 1].set(xlabel="epoch", ylabel="percent", ylim=(0, 100))
        axes[0, 1].legend(frameon=False)
    for axis in axes.flat:
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    temporary = path.with_name(f".{path.name}.tmp")
    figure.savefig(temporary, dpi=110, format="png")
    plt.close(figure)
    temporary.replace(path)
