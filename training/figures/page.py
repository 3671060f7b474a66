"""A page of panels: how every figure begins, and how it is saved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from runtime.errors import PoseError
from tfpose_edge.checkpoint import written_whole

DPI = 150
TITLE_HEIGHT = 0.7  # inches
LEAST_WIDTH = 6.5  # inches, so that titles fit


class CannotDraw(PoseError):
    """A figure that this model, these data or these arguments cannot give."""


def new_page(rows: int, columns: int, panel_wh: tuple[float, float], title: str, about: str) -> tuple[Any, Any]:
    """An empty figure, and its axes as an array (rows, columns).

    Args:
        rows: of panels.
        columns: of panels.
        panel_wh: width and height of a panel in inches.
        title: what is shown, first line.
        about: of which model and which data, second line.
    """
    from matplotlib.figure import Figure  # without pyplot: no display, no global state

    width = max(columns * panel_wh[0], LEAST_WIDTH)
    figure = Figure(figsize=(width, rows * panel_wh[1] + TITLE_HEIGHT), layout="compressed")
    figure.suptitle(f"{title}\n{about}", fontsize=11, linespacing=1.5)
    return figure, figure.subplots(rows, columns, squeeze=False)


def blank(axes: Any, used: int) -> list[Any]:
    """The first `used` axes of a grid, row by row; the others become empty paper."""
    for axis in axes.flat[used:]:
        axis.axis("off")
    return list(axes.flat[:used])


def as_chart(axis: Any) -> None:
    """A panel with curves: a faint grid, no frame above and right."""
    axis.grid(alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)


def save(figure: Any, path: Path, dpi: int = DPI) -> None:
    """Write a PNG; it appears whole or not at all."""
    with written_whole(path) as temporary:
        figure.savefig(temporary, dpi=dpi, format="png", bbox_inches="tight", pad_inches=0.12)


def short_name(name: str) -> str:
    """A key point's name as axes and graphs show it: "L shoulder" for left_shoulder."""
    for side in ("left", "right"):
        if name.startswith(f"{side}_"):
            return f"{side[0].upper()} {name.removeprefix(f'{side}_').replace('_', ' ')}"
    return name.replace("_", " ")
