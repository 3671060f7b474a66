"""Measure key points: of a checkpoint, of any artifact, or of a results file.

    python -m training.evaluate runs/tiny/best.safetensors --data ann.json:images:901-1000 --metric pck
    python -m training.evaluate pose.onnx --data ann.json:images --metric oks --flip-test --json figures.json

Crops come from the true boxes (or from a detector's with --boxes), and key points are matched by name: only the names
that model and data share count. A checkpoint runs in torch, an artifact through `runtime`, both on the same crops.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from runtime.errors import InputError, PoseError
from training import metrics
from training.data.coco import DataSpec, Person, PersonSet, load_persons, read_image
from training.predictor import Array, CheckpointPredictor, FlipTest, Predictor

SCORE_MODES = {
    "keypoint": "mean score of the key points",
    "box": "the detector's score of the box",
    "box*keypoint": "their product",
}
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


@dataclass(frozen=True)
class Found:
    """One prediction."""

    person: Person
    """The annotated person, or with detector boxes a stand-in that has the image and the box."""
    keypoints_xy: Array
    """(K, 2) px, in the order of the shared names."""
    scores: Array
    """(K,)."""
    box_score: float


def evaluate(
    predictor: Predictor | list[dict[str, Any]], spec: DataSpec, metric: str, threshold: float | None = None,
    boxes: list[dict[str, Any]] | None = None, score_mode: str | None = None, progress: bool = False,
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
    Raises:
        InputError: unreadable data, nothing shared, or a metric that these data cannot give.
    """
    if metric not in metrics.METRICS:
        raise InputError(f"unknown metric {metric!r}; legal are {', '.join(metrics.METRICS)}")
    file_names = load_persons(spec).names
    known = _predicted_names(predictor, file_names) if isinstance(predictor, list) else predictor.names
    names = tuple(name for name in file_names if name in known)
    if not names:
        raise InputError(f"{spec.annotations}: shares no key point with the model ({', '.join(known)})")
    truth = load_persons(spec, names)
    columns = [file_names.index(name) for name in names]
    score_mode = score_mode or ("box*keypoint" if boxes is not None else "keypoint")
    if isinstance(predictor, list):
        results, score_mode = predictor, "as given"
    else:
        asked = _detected(boxes, truth) if boxes is not None else [(p, 1.0) for p in truth.labelled]
        found = _run(predictor, asked, [predictor.names.index(name) for name in names], progress)
        results = [_result(f, score_mode, columns, len(file_names)) for f in found]
    threshold = THRESHOLDS[metric] if threshold is None else threshold
    figures = _measure(_only(results, columns), truth, names, metric, threshold)
    return {"metric": metric, **figures, "threshold": threshold, "score_mode": score_mode, "names": names}, results


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    args = _parser().parse_args(argv)
    try:
        figures, results = _evaluate_arguments(args)
    except (PoseError, ValueError) as error:
        if args.debug:
            raise
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code if isinstance(error, PoseError) else 2
    except KeyboardInterrupt:
        return 130
    print(_table(figures))
    for path, content in ((args.json, figures), (args.save_predictions, results)):
        if path:
            path.write_text(json.dumps(content, indent=2) + "\n")
    return 0


def open_predictor(path: Path, flip_test: bool = False, device: str = "cpu") -> Predictor | list[dict[str, Any]]:
    """A checkpoint, an artifact or a COCO results file, told apart by the file's extension."""
    if path.suffix == ".json":
        return _read_list(path, ("image_id", "keypoints", "score"))
    checkpoint = path.suffix == ".safetensors"
    predictor: Predictor = CheckpointPredictor(path) if checkpoint else ArtifactPredictor(path, device)
    return FlipTest(predictor) if flip_test else predictor


def _evaluate_arguments(args: argparse.Namespace) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    spec = DataSpec.parse(args.data)
    boxes = _read_list(args.boxes, ("image_id", "bbox", "score")) if args.boxes else None
    started = time.monotonic()
    predictor = open_predictor(args.model, args.flip_test, args.device)
    figures, results = evaluate(predictor, spec, args.metric, args.threshold, boxes, args.score_mode, progress=True)
    about = {
        "model": str(args.model), "data": args.data, "flip_test": args.flip_test,
        "boxes": str(args.boxes) if args.boxes else "true", "seconds": round(time.monotonic() - started, 1),
    }  # fmt: skip
    return {**figures, **about}, results


def _run(
    predictor: Predictor, asked: Sequence[tuple[Person, float]], columns: list[int], progress: bool
) -> Iterator[Found]:
    """Predictions for (person, box score), one call per image."""
    by_image: dict[Path, list[tuple[Person, float]]] = {}
    for person, score in asked:
        by_image.setdefault(person.image_path, []).append((person, score))
    shown = iter(by_image.items())
    if progress:
        from tqdm import tqdm

        shown = iter(tqdm(by_image.items(), "images", leave=False))
    for path, people in shown:
        boxes = np.stack([person.box_xyxy for person, _ in people])
        keypoints_xy, scores = predictor(read_image(path), boxes)
        for row, (person, box_score) in enumerate(people):
            yield Found(person, keypoints_xy[row][columns], scores[row][columns], box_score)


