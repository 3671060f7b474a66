"""Draw the paper's figures: of a checkpoint on annotated pictures, and of runs.

    python -m training.figures all runs/tiny/best.safetensors --data val.json:images --json figures.json
    python -m training.figures 11 runs/tiny/best.safetensors --data val.json:images --keypoints left_wrist nose
    python -m training.figures 5 --runs runs/with runs/without --labels "with aux loss" "wo aux loss"

A figure is OUTPUT/figure-NN.png. `all` draws what the arguments allow and names the rest with the reason. Pictures are
cut as the network sees them: by the true boxes, without augmentation.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from runtime.errors import InputError, PoseError
from tfpose_edge.checkpoint import check_target, written_whole
from training.data.damage import say
from training.data.spec import teach
from training.figures.album import FIGURES, Album, Wishes
from training.figures.examples import RANKS
from training.figures.page import CannotDraw
from training.people import data_name
from training.predictor import DEVICES

OF_QUERIES = (6, 8, 9)  # figures whose numbers --json holds


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = _parser()
    args = parser.parse_args(argv)
    try:
        _check_usage(args)
    except ValueError as error:
        parser.error(str(error))
    try:
        _draw(_album(args), [*FIGURES] if args.figure == "all" else [int(args.figure)], args)
    except (PoseError, ValueError, OSError) as error:
        if args.debug:
            raise
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        fallback = InputError.exit_code if isinstance(error, OSError) else 2
        return error.exit_code if isinstance(error, PoseError) else fallback
    except KeyboardInterrupt:
        return 130
    return 0


def _draw(album: Album, figures: list[int], args: argparse.Namespace) -> None:
    """Draw and print the paths; one figure of several that cannot be drawn is named, one alone is an error."""
    drawn = 0
    for number in figures:
        try:
            if number == 12 and len(figures) > 1 and args.keypoints:
                raise CannotDraw("the same as figure 11, with --keypoints")
            paths = album.draw(number)
        except CannotDraw as error:
            if len(figures) == 1:
                raise CannotDraw(f"figure {number}: {error}") from error
            say(f"figure {number} left out: {error}")
            continue
        drawn += len(paths)
        print(*paths, sep="\n")
    if not drawn:
        raise CannotDraw("nothing to draw: give MODEL and --data DATA, or --runs DIR ...")
    if args.json:
        _write_numbers(album, args)


def _write_numbers(album: Album, args: argparse.Namespace) -> None:
    """The numbers of figures 6, 8 and 9 as JSON, or a line that says why there are none."""
    try:
        content = {"model": str(args.model), "data": args.data, **album.query_numbers()}
    except CannotDraw as error:
        say(f"{args.json} left out: {error}")
        return
    with written_whole(args.json) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n")


def _album(args: argparse.Namespace) -> Album:
    """The album that the command line asks for; makes its folder."""
    runs = args.runs or []
    if not runs and args.model is not None and (args.model.parent / "metrics.jsonl").is_file():
        runs = [args.model.parent]  # a checkpoint that lies in the folder of its run
    wishes = Wishes(args.count, args.layer, args.level, tuple(args.keypoints), args.edges, args.rank_by)
    names = ("/".join(args.model.parts[-2:]) if args.model else "", data_name(args.data) if args.data else "")
    args.output.mkdir(parents=True, exist_ok=True)
    if args.json:
        check_target(args.json)
    labelled = list(zip(runs, args.labels or [None] * len(runs), strict=True))
    return Album(args.output, args.model, args.data, labelled, wishes, names, args.device, progress=True)


def _check_usage(args: argparse.Namespace) -> None:
    """ValueError for options that have no meaning together, and for a file of numbers that there are not."""
    if args.labels and len(args.labels) != len(args.runs or []):
        raise ValueError(f"{len(args.labels)} --labels for {len(args.runs or [])} --runs; there must be one each")
    if args.figure not in ("all", "5") and (args.model is None or args.data is None):
        raise ValueError(f"figure {args.figure} needs MODEL and --data DATA")
    if args.json and args.figure not in ("all", *map(str, OF_QUERIES)):
        raise ValueError(f"--json holds the numbers of figures 6, 8 and 9, not of {args.figure}")


def _at_least_one(text: str) -> int:
    """An integer of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not an integer of at least 1")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    about = "\n".join(f"  {number:<4}{what}" for number, what in FIGURES.items())
    parser = argparse.ArgumentParser(
        prog="python -m training.figures", formatter_class=argparse.RawDescriptionHelpFormatter,
        description=f"{__doc__}\nFIGURE is one of\n{about}\n  all\n\nDATA is one of\n{teach()}",
    )  # fmt: skip
    add = parser.add_argument
    add("figure", choices=[*map(str, FIGURES), "all"], metavar="FIGURE", help="number in the paper, or all")
    add("model", type=Path, nargs="?", metavar="MODEL", help="a checkpoint; figure 5 needs none")
    add("--data", metavar="DATA", help="annotated pictures, in one of the forms above; figure 5 needs none")
    add("--output", type=Path, default=Path("figures"), metavar="DIR", help="folder of the PNGs (default figures)")
    add("--runs", type=Path, nargs="+", metavar="DIR", help="run folders of figure 5 (default: MODEL's, if it is one)")
    add("--labels", nargs="+", metavar="TEXT", help="what the curves of the runs are called (default: by folder)")
    add("--count", type=_at_least_one, default=4, metavar="N", help="persons shown: rows of 7, 11, 12, columns of 10")
    add("--keypoints", nargs="+", default=[], metavar="NAME", help="key points of figures 7, 11 and 12")
    add("--layer", type=_at_least_one, metavar="N", help="decoder layer of figures 7, 11 and 12 (default the last)")
    add("--level", type=_at_least_one, default=3, metavar="N", help="level of figure 7 (default 3, stride 8)")
    add("--edges", type=_at_least_one, metavar="N", help="pairs in figures 8 and 9 (default: as many as key points)")
    add("--rank-by", choices=RANKS, default="oks", help="what ranks the predictions of figure 10 (default oks)")
    add("--device", default="cpu", help=f"of the network: {' or '.join(DEVICES)} (default cpu)")
    add("--json", type=Path, metavar="FILE", help="the numbers behind figures 6, 8 and 9")
    add("--debug", action="store_true", help="show tracebacks")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
