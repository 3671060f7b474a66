"""The figure: milliseconds as points on a log axis, one line a case, one marker an implementation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tfpose_edge.checkpoint import written_whole

MARKERS = "osD^vP*X<>"
SPREAD = 0.6  # of a line's height, taken by its markers


class Point(NamedTuple):
    """One median."""

    panel: str
    line: str
    series: str
    milliseconds: float


def draw(path: Path, title: str, points: Sequence[Point], floors: dict[tuple[str, str], float] | None = None) -> None:
    """Draw a panel beside another, the same lines in each, in the order in which they first come.

    Args:
        path: of the PNG; it appears whole or not at all.
        title: says the device.
        points: what was measured.
        floors: (panel, line) -> ms of the least traffic at copy bandwidth, as a grey bar.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib import ticker

    panels, lines = (list(dict.fromkeys(getattr(point, name) for point in points)) for name in ("panel", "line"))
    series = list(dict.fromkeys(point.series for point in points))
    size = (3.2 + 4.2 * len(panels), 1.9 + 0.36 * len(lines))
    figure, axes = plt.subplots(1, len(panels), figsize=size, sharey=True, squeeze=False, layout="constrained")
    handles: dict[str, Any] = {}
    for axis, panel in zip(axes[0], panels, strict=True):
        for place, name in enumerate(series):
            chosen = [point for point in points if (point.panel, point.series) == (panel, name)]
            aside = SPREAD * (place - (len(series) - 1) / 2) / len(series)  # equal figures stay visible
            x, y = [point.milliseconds for point in chosen], [lines.index(point.line) + aside for point in chosen]
            handles[name] = axis.scatter(
                x, y, s=52, marker=MARKERS[place % len(MARKERS)], color=f"C{place}", alpha=0.85, linewidths=0, zorder=3
            )
        _draw_floors(axis, panel, lines, floors or {}, handles)
        axis.set(title=panel, xlabel="ms, median (log)", xscale="log", yticks=range(len(lines)))
        axis.set_ylim(len(lines) - 0.5, -0.5)
        axis.set_yticklabels(lines)
        axis.grid(axis="x", which="both", alpha=0.25)
        axis.grid(axis="y", alpha=0.25)
        low, high = axis.get_xlim()
        between = (1, 2, 5) if high < 100 * low else (1,)  # more labels would run into each other
        axis.xaxis.set_major_locator(ticker.LogLocator(subs=between, numticks=12))
        axis.xaxis.set_major_formatter("{x:g}")
        axis.xaxis.set_minor_formatter("")
        axis.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title)
    figure.legend(
        handles.values(), handles.keys(), loc="outside lower center", ncols=min(6, len(handles)), frameon=False
    )
    with written_whole(path) as temporary:
        figure.savefig(temporary, dpi=120, format="png")
    plt.close(figure)


def _draw_floors(
    axis: Any, panel: str, lines: list[str], floors: dict[tuple[str, str], float], handles: dict[str, Any]
) -> None:
    """Grey bars at the time of the least traffic."""
    known = [(floors[panel, line], y) for y, line in enumerate(lines) if (panel, line) in floors]
    if known:
        x, y = zip(*known, strict=True)
        handles["least bytes at copy bandwidth"] = axis.scatter(
            x, y, s=160, marker="|", color="0.35", linewidths=2, zorder=2
        )