def _result(found: Found, score_mode: str, columns: list[int], num_keypoints: int) -> dict[str, Any]:
    """A results line in the data set's own order of key points; zeros where the model has none."""
    mean = float(found.scores.mean())
    score = {"keypoint": mean, "box": found.box_score, "box*keypoint": found.box_score * mean}[score_mode]
    keypoints = np.zeros((num_keypoints, 3))
    keypoints[columns] = np.column_stack([found.keypoints_xy - 0.5, found.scores])  # pixel indices
    return {
        "image_id": found.person.image_id,
        "annotation_id": found.person.annotation_id,
        "category_id": 1,
        "keypoints": [round(float(value), 4) for value in keypoints.ravel()],
        "score": score,
    }


def _predicted_names(results: list[dict[str, Any]], file_names: tuple[str, ...]) -> tuple[str, ...]:
    """The names that a results file has key points for: those whose column is not all zeros."""
    for result in results:
        if len(result["keypoints"]) != 3 * len(file_names):
            raise InputError(
                f"results: {len(result['keypoints'])} numbers for {len(file_names)} key points (x, y, score)"
            )
    columns = np.array([r["keypoints"] for r in results], dtype=np.float64).reshape(len(results), len(file_names), 3)
    return tuple(name for k, name in enumerate(file_names) if not results or columns[:, k].any())


def _only(results: list[dict[str, Any]], columns: list[int]) -> list[dict[str, Any]]:
    """Results with the key points of `columns` alone."""
    return [{**r, "keypoints": np.reshape(r["keypoints"], (-1, 3))[columns].ravel().tolist()} for r in results]


def _measure(
    results: list[dict[str, Any]], truth: PersonSet, names: Sequence[str], metric: str, threshold: float | None
) -> dict[str, Any]:
    if metric == "oks":
        return {
            **metrics.average_precision(results, truth, names),
            "persons": len(truth.labelled),
            "per_keypoint": None,
        }
    persons, predicted = _paired(results, truth, len(names))
    assert threshold is not None
    return metrics.pck(predicted, persons, names, threshold, by_head=metric == "pckh")


def _paired(results: list[dict[str, Any]], truth: PersonSet, num_keypoints: int) -> tuple[list[Person], Array]:
    """Persons and their predictions (N, K, 2) px, by annotation id; persons without one count as all wrong."""
    by_id = {r["annotation_id"]: r for r in results if "annotation_id" in r}
    if results and not by_id:
        raise InputError("PCK needs to know whose key points these are: every result must have an 'annotation_id'")
    predicted = []
    for person in truth.labelled:
        row = by_id.get(person.annotation_id)
        values = (
            np.full((num_keypoints, 2), np.inf) if row is None else np.reshape(row["keypoints"], (-1, 3))[:, :2] + 0.5
        )
        if values.shape != (num_keypoints, 2):
            raise InputError(f"annotation {person.annotation_id}: {len(values)} key points, expected {num_keypoints}")
        predicted.append(values)
    return truth.labelled, np.stack(predicted)


def _detected(boxes: list[dict[str, Any]], truth: PersonSet) -> list[tuple[Person, float]]:
    """Stand-ins for the detector's boxes on the data's images, and their scores."""
    stand_in = next(iter(truth.labelled))
    asked = []
    for number, box in enumerate(boxes):
        x, y, width, height = (float(v) for v in box["bbox"])
        if box["image_id"] in truth.image_paths and width > 0 and height > 0:
            person = replace(
                stand_in, image_id=box["image_id"], image_path=truth.image_paths[box["image_id"]],
                annotation_id=-1 - number, box_xyxy=np.array([x, y, x + width, y + height]),
            )  # fmt: skip
            asked.append((person, float(box["score"])))
    return asked


def _read_list(path: Path, keys: tuple[str, ...]) -> list[dict[str, Any]]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot read: {error.strerror}") from error
    except ValueError as error:
        raise InputError(f"{path}: not JSON: {error}") from error
    if not isinstance(content, list) or not all(isinstance(r, dict) and set(keys) <= set(r) for r in content):
        raise InputError(f"{path}: must be a list of objects with {', '.join(keys)}")
    return content


def _table(figures: dict[str, Any]) -> str:
    at = f"@{figures['threshold']}" if figures["threshold"] is not None else " AP"
    value = "undefined" if figures["value"] is None else f"{figures['value']:.2f}"
    lines = [f"{figures['metric'].upper()}{at}  {value}   ({figures['persons']} persons, {figures['boxes']} boxes)"]
    rows = {key: figures.get(key) for key in ("ap50", "ap75", "apm", "apl", "ar")} | (figures["per_keypoint"] or {})
    return "\n".join(lines + [f"  {name:<16} {row:.1f}" for name, row in rows.items() if row is not None])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m training.evaluate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path, help="checkpoint, artifact, or COCO results JSON (scored as it is)")
    parser.add_argument("--data", required=True, metavar="ANN.json:IMAGES[:FIRST-LAST]")
    parser.add_argument("--metric", required=True, choices=metrics.METRICS)
    parser.add_argument("--threshold", type=float, help="of PCK (0.2) and PCKh (0.5)")
    parser.add_argument("--flip-test", action="store_true", help="average with the mirror image's key points")
    parser.add_argument(
        "--boxes", type=Path, metavar="DETECTIONS.json", help="a detector's boxes instead of the true ones"
    )
    parser.add_argument("--score-mode", choices=SCORE_MODES, help="what ranks persons in AP")
    parser.add_argument("--device", default="cpu", help="of an artifact's engine")
    parser.add_argument(
        "--save-predictions", type=Path, metavar="FILE", help="COCO results, which this command can read"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="the figures as JSON")
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
