"""Repeat the paper's ablations: train a table's rows under one budget and print our values beside the paper's.

    python -m training.ablate --table 1 --data coco:coco2017:train2017 --val coco:coco2017:val2017 --seeds 0 1 2
    python -m training.ablate --table rivals --preset tiny --data ann.json:images:1-900 \\
        --val ann.json:images:901-1000 --budget-minutes 60 --jobs 2 -- --batch-size 16 --augment strong

Rows are the paper's network of that table, or --preset with --change, with the fields replaced that the table is about.
What stands behind -- goes to every row's `python -m training.train`. Every row and seed has a run folder in the output;
the same command again trains what is missing and resumes what was interrupted. Measured are the weights of the last
epoch: AP where the validation data has COCO's key points, PCK@0.2 where not, on crops from true boxes.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from pathlib import Path

from runtime.errors import InputError, PoseError
from tfpose_edge.checkpoint import check_target, written_whole
from training import comparison
from training.ablation import Order, compare
from training.data.damage import say
from training.data.spec import teach
from training.tables import TABLES


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    given = list(sys.argv[1:] if argv is None else argv)
    cut = given.index("--") if "--" in given else len(given)
    parser = _parser()
    args = parser.parse_args(given[:cut])
    try:
        order = _order(args, tuple(given[cut + 1 :]))
    except (ValueError, PoseError) as error:
        parser.error(str(error))
    former = signal.signal(signal.SIGTERM, signal.default_int_handler)  # runs end with their states saved
    try:
        report = compare(order, args.epochs, args.budget_minutes)
        stem = order.output / f"table-{order.name}"
        comparison.write(report, stem)
        if args.json:
            with written_whole(args.json) as temporary:
                temporary.write_text(json.dumps(report, indent=2) + "\n")
        print(comparison.markdown(report))
    except (PoseError, ValueError, OSError) as error:
        if args.debug:
            raise
        print(f"error: {error}", file=sys.stderr)
        fallback = InputError.exit_code if isinstance(error, OSError) else 2
        return error.exit_code if isinstance(error, PoseError) else fallback
    except KeyboardInterrupt:
        say("stopped; the same command goes on")
        return 130
    finally:
        signal.signal(signal.SIGTERM, former)
    return 0


def _order(args: argparse.Namespace, extra: tuple[str, ...]) -> Order:
    """ValueError for what cannot be meant."""
    table = TABLES[args.table]
    for name, least in (("epochs", 1), ("jobs", 1)):
        value = getattr(args, name)
        if value is not None and value < least:
            raise ValueError(f"--{name} is {value}; it must be at least {least}")
    if args.budget_minutes is not None and not 0 < args.budget_minutes < float("inf"):
        raise ValueError(f"--budget-minutes is {args.budget_minutes}; it must be a finite number above 0")
    if len(set(args.seeds)) < len(args.seeds):
        raise ValueError(f"--seeds {' '.join(map(str, args.seeds))}: every seed once")
    if args.json:
        check_target(args.json)
    preset = args.preset or table.preset
    order = Order(
        args.table, table, preset, tuple(args.change), tuple(args.data), args.val, tuple(args.seeds), args.output,
        args.jobs, extra,
    )  # fmt: skip
    for row in table.rows:
        order.changes_of(row)
    return order


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m training.ablate", description=f"{__doc__}\nDATA is one of\n{teach()}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--table", required=True, choices=TABLES, help="of the paper; rivals are of its table 5")
    parser.add_argument("--data", nargs="+", default=[], metavar="DATA", help="to train on; default: rendered people")
    parser.add_argument("--val", required=True, metavar="DATA", help="to measure on, after every epoch and at the end")
    parser.add_argument("--preset", help="base of all rows; default: the paper's network of the table")
    parser.add_argument("--change", nargs="+", default=[], metavar="FIELD=VALUE", help="fields of the base to replace")
    budget = parser.add_mutually_exclusive_group()
    budget.add_argument("--epochs", type=int, help="of every run; default: the preset's")
    budget.add_argument(
        "--budget-minutes", type=float, metavar="M", help="of every run: all get the epochs that the slowest does in it"
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], metavar="S")
    parser.add_argument("--output", type=Path, default=Path("runs/ablate"), help="for run folders and tables")
    parser.add_argument("--jobs", type=int, default=1, help="runs side by side; they share the CPUs")
    parser.add_argument("--json", type=Path, metavar="FILE", help="the report as JSON, also in the output")
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
