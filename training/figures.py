"""Figures of a run: the curves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

LOSSES = {"loss_keypoints": "key points, L1", "loss_heatmaps": "heat maps, MSE", "loss_scores": "scores, cross entropy"}
FIGURES = {"oks": "mean OKS", "pck": "PCK@0.2"}
SMOOTHED_OVER = 20  # log lines


def draw_curves(path: Path, log: list[dict[str, Any]]) -> None:
    """Draw one panel per unweighted loss over steps, and one of the validation figures over epochs.

    Args:
        path: of the PNG; it appears whole or not at all.
        log: the lines of metrics.jsonl.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    steps = [line for line in log if line["kind"] == "step"]
    epochs = [line for line in log if line["kind"] == "epoch"]
    losses = [name for name in LOSSES if any(name in line for line in steps)] or list(LOSSES)[:1]
    measured = [name for name in FIGURES if any(name in line for line in epochs)]
    panels = len(losses) + bool(measured)
    figure, axes = plt.subplots(1, panels, figsize=(4.2 * panels, 3.6), squeeze=False)
    for axis, name in zip(axes[0], losses, strict=False):
        _draw_loss(axis, [line for line in steps if name in line], name)
    for name in measured:
        points = [(line["epoch"], line[name]) for line in epochs if name in line]
        axes[0, -1].plot(*zip(*points, strict=True), marker="o", markersize=3, label=FIGURES[name])
    if measured:
        axes[0, -1].set(title="validation", xlabel="epoch", ylabel="percent", ylim=(0, 100))
        axes[0, -1].legend(frameon=False)
    for axis in axes.flat:
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    temporary = path.with_name(f".{path.name}.tmp")
    figure.savefig(temporary, dpi=110, format="png")
    plt.close(figure)
    temporary.replace(path)


def running_mean(values: NDArray[np.float64], width: int) -> NDArray[np.float64]:
    """Mean (N,) of each value and up to `width - 1` values before it."""
    total = np.concatenate([[0.0], np.cumsum(values)])
    end = np.arange(1, len(values) + 1)
    start = np.maximum(end - width, 0)
    return (total[end] - total[start]) / (end - start)  # type: ignore[no-any-return]


def _draw_loss(axis: Any, lines: list[dict[str, Any]], name: str) -> None:
    """Faint as it was, bold as a running mean; the first tenth may leave the picture, so that the rest has a shape."""
    axis.set(title=LOSSES[name], xlabel="optimiser steps", ylabel="unweighted loss")
    if not lines:
        return
    x = np.array([line["step"] for line in lines])
    y = np.array([line[name] for line in lines])
    axis.plot(x, y, linewidth=0.8, alpha=0.3, color="tab:blue")
    axis.plot(x, running_mean(y, SMOOTHED_OVER), linewidth=1.6, color="tab:blue")
    settled = y[len(y) // 10 :]
    axis.set_ylim(0.9 * settled.min(), 1.1 * settled.max())
