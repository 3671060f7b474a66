"""Measure key points: of a checkpoint, of any artifact, or of a results file.

    python -m training.evaluate runs/tiny/best.safetensors --data ann.json:images:901-1000 --metric pck
    python -m training.evaluate pose.onnx --data ann.json:images --metric oks --flip-test --json figures.json

Crops come from the true boxes (or from a detector's with --boxes), and key points are matched by name: only the names
that model and data share count. A checkpoint runs in torch, an artifact through `runtime`, both on the same crops and
on the CPU unless --device says otherwise.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from runtime.errors import InputError, PoseError
from tfpose_edge.checkpoint import check_target, written_whole
from training import metrics
from training.answers import SCORE_MODES, answer
from training.data.damage import Damage, listing, say
from training.data.reading import check_labelled, load_persons
from training.data.spec import DataSpec, teach
from training.predictor import DEVICES, Array, CheckpointPredictor, FlipTest, Predictor
from training.results import check_results, read_list
from training.suppression import OKS_NMS

THRESHOLDS = {"pck": 0.2, "pckh": 0.5, "oks": None}


class ArtifactPredictor:
    """An artifact through `runtime.Pose`."""

    def __init__(self, path: Path, device: str = "cpu") -> None:
        import runtime

        self.pose = runtime.Pose(path, device=device)
        self.names = tuple(self.pose.sidecar.keypoint_names)

    def __call__(self, image_bgr: Array, boxes_xyxy: Array) -> tuple[Array, Array]:
        """As `Predictor`."""
        result = self.pose(image_bgr, boxes_xyxy)
        return result.keypoints_xy.astype(np.float64), result.scores


def evaluate(
    predictor: Predictor | list[dict[str, Any]], spec: DataSpec, metric: str, threshold: float | None = None,
    boxes: list[dict[str, Any]] | None = None, score_mode: str | None = None, progress: bool = False,
    oks_nms: float | None = None,
) -> tuple[dict[str, Any], list[dict[str, Any]]]:  # fmt: skip
    """Figures and COCO results of a predictor, or of a results file's lines, on a data set.

    Args:
        predictor: what to measure.
        spec: the data.
        metric: a key of `metrics.METRICS`.
        threshold: of PCK and PCKh; None takes 0.2 and 0.5.
        boxes: a detector's {"image_id", "bbox", "score"}; None takes the true boxes.
        score_mode: a key of `SCORE_MODES`; None takes "keypoint", or "box*keypoint" with `boxes`.
        progress: show a bar on stderr.
        oks_nms: with `boxes`, the similarity from which two predictions are of one person; None takes 0.9, 1 keeps all.
    Raises:
        InputError: unreadable data, results or boxes, nothing shared, or a metric that these data cannot give; more
            records or pictures that are unusable than `damage.ALLOWED`. Fewer are left out, also of the truth, and
            named in the figures' "unusable".
    """
    if metric not in metrics.METRICS:
        raise InputError(f"unknown metric {metric!r}; legal are {', '.join(metrics.METRICS)}")
    if boxes is not None and metric != "oks":
        raise InputError(f"{metric} of a detector's boxes: PCK needs the true boxes (leave out --boxes)")
    found = load_persons(spec)
    file_names = found.names
    given = check_results(predictor, found) if isinstance(predictor, list) else []
    known = _predicted_names(given, file_names) if isinstance(predictor, list) else predictor.names
    names = tuple(name for name in file_names if name in known)
    if not names:
        raise InputError(f"{spec.annotations}: shares no key point with the model ({', '.join(known)})")
    check_labelled(truth := found.select(names), spec)
    columns = [file_names.index(name) for name in names]
    damage = Damage(len(found.image_paths), spec.annotations, what="pictures")
    if isinstance(predictor, list):
        results, score_mode = given, "as given"
    else:
        score_mode = score_mode or ("box*keypoint" if boxes is not None else "keypoint")
        oks_nms = None if boxes is None else OKS_NMS if oks_nms is None else oks_nms
        lines, truth = answer(predictor, truth, file_names, boxes, score_mode, damage, oks_nms, progress)
        results = check_results(lines, found)
    threshold = THRESHOLDS[metric] if threshold is None else threshold
    figures = metrics.measure(_only(results, columns), truth, names, metric, threshold)
    about = {"threshold": threshold, "score_mode": score_mode, "oks_nms": oks_nms, "names": names}
    return {"metric": metric, **figures, **about, "unusable": found.problems + damage.problems}, results


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = _parser()
    args = parser.parse_args(argv)
    try:
        _check_usage(args)
    except ValueError as error:
        parser.error(str(error))
    try:
        figures, results = _evaluate_arguments(args)
        print(_table(figures))
        if figures["unusable"]:
            say(f"{args.data}: {len(figures['unusable'])} left out: {listing(figures['unusable'])}")
        for path, content in ((args.json, figures), (args.save_predictions, results)):
            if path:
                with written_whole(path) as temporary:
                    temporary.write_text(json.dumps(content, indent=2) + "\n")
    except (PoseError, ValueError, OSError) as error:
        if args.debug:
            raise
        print(f"error: {error}", file=sys.stderr)
        fallback = InputError.exit_code if isinstance(error, OSError) else 2
        return error.exit_code if isinstance(error, PoseError) else fallback
    except KeyboardInterrupt:
        return 130
    return 0


def open_predictor(path: Path, flip_test: bool = False, device: str = "cpu") -> Predictor | list[dict[str, Any]]:
    """A checkpoint, an artifact or a COCO results file, told apart by the file's extension."""
    if path.suffix == ".json":
        return read_list(path, ("image_id", "keypoints", "score"))
    checkpoint = path.suffix == ".safetensors"
    predictor: Predictor = CheckpointPredictor(path, device=device) if checkpoint else ArtifactPredictor(path, device)
    return FlipTest(predictor) if flip_test else predictor


