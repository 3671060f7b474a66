"""Multi-scale deformable attention: every implementation checked, timed and weighed on TFPose's shapes.

    python benchmarks/msda.py --quick                         # two cases: the first thing to run
    python benchmarks/msda.py --plot msda.png --json msda.json --markdown msda.md
    python benchmarks/msda.py --filter "decoder b1 "          # what contains this text: case, then implementation
    python benchmarks/msda.py --only grid_sample fused --check-only      # TRITON_INTERPRET=1 compares without a GPU
    python benchmarks/msda.py --also my_module:my_sampler     # a sampler of your own beside ours
    python benchmarks/msda.py --engines                       # exported: onnxruntime, OpenVINO, ExecuTorch, 1 thread
    python benchmarks/msda.py --train-steps                   # whole training steps, fused against grid_sample; GPU

First every implementation is compared with grid_sample in fp64 on fresh random numbers, output and all gradients. Then
forward and backward are timed: on a GPU with events, a full queue and cold caches, batch 32..256, fp32 and bf16; else
on the CPU, batch 1 and 8, fp32. "of copy" is the least traffic (inputs read once, results written once) over the median
time, as a share of the copy bandwidth measured in the same run. "held" is what forward keeps for backward beyond its
inputs.

Exit status: 0, 2 for usage, 3 when an implementation is wrong, 5 when the device is not there.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import sys
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

if __name__ == "__main__":  # run as a file, the folder of the package is not on the path
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.attention import cases, correctness, speed, table
from benchmarks.attention.figure import Point, draw
from benchmarks.attention.implementations import COMPILED, implementations, own_sampler
from tfpose_edge.attention import Sampler, get_sampler
from tfpose_edge.attention.samplers import EXPORTABLE, SAMPLERS
from tfpose_edge.checkpoint import check_target, written_whole

ToTime = tuple[cases.Case, str, Sampler]
"""A case, the name of an implementation, and that."""
USAGE, WRONG, NO_DEVICE = 2, 3, 5
STEP_PRESETS = ("r50-ne4", "r18-ne6")


def main(argv: list[str] | None = None) -> int:
    """Run what the arguments ask for; the exit status."""
    parser = build_parser()
    args = parser.parse_args(argv)
    gpu = torch.cuda.is_available()
    device = torch.device(("cuda" if gpu else "cpu") if args.device == "auto" else args.device)
    if (device.type == "cuda" or args.train_steps) and not gpu:
        print("msda: needs a CUDA GPU, torch finds none here; legal is --device cpu", file=sys.stderr)
        return NO_DEVICE
    try:
        for path in filter(None, (args.json, args.markdown, args.plot)):
            check_target(path)
        found, missing = implementations(device)
        found |= dict(own_sampler(text) for text in args.also)
        chosen = choose(found, args.only)
        its_cells = chosen_cells(chosen, cases.cases(device, args.quick), args.filter)
    except ValueError as error:
        parser.error(str(error))
    torch.set_num_threads(1 if args.engines else args.threads)
    title = f"{device_name(torch.device('cpu') if args.engines else device)}, torch {torch.__version__}"
    print(title)
    if args.engines:
        return run_engines(args, title)
    for name, reason in missing.items():
        print(f"not here: {reason if reason.startswith(name) else f'{name}: {reason}'}")
    if args.train_steps:
        unknown = [name for name in args.only or () if name not in SAMPLERS]
        if unknown:
            parser.error(f"--train-steps --only {', '.join(unknown)}: legal are {', '.join(SAMPLERS)}")
        return run_steps(args, [name for name in args.only or ("grid_sample", "fused") if name in found], title)
    seed = random.SystemRandom().randrange(2**31) if args.seed is None else args.seed
    checks, good = run_checks(chosen, correctness.cases_for(device, args.quick), seed, device)
    if not args.check_only:
        run_speed(args, its_cells, device, title, {"seed": seed, "checks": checks})
    elif args.json:
        write(args.json, json.dumps({"title": title, "seed": seed, "checks": checks}, indent=2) + "\n")
    return 0 if good else WRONG


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python benchmarks/msda.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="two cases for each type of value")
    parser.add_argument("--filter", default="", metavar="TEXT", help="time only what has this text in `case name`")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="implementations; default: all that run here")
    parser.add_argument("--also", nargs="+", default=[], metavar="MODULE:FUNCTION", help="samplers of your own")
    parser.add_argument("--check-only", action="store_true", help="compare, time nothing")
    parser.add_argument("--engines", action="store_true", help="time the exported samplers in the engines instead")
    parser.add_argument("--train-steps", action="store_true", help="time whole training steps instead; needs a GPU")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--threads", type=int, default=1, help="of torch on the CPU (default 1: steadier than more)")
    parser.add_argument("--seconds", type=float, default=2.0, help="of timing for each cell (default 2)")
    parser.add_argument("--seed", type=int, help="of the random numbers that are compared (default: a fresh one)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="every figure, with the title and the checks")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="the table")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="the medians as a PNG")
    return parser


def choose(found: dict[str, Sampler], only: list[str] | None) -> dict[str, Sampler]:
    """The implementations asked for; ValueError names those that run here."""
    unknown = [name for name in only or [] if name not in found]
    if unknown:
        raise ValueError(f"--only {', '.join(unknown)}: not among what runs here: {', '.join(found)}")
    return {name: found[name] for name in only or found}


def chosen_cells(chosen: dict[str, Sampler], its_cases: list[cases.Case], text: str) -> list[ToTime]:
    """What has the text in `case name`; ValueError if nothing has."""
    found = [
        (case, name, sampler) for case in its_cases for name, sampler in chosen.items() if text in f"{case.name} {name}"
    ]
    if not found:
        example = f"{its_cases[0].name} {next(iter(chosen))}"
        raise ValueError(f"--filter: nothing to time has {text!r} in its name; one is '{example}'")
    return found


def run_checks(
    chosen: dict[str, Sampler], its_cases: tuple[cases.Case, ...], seed: int, device: torch.device
) -> tuple[list[dict[str, Any]], bool]:
    """Compare and print; (records, whether all passed). A compiled one is compared once: each case is a compilation."""
    print(f"against grid_sample in fp64, seed {seed}; differences as shares of each tensor's largest number")
    checks, good = [], True
    pairs = [(c, n) for c in its_cases for n in chosen if n != COMPILED or c is its_cases[0]]
    for case, name in tqdm(pairs, desc="checking", file=sys.stderr, leave=False):
        try:
            check = correctness.check(case, name, chosen[name], seed, device)
        except (RuntimeError, ValueError, TypeError) as error:
            missing = name == COMPILED or "NVRTC does not compile" in str(error)  # without a compiler: nobody's mistake
            verdict = "none" if missing else "FAIL"
            tqdm.write(f"{verdict}  {name:<21} {case.name:<34} {' '.join(str(error).split())[:200]}")
            good = good and missing
            continue
        tqdm.write(check.line())
        checks.append({**check._asdict(), "passed": check.passed})
        good = good and check.passed
    return checks, good


def run_speed(
    args: argparse.Namespace, pairs: list[ToTime], device: torch.device, title: str, facts: dict[str, Any]
) -> None:
    """Time the cells, print the table and write the files."""
    copy = speed.copy_bandwidth(device)
    title = f"{title}, copy {copy / 1e9:.1f} GB/s"
    print(title)
    cells = []
    bar = tqdm(pairs, desc="timing", file=sys.stderr, leave=False)
    for case, name, sampler in bar:
        bar.set_postfix_str(f"{case.name} {name}")
        torch.compiler.reset()
        cells.append(speed.measure(case, name, sampler, device, args.seconds, copy))
    records = [table.as_record(cell, copy) for cell in cells]
    rows = table.speed_rows(records)
    targets = table.target_lines(cells) if device.type == "cuda" else []
    publish(args, title, rows, {**facts, "copy_bytes_per_s": copy, "cells": records}, targets)
    if args.plot:
        floors = {
            (panel, record["case"]): record[f"{panel}_bytes"] / copy * 1e3
            for record in records
            for panel in ("forward", "backward")
        }
        draw(args.plot, title, [point for record in records for point in speed_points(record)], floors)


def speed_points(record: dict[str, Any]) -> list[Point]:
    """Forward and backward of a cell, if it was timed."""
    return [
        Point(panel, record["case"], record["implementation"], record[f"{panel}_ms"])
        for panel in ("forward", "backward")
        if record[f"{panel}_ms"] is not None
    ]


def run_engines(args: argparse.Namespace, title: str) -> int:
    """The exported samplers in the engines; `WRONG` if one of them computes something else than eager grid_sample."""
    from benchmarks.attention import engines

    names = [name for name in EXPORTABLE if not args.only or name in args.only or name == "grid_sample"]
    samplers = {name: get_sampler(name) for name in names}
    samplers |= dict(own_sampler(text) for text in args.also)
    its_cases = [case for case in engines.CASES if args.filter in case.name]
    if not its_cases:
        print(f"msda: --filter {args.filter!r} leaves none of {[case.name for case in engines.CASES]}", file=sys.stderr)
        return USAGE
    with tqdm(file=sys.stderr, leave=False) as bar:
        try:
            cells = engines.measure_engines(its_cases, samplers, args.seconds, bar.set_description)
        except ImportError as error:
            print(f"msda: --engines: {error}: pip install tfpose-edge[convert]", file=sys.stderr)
            return NO_DEVICE
    wrong = [cell for cell in cells if not cell.difference <= engines.TOLERANCE]
    lines = [f"FAIL  {c.part} {c.sampler} {c.engine}: differs by {c.difference:.1e}" for c in wrong]
    lines.append(f"largest difference {max(c.difference for c in cells):.1e}, tolerance {engines.TOLERANCE:.0e}")
    title = f"{title}, rounds interleaved, medians of processor time"
    publish(args, title, engines.engine_rows(cells), {"cells": [cell._asdict() for cell in cells]}, lines)
    if args.plot:
        points = [Point(cell.part, cell.engine, cell.sampler, cell.milliseconds) for cell in cells]
        draw(args.plot, title, points)
    return WRONG if wrong else 0


def run_steps(args: argparse.Namespace, samplers: list[str], title: str) -> int:
    """Whole training steps on the GPU."""
    from benchmarks.attention import steps

    with tqdm(file=sys.stderr, leave=False) as bar:
        done = list(steps.double_until_full(STEP_PRESETS, samplers, bar.set_description))
    publish(args, title, steps.step_rows(done), {"steps": [step._asdict() for step in done]}, [])
    return 0


def publish(
    args: argparse.Namespace, title: str, rows: list[list[str]], facts: dict[str, Any], lines: list[str]
) -> None:
    """Print the table with the lines below it; write it as --json and --markdown ask."""
    print("\n".join((table.as_text(rows), *lines)))
    if args.json:
        write(args.json, json.dumps({"title": title, **facts}, indent=2, default=str) + "\n")
    if args.markdown:
        below = "".join(f"- {line}\n" for line in lines)
        write(args.markdown, f"{title}\n\n{table.as_markdown(rows)}\n" + (f"\n{below}" if below else ""))


def write(path: Path, text: str) -> None:
    """The whole text, or no file."""
    with written_whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def device_name(device: torch.device) -> str:
    """Such as `NVIDIA H200` or `Intel(R) Xeon(R) Processor, 1 thread`."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    listed = Path("/proc/cpuinfo")  # where Linux says more than Python does
    lines = listed.read_text().splitlines() if listed.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    name = names[0] if names else platform.processor() or platform.machine()
    return f"{name}, {torch.get_num_threads()} thread{'s' * (torch.get_num_threads() > 1)}"


if __name__ == "__main__":
    sys.exit(main())
