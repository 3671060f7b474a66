"""Figures 7, 11 and 12: where a key point's query samples the feature maps, drawn on crops."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tfpose_edge import PoseConfig
from training.figures.observation import Observation, Observer
from training.figures.page import CannotDraw, new_page, save, short_name
from training.figures.people import Shown

Array = NDArray[np.float64]
MARGINS = (0.04, 0.16)  # around the crop, as a fraction of it: samples may lie outside
PANEL_WIDTH = 2.4  # inches
COLOUR_MAP = "turbo"  # from blue, little weight, to red
ANNOTATED, REFERENCE, ANSWER = "annotated", "reference point: where the layer starts to look", "the network's answer"
MARKERS: dict[str, dict[str, Any]] = {
    ANNOTATED: {"marker": "o", "s": 95, "facecolors": "none", "edgecolors": "yellow", "linewidths": 1.6},
    REFERENCE: {"marker": "s", "s": 34, "facecolors": "none", "edgecolors": "white", "linewidths": 1.3},
    ANSWER: {"marker": "x", "s": 40, "c": "white", "linewidths": 1.7},
}


@dataclass(frozen=True)
class Look:
    """Where one query of one person looks, all in fractions of the crop; M samples."""

    shown: Shown
    keypoint: int
    """Index of the key point."""
    positions: Array
    """(M, 2)."""
    weights: Array
    """(M,), parts of the attention of their head."""
    share: float
    """Of the attention that all levels get, mean over heads, in 0..1."""
    marks: dict[str, Array]
    """Title -> (2,), drawn as `MARKERS` says."""


def level_index(config: PoseConfig, level: int) -> int:
    """Place of the level C`level` in the memory; CannotDraw if the network has no such level."""
    if level not in config.levels:
        has = ", ".join(f"C{each}" for each in config.levels)
        raise CannotDraw(f"the network has no level C{level}; legal for --level are {has}")
    return config.levels.index(level)


def look(shown: Shown, seen: Observation, layer: int, keypoint: int, level: int) -> Look:
    """What query `keypoint` of the only person of `seen` sampled on a level (index) in a decoder layer (index)."""
    truth = {ANNOTATED: shown.truth[keypoint]} if shown.labelled[keypoint] else {}
    weights = seen.weights[layer, 0, keypoint, :, level]  # (H, P)
    reference, answer = seen.reference_points[layer, 0, keypoint], seen.keypoints[0, keypoint]
    return Look(
        shown,
        keypoint,
        seen.positions[layer, 0, keypoint, :, level].reshape(-1, 2),
        weights.ravel(),
        float(weights.sum(1).mean()),
        {**truth, REFERENCE: reference, ANSWER: answer},
    )


def draw_around_truth(
    path: Path, observer: Observer, people: Sequence[Shown], names: Sequence[str], layer: int, level: int, about: str
) -> None:
    """Figure 7: a row per person, a column per key point of `names`, all samples of all heads on one level.

    Args:
        path: of the PNG.
        observer: the network.
        people: whom to show.
        names: of the network's key points.
        layer: of the decoder, index.
        level: C`level`.
        about: second line of the title.
    """
    place = level_index(observer.config, level)
    columns = [observer.config.keypoint_names.index(name) for name in names]
    seen = [observer(shown.crops) for shown in people]
    rows = [[look(s, o, layer, k, place) for k in columns] for s, o in zip(people, seen, strict=True)]
    title = f"Sampling points of all heads on C{level} (stride {2**level}), decoder layer {layer + 1}"
    _draw_table(path, rows, [short_name(name) for name in names], (ANNOTATED, ANSWER), title, about)


def draw_levels(
    path: Path, observer: Observer, people: Sequence[Shown], name: str, layer: int, about: str
) -> None:  # fmt: skip
    """Figures 11 and 12: a row per person, a column per level, all samples of one key point's query; as above."""
    config, keypoint = observer.config, observer.config.keypoint_names.index(name)
    rows = []
    for shown in people:
        seen = observer(shown.crops)
        rows.append([look(shown, seen, layer, keypoint, level) for level in range(len(config.levels))])
    title = f"Pixel-to-query attention of {name.replace('_', ' ')}, decoder layer {layer + 1}"
    _draw_table(path, rows, [f"C{i} (stride {2**i})" for i in config.levels], tuple(MARKERS), title, about)