def _check_usage(args: argparse.Namespace) -> None:
    """ValueError for options that have no meaning together, and for files that cannot be written."""
    if args.metric == "oks" and args.threshold is not None:
        raise ValueError("--threshold is of pck and pckh; oks averages over its own")
    if args.oks_nms is not None and not args.boxes:
        raise ValueError("--oks-nms is of a detector's boxes: it needs --boxes")
    options = {"--flip-test": args.flip_test, "--boxes": args.boxes, "--score-mode": args.score_mode}
    given = [name for name, value in options.items() if value]
    if args.model.suffix == ".json" and given:
        raise ValueError(f"{', '.join(given)} with {args.model}: a results file is scored as it is")
    for path in (args.json, args.save_predictions):
        if path:
            check_target(path)


def _evaluate_arguments(args: argparse.Namespace) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    spec = DataSpec.parse(args.data)
    boxes = read_list(args.boxes, ("image_id", "bbox", "score")) if args.boxes else None
    started = time.monotonic()
    predictor = open_predictor(args.model, args.flip_test, args.device)
    figures, results = evaluate(
        predictor, spec, args.metric, args.threshold, boxes, args.score_mode, True, args.oks_nms
    )  # fmt: skip
    about = {
        "model": str(args.model), "data": args.data, "flip_test": args.flip_test,
        "boxes": str(args.boxes) if args.boxes else "true", "seconds": round(time.monotonic() - started, 1),
    }  # fmt: skip
    return {**figures, **about}, results


def _predicted_names(results: list[dict[str, Any]], file_names: tuple[str, ...]) -> tuple[str, ...]:
    """The names that a results file has key points for: those whose column is not all zeros."""
    columns = np.array([r["keypoints"] for r in results], dtype=np.float64).reshape(len(results), len(file_names), 3)
    return tuple(name for k, name in enumerate(file_names) if not results or columns[:, k].any())


def _only(results: list[dict[str, Any]], columns: list[int]) -> list[dict[str, Any]]:
    """Results with the key points of `columns` alone."""
    return [{**r, "keypoints": np.reshape(r["keypoints"], (-1, 3))[columns].ravel().tolist()} for r in results]


def _table(figures: dict[str, Any]) -> str:
    at = f"@{figures['threshold']}" if figures["threshold"] is not None else " AP"
    value = "undefined" if figures["value"] is None else f"{figures['value']:.2f}"
    lines = [f"{figures['metric'].upper()}{at}  {value}   ({figures['persons']} persons, {figures['boxes']} boxes)"]
    if figures["metric"] == "oks":
        nms = "" if figures["oks_nms"] is None else f", OKS-NMS {figures['oks_nms']}"
        lines.append(f"  score mode {figures['score_mode']}{nms}")
    rows = {key: figures.get(key) for key in ("ap50", "ap75", "apm", "apl", "ar")} | (figures["per_keypoint"] or {})
    rows |= figures.get("groups") or {}
    return "\n".join(lines + [f"  {name:<16} {row:.1f}" for name, row in rows.items() if row is not None])


def _positive(text: str) -> float:
    """A finite number above 0."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a finite number above 0")
    return number


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m training.evaluate", description=f"{__doc__}\nDATA is one of\n{teach()}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("model", type=Path, help="checkpoint, artifact, or COCO results JSON (scored as it is)")
    parser.add_argument("--data", required=True, metavar="DATA", help="annotated pictures, in one of the forms above")
    parser.add_argument("--metric", required=True, choices=metrics.METRICS)
    parser.add_argument("--threshold", type=_positive, help="of PCK (0.2) and PCKh (0.5)")
    parser.add_argument("--flip-test", action="store_true", help="average with the mirror image's key points")
    parser.add_argument(
        "--boxes", type=Path, metavar="DETECTIONS.json", help="a detector's boxes instead of the true ones"
    )
    parser.add_argument(
        "--score-mode", choices=SCORE_MODES,
        help=f"what ranks persons in AP: {', '.join(f'{mode} ({what})' for mode, what in SCORE_MODES.items())}; "
        "default keypoint, with --boxes box*keypoint",
    )  # fmt: skip
    parser.add_argument(
        "--oks-nms", type=_positive, metavar="OKS",
        help=f"with --boxes: predictions more similar than this are of one person; default {OKS_NMS}, 1 keeps all",
    )  # fmt: skip
    parser.add_argument(
        "--device", default="cpu", help=f"of a checkpoint ({', '.join(DEVICES)}) or an artifact's engine; default cpu"
    )
    parser.add_argument(
        "--save-predictions", type=Path, metavar="FILE", help="COCO results, which this command can read"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="the figures as JSON")
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
