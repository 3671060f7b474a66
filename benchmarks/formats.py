"""Which sampler each format should hold: whole networks, converted with every sampler, in the engines that run them.

    python benchmarks/formats.py --presets tiny                             # a minute of exporting, then the rounds
    python benchmarks/formats.py --presets r50-ne4 --formats executorch --samplers gather tent    # minutes
    python benchmarks/formats.py --presets tiny r18-ne0 --markdown formats.md

Networks have random weights, with offsets spread as trained ones are: caches feel how far a query looks. Each runs one
crop with 1 thread; ms are medians of processor time, the rounds of all samplers and formats of a preset interleaved, so
that what else the machine does falls on all alike. "differs" is the largest distance to the checkpoint's key points, in
crop px. The fastest is what `converters/formats.py` should name first.

Exit status: 0, 2 for usage, 3 when an artifact computes something else, 5 when a format's packages are missing.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from tqdm import tqdm

if __name__ == "__main__":  # run as a file, the folder of the package is not on the path
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.attention import engines, table
from benchmarks.attention.cases import SPREAD_PX
from benchmarks.msda import device_name, write
from converters.conversion import quiet
from converters.formats import FORMATS, check_installed, write_artifact
from converters.graph import ExportGraph
from converters.parity import LIMITS
from converters.recipe import Recipe
from converters.rewrites import rewrites_for
from runtime.backends import open_backend
from runtime.errors import BackendUnavailable
from tfpose_edge import PRESETS, TFPose
from tfpose_edge.attention import EXPORTABLE, DeformableAttention
from tfpose_edge.checkpoint import check_target

TIMED = tuple(name for name in FORMATS if name != "coreml")  # which runs on a Mac only
WRONG = 3


class Cell(NamedTuple):
    """One network in one format with one sampler."""

    preset: str
    format: str
    sampler: str
    milliseconds: float
    difference_px: float
    """Largest distance of a key point to the checkpoint's."""


def looking_around(preset: str) -> TFPose:
    """A network of random weights whose queries look about as far as a trained one's, each somewhere else."""
    torch.manual_seed(0)
    model = TFPose(PRESETS[preset], sampler="grid_sample").eval()
    for module in model.modules():
        if isinstance(module, DeformableAttention):
            nn.init.normal_(module.sampling_offsets.weight, 0, SPREAD_PX / module.sampling_offsets.in_features**0.5)
    for name, weight in model.keypoint_heads.named_parameters():
        if name.endswith("weight"):
            nn.init.normal_(weight, 0, 0.1)  # or all key points would stay where they start
    return model


def measure(
    preset: str, formats: Sequence[str], samplers: Sequence[str], seconds: float, say: Callable[[str], object]
) -> list[Cell]:
    """Every sampler in every format that can hold it, about `seconds` of rounds for each."""
    model = looking_around(preset)
    width, height = model.config.input_size_wh
    crop = np.random.default_rng(0).integers(0, 256, (1, 3, height, width), dtype=np.uint8)
    with torch.inference_mode():
        expected = model(torch.from_numpy(crop).float()).keypoints
    runners: dict[tuple[str, str], engines.Runner] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in formats:
            for sampler in (sampler for sampler in FORMATS[name].samplers if sampler in samplers):
                say(f"{preset} {name} {sampler}")
                runners[name, sampler] = converted(model, name, sampler, crop, Path(folder))
        say(f"{preset} rounds")
        off = {key: (run() - expected) * torch.tensor([width, height]) for key, run in runners.items()}
        times = engines.interleaved(runners, seconds * len(runners))
    return [Cell(preset, *key, statistics.median(times[key]), float(off[key].norm(dim=-1).max())) for key in runners]


def converted(model: TFPose, name: str, sampler: str, crop: NDArray[np.uint8], folder: Path) -> engines.Runner:
    """The network in a format, all rewrites applied, as the runtime runs it; gives key points (1, K, 2)."""
    path, dtype = folder / f"{sampler}{FORMATS[name].extension}", FORMATS[name].input_dtype
    with quiet():
        graph = ExportGraph(model, sampler, rewrites_for(name))
        write_artifact(name, graph, graph.example(1, dtype), path, Recipe())
        backend, given = open_backend(path, threads=1), crop.astype(dtype)
    return lambda: torch.from_numpy(backend.infer(given)[0])


def rows(cells: Sequence[Cell]) -> list[list[str]]:
    """Heading and one row a cell; the ratio is to the fastest of its preset and format."""
    found = [["preset", "format", "sampler", "ms", "ratio", "differs px"]]
    for cell in cells:
        rivals = [other.milliseconds for other in cells if other[:2] == cell[:2]]
        ratio = cell.milliseconds / min(rivals)
        found.append([*cell[:3], f"{cell.milliseconds:.2f}", f"{ratio:.2f}", f"{cell.difference_px:.1e}"])
    return found


def main(argv: list[str] | None = None) -> int:
    """Run the command line; the exit status."""
    parser = build_parser()
    args = parser.parse_args(argv)
    try:
        if args.markdown:
            check_target(args.markdown)
        for name in args.formats:
            check_installed(name)
    except ValueError as error:
        parser.error(str(error))
    except BackendUnavailable as error:
        print(f"formats: {error}", file=sys.stderr)
        return error.exit_code
    torch.set_num_threads(1)
    with tqdm(file=sys.stderr, leave=False) as bar:
        cells = [
            cell
            for preset in args.presets
            for cell in measure(preset, args.formats, args.samplers, args.seconds, bar.set_description)
        ]
    title = f"{device_name(torch.device('cpu'))}, batch 1, rounds interleaved, medians of processor time"
    print(title, table.as_text(rows(cells)), sep="\n")
    if args.markdown:
        write(args.markdown, f"{title}\n\n{table.as_markdown(rows(cells))}\n")
    wrong = [cell for cell in cells if not cell.difference_px <= LIMITS["fp32"].max_px]
    for cell in wrong:
        print(f"FAIL  {' '.join(cell[:3])}: differs by {cell.difference_px:.2g} px", file=sys.stderr)
    return WRONG if wrong else 0


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--presets", nargs="+", choices=PRESETS, default=["tiny"], metavar="PRESET", help=", ".join(PRESETS))
    add("--samplers", nargs="+", choices=EXPORTABLE, default=EXPORTABLE, metavar="S", help=", ".join(EXPORTABLE))
    add("--formats", nargs="+", choices=TIMED, default=TIMED, metavar="F", help=", ".join(TIMED))
    add("--seconds", type=float, default=2.0, help="of rounds for each network (default 2)")
    add("--markdown", type=Path, metavar="FILE", help="write the table there, too")
    return parser


if __name__ == "__main__":
    sys.exit(main())
