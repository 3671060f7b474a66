"""What the rewrites of export graphs are worth: specialised / naive, and the distance from the floor.

    python benchmarks/export.py --presets tiny                  # a minute
    python benchmarks/export.py --artifacts /tmp/artifacts      # r18-ne0 r50-ne4 r18-ne6: ten minutes of converting
    python benchmarks/export.py --artifacts /tmp/artifacts      # again: takes what is there

Naive is `--rewrites none`: the network as it was trained. Specialised is what the converters write by default. Each
runs one crop with 1 thread; ms are medians of processor time, the rounds of all artifacts of a preset and of the matrix
product that gives the floor interleaved, so that what else the machine does falls on all alike. The floor is the time
that the specialised graph's multiply-adds would take at that product's rate. Weights are random, with offsets spread
as trained ones are. "differs" is the largest distance to the checkpoint's key points, in crop px.

Exit status: 0, 2 for usage, 3 when an artifact computes something else, 5 when a format's packages are missing.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

if __name__ == "__main__":  # run as a file, the folder of the package is not on the path
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.attention import table
from benchmarks.formats import looking_around
from benchmarks.msda import device_name, write
from converters.conversion import quiet
from converters.explain import gmacs, interleaved
from converters.formats import FORMATS, NAIVE_SAMPLER, check_installed, write_artifact
from converters.graph import ExportGraph
from converters.parity import LIMITS
from converters.recipe import Recipe
from converters.rewrites import rewrites_for
from runtime.backends import open_backend
from runtime.errors import BackendUnavailable
from tfpose_edge import PRESETS, TFPose
from tfpose_edge.checkpoint import check_target

GOALS = {"r18-ne0": 0.58, "r50-ne4": 0.86, "r18-ne6": 0.86}  # specialised / naive, in each engine
KINDS = ("naive", "specialised")
PRODUCT = 1024  # rows and columns of the matrices whose product gives the floor
WRONG = 3


class Row(NamedTuple):
    """One preset in one engine."""

    preset: str
    engine: str
    naive_ms: float
    specialised_ms: float
    ratio: float  # specialised / naive
    gmacs: float  # of the specialised graph
    gmacs_per_s: float  # of the matrix product, in the same rounds
    from_floor: float  # specialised / (gmacs / rate)
    differs_px: float  # the worse of both


def measure(
    preset: str, formats: Sequence[str], seconds: float, folder: Path, say: Callable[[str], object]
) -> list[Row]:
    """Naive and specialised in each format's engine, about `seconds` of rounds for each artifact."""
    model = looking_around(preset)
    width, height = model.config.input_size_wh
    crop = np.random.default_rng(0).integers(0, 256, (1, 3, height, width), dtype=np.uint8)
    with torch.inference_mode():
        expected = model(torch.from_numpy(crop).float()).keypoints.numpy()
    runs: dict[str, Callable[[], object]] = {"product": matrix_product()}
    differs = dict.fromkeys(formats, 0.0)
    for name in formats:
        for kind in KINDS:
            path = folder / f"{preset}-{kind}{FORMATS[name].extension}"
            if not path.exists():
                say(f"{preset} {name} {kind}: converting")
                convert(model, name, kind, path)
            backend, given = open_backend(path, threads=1), crop.astype(FORMATS[name].input_dtype)
            distance = np.linalg.norm((backend.infer(given)[0] - expected) * (width, height), axis=-1).max()
            differs[name] = max(differs[name], float(distance))
            runs[f"{name} {kind}"] = lambda backend=backend, given=given: backend.infer(given)  # type: ignore[misc]
    say(f"{preset}: rounds")
    times = {name: statistics.median(its) for name, its in interleaved(runs, seconds * len(runs)).items()}
    rate = PRODUCT**3 / times["product"] / 1e6
    return [row(preset, name, times, gmacs(specialised(model, name)), rate, differs[name]) for name in formats]


