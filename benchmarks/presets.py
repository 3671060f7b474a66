"""What each preset costs on every engine: latency, size, load time and memory, beside the naive export of r50-ne4.

    python benchmarks/presets.py --presets tiny edge-n --formats onnx       # two minutes
    python benchmarks/presets.py --artifacts /tmp/presets                   # phones' and the paper's: 20 minutes
    python benchmarks/presets.py --artifacts /tmp/presets --markdown presets.md     # again: takes what is there

Artifacts are what `python -m converters` writes in fp32; "naive" is `--rewrites none`. Networks have random weights,
with offsets spread as trained ones are. All artifacts run one crop each in turn, so that what else the machine does
falls on all alike; ms are medians, of processor time with one thread and of the clock with more. The ratio is to the
naive export of r50-ne4 in onnxruntime with as many threads. Load time and memory at its peak are of a process of each
artifact's own. Core ML is written and has a size; it runs on a Mac only.

Exit status: 0, 2 for usage, 3 when a conversion fails, 5 when a format's packages are missing.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

if __name__ == "__main__":  # run as a file, the folder of the package is not on the path
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.attention import table
from benchmarks.formats import TIMED, looking_around
from benchmarks.msda import device_name, write
from converters.cells import Timed, weigh
from converters.conversion import Options, convert_checkpoint
from converters.formats import FORMATS, check_installed
from runtime.errors import PoseError
from runtime.sidecar import Sidecar, artifact_files
from tfpose_edge import PRESETS, save_checkpoint
from tfpose_edge.checkpoint import check_target

MEASURED = ("edge-n", "edge-s", "r18-ne0", "r50-ne4")
BASE = ("r50-ne4 naive", "onnx")
CROPS = 4  # that a conversion is checked on: these weights are random, and the tests check more


class Artifact(NamedTuple):
    """One preset in one format."""

    name: str
    """Of the preset, perhaps with `naive`."""
    format: str
    path: Path


class Row(NamedTuple):
    """What is known of an artifact."""

    preset: str
    format: str
    megabytes: float
    load_s: float | None
    peak_mb: float | None
    milliseconds: dict[int, float]
    """Threads -> median."""
    ratio: dict[int, float]
    """Threads -> to the base."""


def artifacts(
    presets: Sequence[str], formats: Sequence[str], folder: Path, say: Callable[[str], object]
) -> list[Artifact]:
    """Convert what is not there yet, the base first."""
    wanted = [BASE, *((preset, name) for preset in presets for name in formats)]
    found = []
    for name, format_name in wanted:
        preset, _, naive = name.partition(" ")
        place = folder / name.replace(" ", "-")
        path = place / f"pose{FORMATS[format_name].extension}"
        if not is_of(path, preset):
            say(f"{name} {format_name}: converting")
            place.mkdir(parents=True, exist_ok=True)
            checkpoint = place / "random.safetensors"
            save_checkpoint(checkpoint, looking_around(preset), {"config": PRESETS[preset].to_json()})
            options = Options(crops=CROPS, **({"rewrites": ()} if naive else {}))
            convert_checkpoint(checkpoint, [format_name], place, options)
            checkpoint.unlink()
        found.append(Artifact(name, format_name, path))
    return found


def is_of(path: Path, preset: str) -> bool:
    """Whether an artifact is there and of the preset as it is now."""
    sidecar = path.with_name(f"{path.name}.json")
    if not path.exists() or not sidecar.is_file():
        return False
    training = json.loads(sidecar.read_text())["provenance"].get("training", {})
    return bool(training.get("config") == PRESETS[preset].to_json())


def measure(found: Sequence[Artifact], threads: Sequence[int], rounds: int, say: Callable[[str], object]) -> list[Row]:
    """Weigh all, and time those that an engine here runs."""
    weights = {}
    for one in found:
        say(f"{one.name} {one.format}: weighing")
        weights[one] = weigh(one.path) if one.format in TIMED else {}
    times: dict[Artifact, dict[int, float]] = {one: {} for one in found}
    for count in threads:
        opened = {one: Timed(one.path, count, crops(one.path)) for one in found if one.format in TIMED}
        for round_number in range(-2, rounds):
            say(f"{count} threads: round {round_number + 1} of {rounds}")
            for timed in opened.values():
                timed.run(round_number)
        for one, timed in opened.items():
            figures = timed.figures()
            times[one][count] = figures["cpu_ms"] if count == 1 else figures["p50_ms"]
            timed.backend.close()
    base = times[found[0]]
    return [
        Row(
            one.name, one.format, megabytes(one.path), weights[one].get("load_s"), weights[one].get("peak_mb"),
            times[one], {count: its / base[count] for count, its in times[one].items()},
        )
        for one in found
    ]  # fmt: skip


def crops(path: Path) -> NDArray[np.uint8]:
    """Random pixels of the artifact's size."""
    width, height = Sidecar.read(path).input_size_wh
    return np.random.default_rng(0).integers(0, 256, (8, 3, height, width), dtype=np.uint8)


