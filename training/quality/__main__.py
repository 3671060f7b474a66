"""How good a model is: each key point at two thresholds, what its scores mean, and what costs or brings accuracy.

    python -m training.quality models/edge-s.safetensors --data ann.json:images:901-1000 --output quality
    python -m training.quality runs/a/best.safetensors pose.onnx pose-int8.onnx --data ann.json:images --sizes 128,160

Every model answers as it is, with the flip test, and without boxes, the whole picture being one crop; an artifact also
looks for one person by itself (`Pose.find`, dozens of runs for each picture), a TFPose checkpoint answers with
fewer decoder layers and on crops of other --sizes. Several models stand side by side: precisions of one, or rivals
trained with --network on one backbone. All other crops come from the true boxes. The output folder gets quality.md,
quality.json and reliability.png.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from pathlib import Path
from typing import Any

from tqdm import tqdm

from runtime.errors import InputError, PoseError
from tfpose_edge.checkpoint import check_target, written_whole
from training.data.persons import PersonSet
from training.data.reading import load_persons
from training.data.spec import DataSpec, teach
from training.evaluate import evaluate
from training.people import data_name
from training.predictor import Predictor
from training.quality.reliability import Bin, bins_of, calibration_error, draw, points_of
from training.quality.variants import variants_of

THRESHOLDS = (0.2, 0.1)  # of PCK
TITLES = {"pck0.2": "PCK@0.2", "pck0.1": "PCK@0.1", "oks": "mean OKS", "ap": "AP"}


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    args = _parser().parse_args(argv)
    try:
        args.output.mkdir(parents=True, exist_ok=True)
        check_target(args.output / "quality.json")
        rows, bins = measure_models(args.models, args.data, args.sizes)
        about = f"{data_name(args.data)}, true boxes"
        draw(args.output / "reliability.png", bins, about)
        text = as_markdown(rows, about)
        for name, content in (
            ("quality.md", text),
            ("quality.json", json.dumps({"rows": rows, "bins": bins}, indent=2)),
        ):
            with written_whole(args.output / name) as temporary:
                temporary.write_text(content + "\n")
    except (PoseError, ValueError, OSError) as error:
        if args.debug:
            raise
        print(f"error: {error}", file=sys.stderr)
        return getattr(error, "exit_code", InputError.exit_code if isinstance(error, OSError) else 2)
    except KeyboardInterrupt:
        return 130
    print(text)
    return 0


def measure_models(
    models: list[Path], data: str, sizes_wh: list[tuple[int, int]]
) -> tuple[list[dict[str, Any]], dict[str, list[Bin]]]:
    """A row of figures for each variant of each model, and the reliability bins of each model as it is."""
    spec = DataSpec.parse(data)
    named = _names_of(models)
    asked = [(name, variant) for name, path in named.items() for variant in variants_of(path, sizes_wh)]
    rows, bins = [], {}
    for name, variant in tqdm(asked, "variants", leave=False):
        figures, results = measure(variant.open(), spec)
        if variant.name == "as it is":
            truth = load_persons(spec)
            bins[name] = bins_of(points_of(*_shared(results, truth, figures["names"])))
            figures["calibration_error"] = calibration_error(bins[name])
        rows.append({"model": name, "variant": variant.name, **figures})
    return rows, bins


def measure(predictor: Predictor, spec: DataSpec) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Figures of one predictor, and its answers as COCO results; no PCK where the data have no torso."""
    figures, results = evaluate(predictor, spec, "oks")
    found: dict[str, Any] = {"names": figures["names"], "persons": figures["persons"], "ap": figures["value"]}
    known = [v for v in figures["per_keypoint"].values() if v is not None]
    found |= {"oks": sum(known) / len(known), "oks_per_keypoint": figures["per_keypoint"]}
    for threshold in THRESHOLDS:
        with contextlib.suppress(InputError):
            pck, _ = evaluate(results, spec, "pck", threshold)
            found |= {f"pck{threshold}": pck["value"], f"pck{threshold}_per_keypoint": pck["per_keypoint"]}
    return found, results


def as_markdown(rows: list[dict[str, Any]], about: str) -> str:
    """Two tables: every variant, and each key point of every model as it is."""
    columns = [key for key in TITLES if any(key in row for row in rows)]
    lines = [about, "", _line(["model", "variant", *(TITLES[key] for key in columns), "error of scores"])]
    lines.append(_line(["---"] * (len(columns) + 3)))
    for row in rows:
        values = [_text(row.get(key)) for key in columns]
        error = row.get("calibration_error")
        lines.append(_line([row["model"], row["variant"], *values, "" if error is None else f"{error:.3f}"]))
    plain = [row for row in rows if row["variant"] == "as it is"]
    lines += ["", _line(["key point", *(f"{row['model']} {TITLES[key]}" for row in plain for key in columns[:2])])]
    lines.append(_line(["---"] * (1 + len(plain) * len(columns[:2]))))
    for name in plain[0]["names"]:
        cells = [_text(row.get(f"{key}_per_keypoint", {}).get(name)) for row in plain for key in columns[:2]]
        lines.append(_line([name, *cells]))
    return "\n".join(lines)


def _shared(
    results: list[dict[str, Any]], truth: PersonSet, names: tuple[str, ...]
) -> tuple[list[dict[str, Any]], list[Any], tuple[str, ...]]:
    """Results and labelled persons with the key points `names` alone; persons of unreadable pictures are left out."""
    columns = [truth.names.index(name) for name in names]
    chosen = [
        {**r, "keypoints": [v for c in columns for v in r["keypoints"][3 * c : 3 * c + 3]]} for r in results
    ]  # fmt: skip
    answered = {result["annotation_id"] for result in results}
    return chosen, [p for p in truth.select(names).labelled if p.annotation_id in answered], names


def _names_of(models: list[Path]) -> dict[str, Path]:
    """Short names that tell the models apart: the file's, or with its folder's where that is not enough."""
    names = [path.name for path in models]
    unique = len(set(names)) == len(names)
    named = dict(zip(names if unique else [str(Path(*path.parts[-2:])) for path in models], models, strict=True))
    if len(named) != len(models):
        raise InputError(f"two models have the same name: {', '.join(map(str, models))}")
    return named


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _text(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


def _size(text: str) -> tuple[int, int]:
    """WIDTH,HEIGHT in px."""
    try:
        width, height = map(int, text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not WIDTH,HEIGHT, such as 192,256") from None
    if min(width, height) < 1 or width % 32 or height % 32:
        raise argparse.ArgumentTypeError(f"{text!r} is not legal, legal are multiples of 32 px, such as 192,256")
    return width, height


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m training.quality", description=f"{__doc__}\nDATA is one of\n{teach()}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    add = parser.add_argument
    add("models", nargs="+", type=Path, metavar="MODEL", help="checkpoints (also of rivals) and artifacts")
    add("--data", required=True, metavar="DATA", help="annotated pictures, in one of the forms above")
    add("--sizes", nargs="+", type=_size, default=[], metavar="W,H", help="other crop sizes of checkpoints, px")
    add("--output", type=Path, default=Path("quality"), metavar="DIR", help="folder for the report (default quality)")
    add("--debug", action="store_true", help="show tracebacks")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
