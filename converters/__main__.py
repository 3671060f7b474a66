"""Turn a checkpoint into artifacts that other engines run: `python -m converters --help`."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from converters.command import batch_size, fail, stopwatch, unique
from converters.conversion import Converted, Options, Progress, convert_checkpoint, explained, quiet
from converters.delegation import DELEGATES
from converters.formats import FORMATS, NAIVE_SAMPLER
from converters.parity import Parity
from converters.recipe import MIXES, PRECISIONS
from converters.rewrites import REWRITES, rewrites_for
from runtime.errors import PoseError
from runtime.sidecar import sidecar_path
from tfpose_edge import load_checkpoint
from tfpose_edge.attention import EXPORTABLE
from tfpose_edge.checkpoint import check_target, written_whole

DESCRIPTION = """\
Turn a TFPose checkpoint into artifacts for other engines, each with a sidecar (<artifact>.json) that
says what is inside. Every artifact is run on 64 crops and its key points are compared with the
checkpoint's. Over the limit of its precision nothing is written: fp32 0.05 px; fp16 99 % within 1 px and
all within 4 px; int8 95 % within 4 px; and where people are labelled, AP falls by 0.2, 0.2 and 1 at most.

  python -m converters runs/tiny/best.safetensors --to onnx openvino coreml executorch
  python -m converters best.safetensors --to onnx --calibration person_keypoints.json:images:1-64
  python -m converters best.safetensors --to onnx openvino --precision int8 --calibration coco:DIR:val2017
  python -m converters best.safetensors --to onnx --batch 4 --output deploy
  python -m converters best.safetensors --to onnx openvino --explain     # what each rewrite saves

