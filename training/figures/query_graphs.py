"""Figures 8 and 9: query-to-query attention as a graph on the body, with its symmetric or its adjacent pairs marked."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.figures.page import blank, new_page, save, short_name
from training.figures.patterns import TITLES, Pair, pairs_of, share, strongest, with_average

PLACES = {
    "head_top": (0, -0.06), "nose": (0, 0.13), "eye": (0.13, 0.02), "ear": (0.32, 0.08), "upper_neck": (0, 0.2),
    "neck": (0, 0.2), "thorax": (0, 0.31), "shoulder": (0.26, 0.27), "elbow": (0.4, 0.42), "wrist": (0.46, 0.58),
    "pelvis": (0, 0.52), "hip": (0.17, 0.56), "knee": (0.21, 0.78), "ankle": (0.24, 1.0),
}  # fmt: skip
"""Where a point of the left side, or of the middle, is drawn on a body that faces us: x to the right, y down."""
COLOURS = {"symmetric": "tab:red", "adjacent": "tab:blue"}
OTHER = "0.72"
WIDEST = 7.0  # points, of the strongest pair of all panels
CURVATURE = 0.12


def draw_query_graphs(
    path: Path, attention: NDArray[np.float64], names: Sequence[str], pattern: str, edges: int, about: str
) -> None:
    """Draw for every layer all pairs of the pattern, in colour, and the strongest others, as wide as their attention.

    Args:
        path: of the PNG.
        attention: (N_D, K, K).
        names: K.
        pattern: a key of `patterns.PATTERNS`.
        edges: how many of the strongest pairs a panel shows, beside the pattern's.
        about: second line of the title.
    Raises:
        CannotDraw: these key points have no such pair.
    """
    marked = pairs_of(pattern, names)
    graphs = with_average(attention)
    columns = min(len(graphs), 4)
    title = f"Query-to-query attention: {TITLES[pattern]}, and the {edges} strongest pairs"
    figure, axes = new_page(math.ceil(len(graphs) / columns), columns, (3.2, 3.5), title, about)
    widest = max(strongest(layer, 1)[0][2] for layer in graphs.values())
    for axis, (title, layer) in zip(blank(axes, len(graphs)), graphs.items(), strict=True):
        part, uniform = share(layer, marked)
        axis.set_title(f"{title}\n{part:.1%} of the attention, {part / uniform:.2f} x uniform", fontsize=9)
        _draw_graph(axis, _shown(layer, edges, marked), names, marked, COLOURS[pattern], widest)
    _draw_legend(figure, pattern, widest)
    save(figure, path)


def _shown(attention: NDArray[np.float64], edges: int, marked: Sequence[Pair]) -> list[tuple[int, int, float]]:
    """The strongest pairs, and those marked ones that are not among them."""
    pairs = strongest(attention, attention.size)  # all of them, in order
    return pairs[:edges] + [pair for pair in pairs[edges:] if _is_in(pair, marked)]


def _is_in(pair: Sequence[float], marked: Sequence[Pair]) -> bool:
    return tuple(pair[:2]) in marked or tuple(pair[1::-1]) in marked


def place_names(names: Sequence[str]) -> dict[str, tuple[float, float]]:
    """Where each key point is drawn; those that no known body has stand in a column at the side."""
    places, unknown = {}, 0
    for name in names:
        part = name.removeprefix("left_").removeprefix("right_")
        if part in PLACES:
            x, y = PLACES[part]
            places[name] = (-x if name.startswith("right_") else x, y)
        else:
            places[name] = (0.75, 0.08 * unknown)
            unknown += 1
    return places


def _draw_graph(
    axis: Any, pairs: Sequence[tuple[int, int, float]], names: Sequence[str], marked: Sequence[Pair], colour: str,
    widest: float,
) -> None:  # fmt: skip
    """One panel: pairs (a, b, attention), marked ones above the others, then the points."""
    from matplotlib.patches import FancyArrowPatch

    places = place_names(names)
    for a, b, weight in pairs:
        is_marked = _is_in((a, b), marked)
        line = FancyArrowPatch(
            places[names[a]], places[names[b]], arrowstyle="-", connectionstyle=f"arc3,rad={CURVATURE}",
            linewidth=WIDEST * weight / widest, color=colour if is_marked else OTHER, zorder=2 if is_marked else 1,
            capstyle="round", shrinkA=0, shrinkB=0,
        )  # fmt: skip
        axis.add_patch(line)
    for name, (x, y) in places.items():
        axis.plot(x, y, "o", color="white", markeredgecolor="0.2", markersize=5, zorder=3)
        _label(axis, name, x, y)
    right = 0.95 if any(x > 0.6 for x, _ in places.values()) else 0.72
    axis.set(xlim=(-0.72, right), ylim=(1.08, -0.14), xticks=[], yticks=[])
    axis.spines[:].set_visible(False)


def _label(axis: Any, name: str, x: float, y: float) -> None:
    """The name outside of the body, or above a point of its middle."""
    side = (0, 6) if x == 0 else (6 * math.copysign(1, x), 0)
    axis.annotate(
        short_name(name), (x, y), xytext=side, textcoords="offset points", fontsize=7, zorder=4,
        ha="center" if x == 0 else "left" if x > 0 else "right", va="bottom" if x == 0 else "center",
        bbox={"facecolor": "white", "alpha": 0.7, "edgecolor": "none", "pad": 0.6},
    )  # fmt: skip


def _draw_legend(figure: Any, pattern: str, widest: float) -> None:
    from matplotlib.lines import Line2D

    entries = [
        Line2D([], [], color=COLOURS[pattern], linewidth=4, label=TITLES[pattern]),
        Line2D([], [], color=OTHER, linewidth=4, label="other strong pairs"),
        *(
            Line2D([], [], color="0.3", linewidth=WIDEST * part, label=f"attention {widest * part:.2f}")
            for part in (1, 0.5, 0.25)
        ),
    ]
    figure.legend(
        handles=entries, loc="outside lower center", ncols=5, frameon=False, fontsize=8, handlelength=3, handletextpad=1
    )
