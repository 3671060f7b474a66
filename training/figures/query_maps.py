"""Figure 6: query-to-query attention, a heat map per decoder layer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.figures.page import blank, new_page, save, short_name
from training.figures.patterns import with_average

PER_NAME, AROUND = 0.18, 1.1  # inches: a row of the heat map, and what surrounds it


def draw_query_maps(path: Path, attention: NDArray[np.float64], names: Sequence[str], about: str) -> None:
    """Draw attention (N_D, K, K) of every query (row) to every query (column), and the layers' average."""
    maps = with_average(attention)
    columns = min(len(maps), 2 if len(maps) <= 4 else 4)
    side = PER_NAME * len(names) + AROUND
    rows = -(-len(maps) // columns)
    figure, axes = new_page(rows, columns, (side, side), "Query-to-query attention, mean over persons and heads", about)
    short = [short_name(name) for name in names]
    highest = max(float(layer.max()) for layer in maps.values())
    for axis, (title, layer) in zip(blank(axes, len(maps)), maps.items(), strict=True):
        drawn = axis.imshow(layer, cmap="viridis", vmin=0, vmax=highest)
        axis.set_title(title, fontsize=10)
        axis.set_xticks(range(len(names)), short, rotation=90, fontsize=7)
        axis.set_yticks(range(len(names)), short, fontsize=7)
        axis.set_xlabel("is looked at (key)", fontsize=8)
        axis.set_ylabel("looks (query)", fontsize=8)
    bar = figure.colorbar(drawn, ax=axes, shrink=0.6, label="attention; each row sums to 1")
    bar.ax.axhline(1 / len(names), color="white", linewidth=1.2)
    bar.ax.text(-0.3, 1 / len(names), "uniform", ha="right", va="center", fontsize=7)
    save(figure, path)
