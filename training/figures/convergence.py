"""Figure 5: how runs converge, with and without the auxiliary loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from runtime.errors import InputError
from training.figures.curves import MEASURED, SMOOTHED_OVER, fit_settled, running_mean
from training.figures.page import as_chart, new_page, save
from training.run import RunFolder


@dataclass(frozen=True)
class Course:
    """What a run logged."""

    label: str
    epochs: list[dict[str, Any]]
    """The log's lines of whole epochs."""
    steps: list[dict[str, Any]]
    """The log's lines of steps."""


def read_course(folder: Path, label: str | None = None) -> Course:
    """The log of a run folder; without a label the folder's name, and whether there was an auxiliary loss.

    Raises:
        InputError: the folder has no log, or one that cannot be read.
    """
    try:
        log = RunFolder(folder).read_log()
        epochs, steps = ([line for line in log if line["kind"] == kind] for kind in ("epoch", "step"))
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise InputError(f"{folder / 'metrics.jsonl'}: not the log of a run: {error}") from error
    if not steps:
        raise InputError(f"{folder}: no run folder: its metrics.jsonl is missing or has no step")
    with_auxiliary = any("loss_heatmaps" in line for line in steps)
    return Course(label or f"{folder.name}, {'with' if with_auxiliary else 'without'} auxiliary loss", epochs, steps)


def draw_convergence(path: Path, courses: Sequence[Course]) -> None:
    """Draw the validation figures over epochs, where there are any, and the loss of the key points over steps."""
    measured = [name for name in MEASURED if any(name in line for course in courses for line in course.epochs)]
    title, about = "Convergence", "validation over epochs; training loss of all decoder layers, unweighted, over steps"
    figure, axes = new_page(1, len(measured) + 1, (4.4, 3.8), title, about)
    for axis, name in zip(axes[0], measured, strict=False):
        for course in courses:
            points = [(line["epoch"], line[name]) for line in course.epochs if name in line]
            axis.plot(*np.reshape(points, (-1, 2)).T, marker="o", markersize=2.5, linewidth=1.4, label=course.label)
        axis.set(title=f"validation, {MEASURED[name]}", xlabel="epoch", ylabel="percent")
    _draw_losses(axes[0, -1], courses)
    for axis in axes[0]:
        as_chart(axis)
    figure.legend(*axes[0, -1].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
    save(figure, path)


def _draw_losses(axis: Any, courses: Sequence[Course]) -> None:
    """Running means of the key points' loss."""
    curves = []
    for course in courses:
        points = [(line["step"], line["loss_keypoints"]) for line in course.steps if "loss_keypoints" in line]
        x, y = np.reshape(points, (-1, 2)).T
        curves.append(running_mean(y, SMOOTHED_OVER))
        axis.plot(x, curves[-1], linewidth=1.4, label=course.label)  # without such a loss: in the legend alone
    axis.set(title="training, key points' L1", xlabel="optimiser steps", ylabel="loss")
    if any(map(len, curves)):
        fit_settled(axis, curves)
