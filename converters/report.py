"""One table of all formats and precisions of a checkpoint: python -m converters.report."""

from __future__ import annotations

import argparse
import dataclasses
import json
import platform
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from converters.cells import Cell, cells_of, make, time_all
from converters.command import batch_size, fail, stopwatch, unique
from converters.conversion import Options, Progress
from converters.formats import FORMATS
from converters.recipe import PRECISIONS
from converters.report_page import draw, markdown
from converters.source import Source, load_source, words
from runtime.errors import PoseError
from tfpose_edge.checkpoint import check_target, written_whole

DESCRIPTION = """\
Convert a checkpoint to every format and precision, measure each artifact, and write one table: size,
operations, latency, load time, memory, distance of its key points from the checkpoint's, AP and PCK.

  python -m converters.report best.safetensors --data ann.json:images --output report
  python -m converters.report best.safetensors --data ann.json:images:901-1000 --calibration ann.json:images:1-900 \\
      --formats onnx openvino --precisions fp32 int8 --every-mix --threads 1 --crops 100

Leaves report.md, report.json and report.png. Latencies are measured interleaved, in one process; memory and load time
in a process of each artifact's own. A cell that fails says why; the rest goes on.
"""


@dataclass(frozen=True)
class Plan:
    """What is measured."""

    checkpoint: Path
    data: str
    calibration: str | None
    """DATA of int8's ranges; None takes other people of `data`."""
    crops: int
    """People to compare on."""
    formats: Sequence[str]
    precisions: Sequence[str]
    every_mix: bool
    threads: Sequence[int]
    rounds: int
    batch: int
    keep: Path | None
    """Folder for the artifacts; None drops them."""
    debug: bool


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    parser = build_parser()
    args = parser.parse_args(argv)
    output = args.output or args.checkpoint.parent
    try:
        if args.json and args.json.parent != output:
            check_target(args.json)
        if args.checkpoint.is_file():  # otherwise loading it says what is wrong, and leaves no folder
            output.mkdir(parents=True, exist_ok=True)
        plan = Plan(**{field.name: getattr(args, field.name) for field in dataclasses.fields(Plan)})
        report = measure(plan, stopwatch())
        write(report, output / "report", args.json)
    except KeyboardInterrupt:
        return fail("interrupted", 130, args.debug)
    except PoseError as error:
        return fail(str(error), error.exit_code, args.debug)
    except ValueError as error:
        return fail(str(error), 2, args.debug)
    except OSError as error:
        return fail(f"cannot write: {error}", 3, args.debug)
    print(markdown(report))
    return 0 if any(cell["error"] is None for cell in report["cells"]) else 3


def measure(plan: Plan, progress: Progress) -> dict[str, Any]:
    """The report as JSON values; see `as_json` for a cell."""
    progress(f"crops of {plan.data}, through the checkpoint")
    precision = "int8" if "int8" in plan.precisions else "fp32"
    source = load_source(plan.checkpoint, precision, plan.data, plan.crops, plan.calibration)
    options = Options(batch=plan.batch, calibration=plan.data, crops=plan.crops, debug=plan.debug)
    cells = list(cells_of(unique(plan.formats), unique(plan.precisions), plan.every_mix))
    with tempfile.TemporaryDirectory(prefix="tfpose-report-") as scratch:
        folder = plan.keep or Path(scratch)
        for cell in cells:
            if cell.error is None:
                make(cell, source, folder, options, progress)
            progress(f"{cell.name}: {cell.error or 'done'}")
        for threads in plan.threads:
            time_all(cells, source, threads, plan.rounds, progress)
    return {**about(source, plan), "cells": [as_json(cell) for cell in cells]}