def row(preset: str, name: str, times: dict[str, float], cost: float, rate: float, differs: float) -> Row:
    """Ratios of what was measured."""
    naive, fast = (times[f"{name} {kind}"] for kind in KINDS)
    return Row(preset, FORMATS[name].engine, naive, fast, fast / naive, cost, rate, fast * rate / cost / 1e3, differs)


def specialised(model: TFPose, name: str) -> ExportGraph:
    """What the converter writes by default."""
    return ExportGraph(model, FORMATS[name].sampler, rewrites_for(name))


def convert(model: TFPose, name: str, kind: str, path: Path) -> None:
    """Write one artifact, without a sidecar."""
    graph = specialised(model, name) if kind == "specialised" else ExportGraph(model, NAIVE_SAMPLER)
    with quiet():
        write_artifact(name, graph, graph.example(1, FORMATS[name].input_dtype), path, Recipe())


def matrix_product() -> Callable[[], object]:
    """A large product in fp32, by the library that torch calls."""
    left: NDArray[np.float32] = np.random.default_rng(0).standard_normal((PRODUCT, PRODUCT), dtype=np.float32)
    factor, out = torch.from_numpy(left), torch.empty(PRODUCT, PRODUCT)
    return lambda: torch.mm(factor, factor, out=out)


def as_rows(rows: Sequence[Row]) -> list[list[str]]:
    """Heading and one line a row."""
    head = ["preset", "engine", "naive ms", "specialised ms", "ratio", "goal", "G", "G/s", "from floor", "differs px"]
    lines = [
        [
            r.preset, r.engine, f"{r.naive_ms:.1f}", f"{r.specialised_ms:.1f}", f"{r.ratio:.3f}",
            f"{GOALS[r.preset]:.2f}" if r.preset in GOALS else "-", f"{r.gmacs:.3f}", f"{r.gmacs_per_s:.1f}",
            f"{r.from_floor:.2f}", f"{r.differs_px:.1e}",
        ]
        for r in rows
    ]  # fmt: skip
    return [head, *lines]


def main(argv: list[str] | None = None) -> int:
    """Run the command line; the exit status."""
    parser = build_parser()
    args = parser.parse_args(argv)
    try:
        if args.json:
            check_target(args.json)
        for name in args.formats:
            check_installed(name)
    except ValueError as error:
        parser.error(str(error))
    except BackendUnavailable as error:
        print(f"export: {error}", file=sys.stderr)
        return error.exit_code
    torch.set_num_threads(1)
    say = lambda line: print(line, file=sys.stderr, flush=True)  # noqa: E731
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.artifacts or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        rows = [r for preset in args.presets for r in measure(preset, args.formats, args.seconds, folder, say)]
    title = f"{device_name(torch.device('cpu'))}, batch 1, rounds interleaved, medians of processor time"
    print(title, table.as_text(as_rows(rows)), sep="\n")
    if args.json:
        write(args.json, json.dumps({"machine": title, "rows": [r._asdict() for r in rows]}, indent=1) + "\n")
    wrong = [r for r in rows if not r.differs_px <= LIMITS["fp32"].max_px]
    for r in wrong:
        print(f"FAIL  {r.preset} {r.engine}: differs by {r.differs_px:.2g} px", file=sys.stderr)
    return WRONG if wrong else 0


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--presets", nargs="+", choices=PRESETS, default=list(GOALS), metavar="PRESET", help=", ".join(PRESETS))
    add("--formats", nargs="+", choices=("onnx", "openvino"), default=["onnx", "openvino"], metavar="F")
    add("--seconds", type=float, default=3.0, help="of rounds for each artifact (default 3)")
    add("--artifacts", type=Path, metavar="DIR", help="keep artifacts there, and take those that are there")
    add("--json", type=Path, metavar="FILE", help="write the rows there, too")
    return parser


if __name__ == "__main__":
    sys.exit(main())
