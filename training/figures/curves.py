"""The curves of one run: curves.png in its folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.figures.page import as_chart, save

LOSSES = {"loss_keypoints": "key points, L1", "loss_heatmaps": "heat maps, MSE", "loss_scores": "scores, cross entropy"}
MEASURED = {"oks": "mean OKS", "pck": "PCK@0.2"}
SMOOTHED_OVER = 20  # log lines


def draw_curves(path: Path, log: list[dict[str, Any]]) -> None:
    """Draw one panel per unweighted loss over steps, and one of the validation figures over epochs.

    Args:
        path: of the PNG; it appears whole or not at all.
        log: the lines of metrics.jsonl.
    """
    from matplotlib.figure import Figure

    steps = [line for line in log if line["kind"] == "step"]
    epochs = [line for line in log if line["kind"] == "epoch"]
    losses = [name for name in LOSSES if any(name in line for line in steps)] or list(LOSSES)[:1]
    measured = [name for name in MEASURED if any(name in line for line in epochs)]
    panels = len(losses) + bool(measured)
    figure = Figure(figsize=(4.2 * panels, 3.6), layout="constrained")
    axes = figure.subplots(1, panels, squeeze=False)[0]
    for axis, name in zip(axes, losses, strict=False):
        _draw_loss(axis, [line for line in steps if name in line], name)
    for name in measured:
        points = [(line["epoch"], line[name]) for line in epochs if name in line]
        axes[-1].plot(*zip(*points, strict=True), marker="o", markersize=3, label=MEASURED[name])
    if measured:
        axes[-1].set(title="validation", xlabel="epoch", ylabel="percent", ylim=(0, 100))
        axes[-1].legend(frameon=False)
    for axis in axes:
        as_chart(axis)
    save(figure, path, dpi=110)


def running_mean(values: NDArray[np.float64], width: int) -> NDArray[np.float64]:
    """Mean (N,) of each value and up to `width - 1` values before it."""
    total = np.concatenate([[0.0], np.cumsum(values)])
    end = np.arange(1, len(values) + 1)
    start = np.maximum(end - width, 0)
    return (total[end] - total[start]) / (end - start)  # type: ignore[no-any-return]


def fit_settled(axis: Any, curves: list[NDArray[np.float64]]) -> None:
    """Limit the axis to what follows the first tenth of each curve, so that the rest has a shape."""
    settled = np.concatenate([curve[len(curve) // 10 :] for curve in curves])
    axis.set_ylim(0.9 * settled.min(), 1.1 * settled.max())


def _draw_loss(axis: Any, lines: list[dict[str, Any]], name: str) -> None:
    """Faint as it was, bold as a running mean."""
    axis.set(title=LOSSES[name], xlabel="optimiser steps", ylabel="unweighted loss")
    if not lines:
        return
    x = np.array([line["step"] for line in lines])
    y = np.array([line[name] for line in lines])
    axis.plot(x, y, linewidth=0.8, alpha=0.3, color="tab:blue")
    axis.plot(x, running_mean(y, SMOOTHED_OVER), linewidth=1.6, color="tab:blue")
    fit_settled(axis, [y])
