"""Figures as a table: aligned text, Markdown, and the targets that they are held against."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from benchmarks.attention.speed import Cell

TARGET_CASE = "256x192 C2-C5 encoder b32"
TARGETS = (
    ("forward", torch.bfloat16, 0.3, "ms"),
    ("forward", torch.float32, 0.6, "ms"),
    ("backward", torch.bfloat16, 1.5, "ms"),
    ("backward / forward", torch.bfloat16, 3.0, "times"),
    ("backward / forward", torch.float32, 3.0, "times"),
)
"""(what, type of the values, most, unit) of `TARGET_CASE` on a GPU of the H200's class; the ratios are a stretch."""


def as_record(cell: Cell, copy_bytes_per_s: float) -> dict[str, Any]:
    """All that is known of a cell, JSON-able; bytes/s are the least traffic over the median time."""
    record: dict[str, Any] = {**cell._asdict(), "case": cell.case.name}
    record["dtype"] = str(cell.case.dtype).removeprefix("torch.")
    for name, least in (("forward", cell.case.forward_bytes()), ("backward", cell.case.backward_bytes())):
        milliseconds = record[f"{name}_ms"]
        record[f"{name}_bytes"] = least
        record[f"{name}_bytes_per_s"] = least / milliseconds * 1e3 if milliseconds else None
        record[f"{name}_share_of_copy"] = least / milliseconds * 1e3 / copy_bytes_per_s if milliseconds else None
    record["backward_over_forward"] = ratio_of(cell)
    return record


def ratio_of(cell: Cell) -> float | None:
    """Backward over forward; None of a cell without figures."""
    return cell.backward_ms / cell.forward_ms if cell.backward_ms and cell.forward_ms else None


def speed_rows(records: Sequence[dict[str, Any]]) -> list[list[str]]:
    """Heading and one row a cell; a cell without figures says why."""
    rows = [["case", "implementation", "forward ms", "GB/s", "of copy", "backward ms", "GB/s", "of copy",
             "backward / forward", "forward + backward ms", "held MB", "with inputs"]]  # fmt: skip
    for record in records:
        row = [record["case"], record["implementation"]]
        if record["reason"]:
            rows.append([*row, record["reason"], *[""] * 9])
            continue
        for name in ("forward", "backward"):
            row += [f"{record[f'{name}_ms']:.3f}", f"{record[f'{name}_bytes_per_s'] / 1e9:.1f}"]
            row += [f"{record[f'{name}_share_of_copy']:.1%}"]
        row += [
            f"{record['backward_over_forward']:.1f}",
            f"{record['both_ms']:.3f}",
            f"{record['held_bytes'] / 1e6:.1f}",
        ]
        rows.append([*row, f"{record['held_with_inputs'] / 1e6:.1f}"])
    return rows


def target_lines(cells: Sequence[Cell]) -> list[str]:
    """What the targets say of every cell that they are about, `met` or `missed`."""
    lines = []
    for name, dtype, most, unit in TARGETS:
        for cell in cells:
            found = {"forward": cell.forward_ms, "backward": cell.backward_ms}.get(name, ratio_of(cell))
            if found is None or cell.case.dtype != dtype or not cell.case.name.startswith(TARGET_CASE + " "):
                continue
            verdict = "met" if found <= most else "missed"
            lines.append(f"{cell.case.name}: {name} <= {most} {unit}: {cell.implementation} {found:.3f}, {verdict}")
    return lines


def as_text(rows: Sequence[Sequence[str]]) -> str:
    """Aligned columns: the first two to the left, figures to the right; a reason may run over its neighbours."""
    widths = [max(len(row[i]) for row in rows if not _is_reason(row) or i < 2) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        left = [cell.ljust(width) for cell, width in zip(row[:2], widths[:2], strict=True)]
        figures = [cell.rjust(width) for cell, width in zip(row[2:], widths[2:], strict=True)]
        lines.append("  ".join([*left, *(row[2:] if _is_reason(row) else figures)]).rstrip())
    return "\n".join(lines)


def as_markdown(rows: Sequence[Sequence[str]]) -> str:
    """The same as a Markdown table."""
    ruler = ["---", "---", *["---:"] * (len(rows[0]) - 2)]
    return "\n".join("| " + " | ".join(row) + " |" for row in (rows[0], ruler, *rows[1:]))


def _is_reason(row: Sequence[str]) -> bool:
    return len(row) > 3 and not row[3]