def about(source: Source, plan: Plan) -> dict[str, Any]:
    """What was measured, on what, and where."""
    accuracy = source.labels.accuracy(*source.expected) if source.labels else None
    return {
        "checkpoint": source.checkpoint.name,
        "backbone": source.model.config.backbone,
        "input_size_wh": source.model.config.input_size_wh,
        "people": f"{len(source.crops)} {words(plan.data)}",
        "ranges": source.ranges_of,
        "machine": machine(),
        "batch": plan.batch,
        "threads": plan.threads,
        "rounds": plan.rounds,
        "accuracy": accuracy._asdict() if accuracy else None,
    }


def machine() -> str:
    """The processor, and which of the instructions that matter to int8 and half it has."""
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.is_file():
        return platform.processor() or platform.machine()
    lines = dict(line.split(":", 1) for line in reversed(cpuinfo.read_text().splitlines()) if ":" in line)
    values = {key.strip(): value.strip() for key, value in lines.items()}
    flags = values.get("flags", "").split()
    names = {"avx2": "AVX2", "avx512f": "AVX-512", "avx512_vnni": "VNNI", "amx_int8": "AMX"}
    found = [name for flag, name in names.items() if flag in flags]
    return f"{values.get('model name', platform.machine())} ({', '.join(found) or 'no AVX2'})"


def as_json(cell: Cell) -> dict[str, Any]:
    """A cell as JSON values: the conversion's fields are in front, None where it failed."""
    done = cell.converted
    return {
        "format": cell.format,
        "precision": cell.precision,
        "mix": cell.mix,
        "error": cell.error,
        "notes": cell.notes,
        "bytes": done.bytes if done else None,
        "seconds": done.seconds if done else None,
        "sampler": done.sampler if done else None,
        "export": cell.export,
        "parity": parity_as_json(done.parity) if done and done.parity else None,
        "weight": cell.weight,
        "latency": cell.latency,
    }


def parity_as_json(parity: Any) -> dict[str, Any]:
    """Its fields, accuracies by name."""
    values = dataclasses.asdict(parity)
    for name in ("accuracy", "checkpoint_accuracy"):
        accuracy = getattr(parity, name)
        values[name] = accuracy._asdict() if accuracy else None
    return values


def write(report: dict[str, Any], stem: Path, json_path: Path | None) -> None:
    """STEM.md, STEM.json and STEM.png, each whole or not at all, and the JSON once more where it was asked for."""
    text = json.dumps(report, indent=1) + "\n"
    for path in [stem.with_suffix(".json"), *([json_path] if json_path else [])]:
        with written_whole(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    with written_whole(stem.with_suffix(".md")) as temporary:
        temporary.write_text(markdown(report), encoding="utf-8")
    draw(stem.with_suffix(".png"), report)


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m converters.report",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("checkpoint", type=Path, metavar="CHECKPOINT", help="a .safetensors file of training")
    add("--data", metavar="DATA", required=True, help="labelled people to compare on (forms: training.evaluate --help)")
    add("--calibration", metavar="DATA", help="people for the ranges of int8 (default: others of --data)")
    add("--crops", type=batch_size, default=64, metavar="N", help="how many people to compare on (default 64)")
    add("--formats", nargs="+", choices=FORMATS, default=list(FORMATS), metavar="FORMAT", help=", ".join(FORMATS))
    add("--precisions", nargs="+", choices=PRECISIONS, default=list(PRECISIONS), help="default: all")
    add("--every-mix", action="store_true", help="int8 in every mix of a format, not in the best alone")
    add("--threads", nargs="+", type=batch_size, default=[1, 2], metavar="N", help="of the engines (default 1 2)")
    add("--rounds", type=batch_size, default=50, metavar="N", help="inferences of each artifact (default 50)")
    add("--batch", type=batch_size, default=1, metavar="N", help="crops per inference (default 1)")
    add("--output", type=Path, metavar="DIR", help="for report.md, .json and .png (default: the checkpoint's folder)")
    add("--keep", type=Path, metavar="DIR", help="keep the artifacts there")
    add("--json", type=Path, metavar="FILE", help="the JSON here too")
    add("--debug", action="store_true", help="the exporters' own messages, and tracebacks")
    return parser


if __name__ == "__main__":
    sys.exit(main())