def megabytes(path: Path) -> float:
    """10^6 bytes of the artifact, all its files together."""
    return sum((path.parent / name).stat().st_size for name in artifact_files(path)) / 1e6


def as_rows(rows: Sequence[Row], threads: Sequence[int]) -> list[list[str]]:
    """Heading and one line a row."""
    per_thread = [text for n in threads for text in (f"ms, {n} thread{'s' * (n > 1)}", "ratio")]
    lines = [["preset", "format", "MB", "load s", "peak MB", *per_thread]]
    for row in rows:
        line = [row.preset, row.format, f"{row.megabytes:.1f}"]
        line += [
            "-" if value is None else f"{value:{form}}" for value, form in ((row.load_s, ".2f"), (row.peak_mb, ".0f"))
        ]
        for count in threads:
            has = count in row.milliseconds
            line += [f"{row.milliseconds[count]:.1f}", f"{row.ratio[count]:.4f}"] if has else ["-", "-"]
        lines.append(line)
    return lines


def main(argv: list[str] | None = None) -> int:
    """Run the command line; the exit status."""
    parser = build_parser()
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    try:
        for target in filter(None, (args.json, args.markdown)):
            check_target(target)
        for name in {*args.formats, BASE[1]}:
            check_installed(name)
        with tempfile.TemporaryDirectory() as temporary, tqdm(file=sys.stderr, leave=False) as bar:
            folder = args.artifacts or Path(temporary)
            found = artifacts(args.presets, args.formats, folder, bar.set_description)
            rows = measure(found, args.threads, args.rounds, bar.set_description)
    except PoseError as error:
        print(f"presets: {error}", file=sys.stderr)
        return error.exit_code
    except ValueError as error:
        parser.error(str(error))
    processor = device_name(torch.device("cpu")).partition(",")[0]
    title = f"{processor}, batch 1, {args.rounds} rounds interleaved, medians"
    print(title, table.as_text(as_rows(rows, args.threads)), sep="\n")
    if args.markdown:
        write(args.markdown, f"{title}\n\n{table.as_markdown(as_rows(rows, args.threads))}\n")
    if args.json:
        write(args.json, json.dumps({"machine": title, "rows": [row._asdict() for row in rows]}, indent=1) + "\n")
    return 0


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--presets", nargs="+", choices=PRESETS, default=list(MEASURED), metavar="PRESET", help=", ".join(PRESETS))
    add("--formats", nargs="+", choices=FORMATS, default=list(FORMATS), metavar="F", help=", ".join(FORMATS))
    add("--threads", nargs="+", type=int, default=[1, 2], metavar="N", help="of the engines (default 1 2)")
    add("--rounds", type=int, default=20, help="of one crop through each artifact (default 20)")
    add("--artifacts", type=Path, metavar="DIR", help="keep artifacts there, and take those that are there")
    add("--markdown", type=Path, metavar="FILE", help="write the table there, too")
    add("--json", type=Path, metavar="FILE", help="write the rows there, too")
    return parser


if __name__ == "__main__":
    sys.exit(main())