def _draw_table(
    path: Path, rows: Sequence[Sequence[Look]], titles: Sequence[str], marks: Sequence[str], title: str, about: str
) -> None:
    """A panel per look, one scale of colours for all, a title above each column."""
    height, width = rows[0][0].shown.image.shape[:2]
    panel_wh = (PANEL_WIDTH, PANEL_WIDTH * height / width + 0.2)
    figure, axes = new_page(len(rows), len(titles), panel_wh, title, about)
    highest = max(float(one.weights.max()) for row in rows for one in row)
    margin = _margin([one for row in rows for one in row])
    for row, looks in enumerate(rows):
        for axis, one, column in zip(axes[row], looks, titles, strict=True):
            drawn = _draw_look(axis, one, marks, highest, margin)
            if row == 0:
                axis.set_title(column, fontsize=9)
    bar = figure.colorbar(drawn, ax=axes, location="right", shrink=0.6, aspect=30)
    bar.set_label("attention weight\n(a head's sum to 1 over all levels)", fontsize=8)
    _draw_legend(figure, marks)
    save(figure, path)


def _draw_look(axis: Any, one: Look, marks: Sequence[str], highest: float, margin: float) -> Any:
    """One panel: the crop in faint grey, samples from light to heavy, then the marks."""
    height, width = one.shown.image.shape[:2]
    axis.imshow(75 + 0.7 * one.shown.image.mean(-1), cmap="gray", vmin=0, vmax=255, extent=(0, width, height, 0))
    axis.plot([0, width, width, 0, 0], [0, 0, height, height, 0], color="0.3", linewidth=0.7)
    order = np.argsort(one.weights)
    x, y = (one.positions[order] * (width, height)).T
    drawn = axis.scatter(
        x, y, c=one.weights[order], cmap=COLOUR_MAP, vmin=0, vmax=highest, s=13, edgecolors="black", linewidths=0.4,
        zorder=2,
    )  # fmt: skip
    for mark in marks:
        if mark in one.marks:
            _draw_mark(axis, one.marks[mark] * (width, height), mark)
    axis.set(xlim=(-margin * width, (1 + margin) * width), ylim=((1 + margin) * height, -margin * height))
    axis.set(xticks=[], yticks=[])
    axis.spines[:].set_color("0.8")
    beyond = int((np.abs(one.positions - 0.5) > 0.5 + margin).any(1).sum())
    axis.set_xlabel(f"{one.share:.0%}" + (f", {beyond} beyond" if beyond else ""), fontsize=8, labelpad=2)
    return drawn


def _margin(looks: Sequence[Look]) -> float:
    """What has to be seen around the crops, as a fraction of them, so that all samples are; within `MARGINS`."""
    furthest = max(float(np.abs(one.positions - 0.5).max()) for one in looks) - 0.5
    return float(np.clip(furthest + MARGINS[0], *MARGINS))


def _draw_mark(axis: Any, point: Array, mark: str) -> None:
    """A mark with a dark rim, so that it shows on any picture."""
    from matplotlib.patheffects import Normal, withStroke

    style = MARKERS[mark]
    rim = withStroke(linewidth=style["linewidths"] + 1.6, foreground="black")
    axis.scatter(*point, **style, zorder=3, path_effects=[rim, Normal()])


def _draw_legend(figure: Any, marks: Sequence[str]) -> None:
    from matplotlib.lines import Line2D

    entries = [
        Line2D([], [], linestyle="", marker=style["marker"], markersize=8, markerfacecolor="none", label=mark,
               markeredgecolor="goldenrod" if mark == ANNOTATED else "black", markeredgewidth=1.6)
        for mark, style in MARKERS.items() if mark in marks
    ]  # fmt: skip
    sample = Line2D([], [], linestyle="", marker="o", markersize=4, color="tab:red", label="a sample")
    note = "dark frame: the crop; under each panel: the level's share of the attention, samples beyond the panel"
    figure.legend(
        handles=[sample, *entries], loc="outside lower center", ncols=2, frameon=False, fontsize=8, title=note,
        title_fontsize=8,
    )  # fmt: skip
