"""A report as a page: Markdown table, and a plot of accuracy against latency."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

from tfpose_edge.checkpoint import written_whole

FORMAT_COLOURS = {"onnx": "C0", "openvino": "C1", "coreml": "C2", "executorch": "C3"}
PRECISION_MARKS = {"fp32": "o", "fp16": "s", "int8": "^"}


def markdown(report: dict[str, Any]) -> str:
    """The page of a report of `converters.report`."""
    width, height = report["input_size_wh"]
    lines = [
        f"**{report['checkpoint']}** ({report['backbone']}, {width}x{height}) on {report['people']}"
        + (f", ranges of int8 from {report['ranges']}" if report["ranges"] else "") + ".",
        f"{report['machine']}; batch {report['batch']}, {report['rounds']} interleaved rounds. "
        f"The checkpoint itself: {accuracy_words(report['accuracy'])}.", "",
        *table(report), "",
    ]  # fmt: skip
    notes = {name_of(cell): [cell["error"]] if cell["error"] else cell["notes"] for cell in report["cells"]}
    lines += [f"* {name}: {'; '.join(words)}." for name, words in notes.items() if words]
    return "\n".join(lines).rstrip() + "\n"


def table(report: dict[str, Any]) -> list[str]:
    """Its rows, the headings first."""
    timed = [f"ms, {n} thread{'s' if n > 1 else ''}: p50 / p95 (cpu)" for n in report["threads"]]
    heads = ["artifact", "MB", "operations", "partitions", *timed, "load, s", "peak, MB", "p99 / max px"]
    heads += ["within 1 / 4 px", "scores differ", "AP", "PCK"]
    rows = [row(cell, report["threads"]) for cell in report["cells"]]
    return ["| " + " | ".join(one) + " |" for one in (heads, ["---"] * len(heads), *rows)]


def row(cell: dict[str, Any], threads: list[int]) -> list[str]:
    """The texts of one artifact; a dash is what could not be had, and the notes say why."""
    parity, weight, export = cell["parity"] or {}, cell["weight"] or {}, cell["export"]
    accuracy = parity.get("accuracy") or {}
    size = number(cell["bytes"] and cell["bytes"] / 1e6, ".2f")
    counts = [number(export.get(key), "d") for key in ("operations", "partitions")]
    times = [latency(cell["latency"].get(n) or cell["latency"].get(str(n))) for n in threads]
    load = [number(weight.get("load_s"), ".2f"), number(weight.get("peak_mb"), ".0f")]
    distance = "-" if not parity else f"{parity['p99_px']:.4g} / {parity['max_px']:.4g}"
    within = "-" if not parity else f"{100 * parity['within_1px']:.1f} / {100 * parity['within_4px']:.1f} %"
    right = [number(accuracy.get("ap"), ".1f"), number(accuracy.get("pck"), ".1f")]
    scores = number(parity.get("mean_score_difference"), ".2g")
    return [name_of(cell), size, *counts, *times, *load, distance, within, scores, *right]


def name_of(cell: dict[str, Any]) -> str:
    """`onnx int8 all`."""
    return " ".join(part for part in (cell["format"], cell["precision"], cell["mix"]) if part)


def number(value: float | None, form: str) -> str:
    """The number, or a dash."""
    return "-" if value is None else format(value, form)


def latency(figures: dict[str, float] | None) -> str:
    """p50 / p95 (processor time)."""
    return "-" if figures is None else "{p50_ms:.1f} / {p95_ms:.1f} ({cpu_ms:.1f})".format(**figures)


def accuracy_words(accuracy: dict[str, float | None] | None) -> str:
    """AP and PCK, or that nothing is labelled."""
    if accuracy is None:
        return "nothing is labelled"
    return f"AP {number(accuracy['ap'], '.1f')}, PCK@0.2 {number(accuracy['pck'], '.1f')}"


def draw(path: Path, report: dict[str, Any]) -> None:
    """Accuracy against latency, one mark an artifact; AP, or PCK where nobody is above 0 in AP."""
    from matplotlib.figure import Figure  # without pyplot: no display, no global state

    threads = report["threads"][0]
    metric = "ap" if (report["accuracy"] or {}).get("ap") else "pck"
    figure = Figure(figsize=(8, 5), layout="constrained")
    figure.suptitle("\n".join(textwrap.wrap(f"{report['checkpoint']}, {report['people']}; {report['machine']}", 90)))
    axes = figure.subplots()
    for cell in report["cells"]:
        figures, parity = cell["latency"].get(threads), cell["parity"] or {}
        right = (parity.get("accuracy") or {}).get(metric)
        if figures is not None and right is not None:
            colour, mark = FORMAT_COLOURS[cell["format"]], PRECISION_MARKS[cell["precision"]]
            axes.scatter(figures["cpu_ms"], right, s=45, label=name_of(cell), color=colour, marker=mark)
    if (report["accuracy"] or {}).get(metric):
        axes.axhline(report["accuracy"][metric], color="0.6", linewidth=0.8, label="checkpoint")
    axes.set(xlabel=f"ms of processor time, {threads} thread(s)", ylabel={"ap": "AP", "pck": "PCK@0.2"}[metric])
    axes.set_xlim(left=0)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, fontsize=8)
    with written_whole(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)
