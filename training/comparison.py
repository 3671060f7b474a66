"""What a comparison found, beside the paper: as Markdown, JSON and a picture of the curves."""

from __future__ import annotations

import json
import statistics
import textwrap
from pathlib import Path
from typing import Any

from tfpose_edge.checkpoint import written_whole

METRICS = {"oks": "AP", "pck": "PCK@0.2"}
CURVES = {"oks": "mean OKS", "pck": "PCK@0.2"}
"""What validation logs after every epoch; it has no AP."""


def summary(values: list[float]) -> dict[str, float | None]:
    """Mean of the seeds' values and their spread, the sample standard deviation; None for a single seed."""
    return {
        "mean": statistics.fmean(values),
        "spread": statistics.stdev(values) if len(values) > 1 else None,
    }


def write(report: dict[str, Any], stem: Path) -> None:
    """Write STEM.md, STEM.json and STEM.png; each appears whole or not at all.

    Args:
        report: "title", "about" (one line), "metric" (a key of `METRICS`) and "rows": {"row", "paper", "note",
            "values" {seed: value}, "mean", "spread", "minutes", "curves" {seed: [line of an epoch]}, "commands"}.
        stem: path without extension.
    """
    for extension, text in ((".md", markdown(report)), (".json", json.dumps(report, indent=2) + "\n")):
        with written_whole(stem.with_name(stem.name + extension)) as temporary:
            temporary.write_text(text)
    draw(stem.with_name(f"{stem.name}.png"), report)


def markdown(report: dict[str, Any]) -> str:
    """The table, and the commands that made it."""
    lines = [
        f"# {report['title']}", "", report["about"], "",
        f"| row | ours, {METRICS[report['metric']]} | of each seed | minutes | paper, COCO AP |",
        "| --- | --- | --- | --- | --- |", *map(_line, report["rows"]), "", "Commands:", "",
    ]  # fmt: skip
    commands = dict.fromkeys(command for row in report["rows"] for command in row["commands"])
    return "\n".join([*lines, *(f"    {command}" for command in commands), ""])


def _line(row: dict[str, Any]) -> str:
    ours = f"{row['mean']:.1f}" + ("" if row["spread"] is None else f" ± {row['spread']:.1f}")
    seeds = ", ".join(f"{seed}: {value:.1f}" for seed, value in row["values"].items())
    paper = "-" if row["paper"] is None else f"{row['paper']}" + (f" ({row['note']})" if row["note"] else "")
    return f"| {row['row']} | {ours} | {seeds} | {row['minutes']:.1f} | {paper} |"


def draw(path: Path, report: dict[str, Any]) -> None:
    """Validation over epochs, one colour a row and one line a seed, and each row's value beside the paper's."""
    from matplotlib.figure import Figure  # without pyplot: no display, no global state

    rows = report["rows"]
    figure = Figure(figsize=(11, 4.2 + 0.2 * len(rows)), layout="constrained")
    figure.suptitle("\n".join((report["title"], *textwrap.wrap(report["about"], 150))), fontsize=9)
    curves, values = figure.subplots(1, 2)
    shown = next(name for name in (report["metric"], "oks") if any(_points(row, name) for row in rows))
    colours = {row["row"]: f"C{i % 10}" for i, row in enumerate(rows)}
    for row in (row for row in rows if row["layers"] is None):  # what is read out shares another row's curve
        for i, points in enumerate(_points(row, shown)):
            label = row["row"] if i == 0 else None
            curves.plot(*zip(*points, strict=True), color=colours[row["row"]], marker="o", markersize=2.5, label=label)
    curves.set(title=f"validation, {CURVES[shown]}", xlabel="epoch", ylabel="percent")
    curves.xaxis.get_major_locator().set_params(integer=True)
    curves.legend(frameon=False, fontsize=8)
    for y, row in enumerate(rows):
        values.errorbar(row["mean"], y, xerr=row["spread"] or 0, fmt="o", color=colours[row["row"]], capsize=3)
        if row["paper"] is not None:
            values.plot(row["paper"], y, marker="|", markersize=14, color="0.4", linestyle="")
    values.set(title=f"dot: ours, {METRICS[report['metric']]}; bar: the paper's COCO AP", xlabel="percent")
    values.set_yticks(range(len(rows)), [row["row"] for row in rows], fontsize=8)
    values.invert_yaxis()
    for axis in (curves, values):
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    with written_whole(path) as temporary:
        figure.savefig(temporary, dpi=110, format="png")


def _points(row: dict[str, Any], name: str) -> list[list[tuple[int, float]]]:
    """(epoch, value) of each seed's curve."""
    curves = [[(line["epoch"], line[name]) for line in curve if name in line] for curve in row["curves"].values()]
    return [curve for curve in curves if curve]
