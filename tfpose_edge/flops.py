"""What a network costs, in G multiply-adds, beside what the paper says it costs.

    python -m tfpose_edge.flops                    # every preset
    python -m tfpose_edge.flops --preset r50-ne4   # one
    python -m tfpose_edge.flops --paper            # every architecture row of tables 1..5

Counted by torch's flop counter (two flops are one multiply-add) on the inference path of one crop, with the
grid_sample sampler and the memory projected before sampling, as the paper's authors would have run it.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from tfpose_edge.checkpoint import check_target, written_whole
from tfpose_edge.config import PRESETS, PoseConfig
from tfpose_edge.model import TFPose

PAPER_ROWS: tuple[tuple[str, str, dict[str, int], float], ...] = (
    ("table 1: R18, N_E 0, no q2q", "r18-ne0-noq2q", {}, 3.51),
    ("table 1: R18, N_E 0, q2q", "r18-ne0", {}, 3.61),
    ("table 2: R18, N_E 0, C 128", "r18-ne0-c128", {}, 2.28),
    ("table 2: R18, N_E 0, C 256", "r18-ne0", {}, 3.61),
    *(
        (f"table 3: R18, N_E 6, N_D {n}", "r18-ne6", {"num_decoder_layers": n}, gflops)
        for n, gflops in enumerate((6.32, 6.41, 6.50, 6.59, 6.68, 6.77), start=1)
    ),
    ("table 4: R18, N_E 6", "r18-ne6", {}, 6.76),
    ("table 5: R50, N_E 4, 256x192", "r50-ne4", {}, 7.68),
    ("table 5: R50, N_E 6, 256x192", "r50-ne6", {}, 9.15),
    ("table 5: R50, N_E 6, 384x288", "r50-ne6-384", {}, 20.4),
)
"""(row, preset, changes to it, G multiply-adds printed in the paper)."""


def count_gmacs(config: PoseConfig) -> float:
    """G multiply-adds of one crop through the network, without the auxiliary head; needs no weights' memory."""
    with torch.device("meta"):
        model = TFPose(config, sampler="grid_sample").eval()
        width, height = config.input_size_wh
        with FlopCounterMode(display=False) as counter:
            model(torch.zeros(1, 3, height, width))
    return float(counter.get_total_flops()) / 2e9


def paper_table() -> list[dict[str, str | float]]:
    """Rows {"row", "preset", "paper", "ours"}, in G multiply-adds."""
    return [
        {"row": row, "preset": preset, "paper": paper,
         "ours": round(count_gmacs(dataclasses.replace(PRESETS[preset], **changes)), 3)}  # type: ignore[arg-type]
        for row, preset, changes, paper in PAPER_ROWS
    ]  # fmt: skip


def main(argv: list[str] | None = None) -> int:
    """Print the table that the arguments ask for."""
    parser = argparse.ArgumentParser(
        prog="python -m tfpose_edge.flops", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", choices=sorted(PRESETS), help="count this preset only")
    parser.add_argument("--paper", action="store_true", help="the paper's rows beside ours")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows as JSON, too")
    args = parser.parse_args(argv)
    try:
        if args.json:
            check_target(args.json)
    except ValueError as error:
        parser.error(str(error))
    rows = paper_table() if args.paper else _preset_table([args.preset] if args.preset else list(PRESETS))
    for row in rows:
        print(_line(row))
    if args.json:
        with written_whole(args.json) as temporary:
            temporary.write_text(json.dumps(rows, indent=2) + "\n")
    return 0


def _preset_table(presets: list[str]) -> list[dict[str, str | float]]:
    return [{"preset": preset, "ours": round(count_gmacs(PRESETS[preset]), 3)} for preset in presets]


def _line(row: dict[str, str | float]) -> str:
    if "paper" not in row:
        return f"{row['preset']:<16} {row['ours']:8.3f} G"
    paper, ours = float(row["paper"]), float(row["ours"])
    return f"{row['row']:<34} {row['preset']:<14} paper {paper:6.2f} G   ours {ours:7.3f} G   {ours / paper - 1:+.2%}"


if __name__ == "__main__":
    raise SystemExit(main())