Then: python -m runtime.webcam --model deploy/pose.onnx
"""
EPILOG = """\
exit codes: 0 done, 2 usage, 3 conversion or parity failed, 4 calibration data unreadable, 5 a format's
packages are missing, 130 interrupted. After a failure the output folder is as it was; artifacts whose
table has been printed stay, whatever becomes of --explain.
"""


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    parser = build_parser()
    args = parser.parse_args(argv)
    names = [field.name for field in dataclasses.fields(Options)]
    options = Options(**{name: getattr(args, name) for name in names})
    output = args.output or args.checkpoint.parent
    try:
        if args.json:
            refuse_overwriting(args.json, args.checkpoint, [output / options.file_name(name) for name in args.to])
            if output.exists() or args.json.parent != output:  # the conversion makes its own folder
                check_target(args.json)
        for name in args.to:
            options.check(name)
        if args.delegate != "xnnpack" and "executorch" not in args.to:
            raise ValueError(f"--delegate {args.delegate} is for executorch, which --to does not name")
    except ValueError as error:
        parser.error(str(error))
    progress = stopwatch()
    try:
        converted = convert_checkpoint(args.checkpoint, unique(args.to), output, options, progress)
        if args.json:
            write_json(args.json, converted)
        print(table(converted), flush=True)  # they are there, whatever becomes of the explanations
        if args.explain:
            print("\n" + explanations(args.checkpoint, unique(args.to), options, progress))
    except KeyboardInterrupt:
        return fail("interrupted", 130, args.debug)
    except PoseError as error:
        return fail(str(error), error.exit_code, args.debug)
    except OSError as error:
        return fail(f"cannot write: {error}", 3, args.debug)
    return 0


def refuse_overwriting(json_path: Path, checkpoint: Path, artifacts: Sequence[Path]) -> None:
    """ValueError for a table that would take the place of the checkpoint, an artifact or a sidecar."""
    taken = [checkpoint, *artifacts, *(sidecar_path(artifact) for artifact in artifacts)]
    if json_path.resolve() in [path.resolve() for path in taken]:
        raise ValueError(
            f"--json {json_path}: is the checkpoint, an artifact or its sidecar; the table needs its own name"
        )


def explanations(checkpoint: Path, names: Sequence[str], options: Options, progress: Progress) -> str:
    """What each rewrite saves in each format, as text."""
    from converters.explain import as_text, explain

    model, texts = load_checkpoint(checkpoint, sampler=NAIVE_SAMPLER), []
    for name in names:
        with explained(f"{name}: the explanation failed"), quiet(options.debug):
            sampler, rewrites = options.sampler_for(name), rewrites_for(name, options.rewrites)
            texts.append(f"{name}\n{as_text(explain(model, name, sampler, rewrites, progress))}\n")
    return "\n".join(texts)


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m converters",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="a .safetensors file of training")
    parser.add_argument("--to", nargs="+", required=True, choices=FORMATS, metavar="FORMAT", help=", ".join(FORMATS))
    parser.add_argument("--precision", choices=PRECISIONS, default="fp32", help=precision_help())
    parser.add_argument("--mix", choices=("auto", *MIXES), default="auto", help=mix_help())
    parser.add_argument("--image-input", action="store_true", help="Core ML: the crop comes as an RGB image")
    parser.add_argument(
        "--calibration",
        metavar="DATA",
        help="people to compare on, and others of them for the ranges of int8 (default: rendered people)",
    )
    parser.add_argument(
        "--crops", type=batch_size, default=64, metavar="N", help="how many people to compare on (default 64)"
    )
    parser.add_argument(
        "--sampler", choices=("auto", *EXPORTABLE), default="auto",
        help="implementation of deformable sampling (default auto: the one measured as fastest in each format)",
    )  # fmt: skip
    parser.add_argument(
        "--rewrites", type=rewrite_names, default=tuple(REWRITES), metavar="all|none|NAME,...",
        help=f"exact rewrites of the graph (default all: {', '.join(REWRITES)}); none: the model as it was trained",
    )  # fmt: skip
    parser.add_argument(
        "--decoder-layers", type=at_least_one, metavar="N",
        help="drop the decoder layers after the first N: faster and NOT exact; parity is with the whole checkpoint, "
        "so it usually needs --accept",
    )  # fmt: skip
    parser.add_argument(
        "--explain", action="store_true",
        help="print what each rewrite saves in the engine (operations, G multiply-adds, ms); converts once per rewrite",
    )  # fmt: skip
    parser.add_argument(
        "--delegate", choices=DELEGATES, default="xnnpack",
        help="of ExecuTorch (default xnnpack, for any CPU); coreml, vulkan: pose-<delegate>.pte, unverified",
    )  # fmt: skip
    parser.add_argument("--batch", type=batch_size, default=1, metavar="N", help="crops per inference (default 1)")
    parser.add_argument(
        "--accept", action="store_true", help="write artifacts that are over the limit; sidecars say so"
    )
    parser.add_argument("--output", type=Path, metavar="DIR", help="folder (default: the checkpoint's)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the table as JSON too")
    parser.add_argument("--debug", action="store_true", help="the exporters' own messages, and tracebacks")
    return parser


def precision_help() -> str:
    """What each precision means, and the formats that have it."""
    formats = {p: [name for name, row in FORMATS.items() if p in row.precisions] for p in PRECISIONS}
    return "; ".join(f"{p} ({', '.join(formats[p]) or 'none yet'}): {what}" for p, what in PRECISIONS.items())


def mix_help() -> str:
    """What int8 and fp16 can mean in which format."""
    texts = []
    for precision in ("int8", "fp16"):
        legal = {name: " or ".join(row.mixes_of(precision)) for name, row in FORMATS.items()}
        texts.append(f"{precision} ({', '.join(f'{name}: {mixes}' for name, mixes in legal.items() if mixes)})")
    meanings = "; ".join(f"{mix}: {what}" for mix, what in MIXES.items())
    return f"of {' and '.join(texts)}; default the first. {meanings}"


def rewrite_names(text: str) -> tuple[str, ...]:
    """The rewrites that `all`, `none` or a comma-separated list means, in the table's order."""
    if text in ("all", "none"):
        return tuple(REWRITES) if text == "all" else ()
    names = text.split(",")
    unknown = [name for name in names if name not in REWRITES]
    if unknown:
        raise argparse.ArgumentTypeError(f"unknown {', '.join(unknown)!r}; legal are all, none, {', '.join(REWRITES)}")
    return tuple(name for name in REWRITES if name in names)


def at_least_one(text: str) -> int:
    """An integer of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not an integer of at least 1")
    return int(text)


def write_json(path: Path, converted: list[Converted]) -> None:
    """The table as JSON, whole or not at all; OSError if it cannot be written."""
    try:
        with written_whole(path) as temporary:
            text = json.dumps([as_json(one) for one in converted], indent=1)
            temporary.write_text(text + "\n", encoding="utf-8")
    except ValueError as error:
        raise OSError(str(error)) from error


def as_json(one: Converted) -> dict[str, object]:
    """A row of the table as JSON."""
    return {**dataclasses.asdict(one), "file": str(one.file)}


def table(converted: list[Converted]) -> str:
    """Format, file, size, parity: one line each."""
    rows = [("format", "file", "MB", "seconds", "max px", "p99 px", "checked in")]
    for one in converted:
        size, seconds = f"{one.bytes / 1e6:.1f}", f"{one.seconds:.1f}"
        rows.append((one.format, str(one.file), size, seconds, *in_words(one.parity)))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def in_words(parity: Parity | None) -> tuple[str, str, str]:
    """The table's last cells: largest and 99th percentile distance in px, and what ran the artifact."""
    if parity is None:
        return "-", "-", "nothing here: unverified"
    note = parity.engine + ("" if parity.meaningful else ", not meaningful")
    return f"{parity.max_px:.5f}", f"{parity.p99_px:.5f}", note + (", over the limit" if parity.accepted else "")


if __name__ == "__main__":
    sys.exit(main())
