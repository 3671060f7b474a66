"""Answer a test set whose annotations a server keeps, in the form that the server wants.

    python -m training.submit MODEL --data image_info_test-dev2017.json:test2017 --boxes DETECTIONS.json \\
        --output person_keypoints_test-dev2017_tfpose_results.json
    python -m training.submit MODEL --data mpii:mpii_human_pose_v1_u12_1.mat:images --output pred_keypoints_mpii.mat

COCO: a results JSON of every image that the detector's boxes are on, zip it and upload it (cocodataset.org, "Upload
Results to COCO"). Pixel indices, rounded to tenths as its results format recommends, v = 1.
MPII: the official .mat's test persons, in its own boxes; training.mpii_submission tells the layout.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from runtime.errors import InputError, PoseError
from runtime.skeleton import COCO_17, MPII_16
from tfpose_edge.checkpoint import check_target, written_whole
from training.answers import PERSON, SCORE_MODES, Found, asked_by_detector, predict, without_doubles
from training.data.coco import is_integer, read_json
from training.data.damage import Damage, say
from training.data.persons import PersonSet
from training.data.spec import DataSpec
from training.evaluate import open_predictor
from training.mpii_submission import MpiiTest
from training.predictor import Predictor
from training.results import read_list
from training.suppression import OKS_NMS


def submit_coco(
    predictor: Predictor, spec: DataSpec, boxes: list[dict[str, Any]], score_mode: str = "box*keypoint",
    oks_nms: float = OKS_NMS, progress: bool = False,
) -> list[dict[str, Any]]:  # fmt: skip
    """COCO results of a predictor on a detector's boxes.

    Args:
        predictor: what answers; COCO's points that it does not know become zeros.
        spec: COCO JSON with images; annotations are not needed and not read.
        boxes: a detector's {"image_id", "bbox", "score"}.
        score_mode: a key of `answers.SCORE_MODES`.
        oks_nms: see `suppression.suppress`.
        progress: show a bar on stderr.
    Raises:
        InputError: unreadable images or boxes, more than `damage.ALLOWED` of the pictures, or no point that COCO has.
    """
    images = read_images(spec)
    names = _shared(predictor, COCO_17)
    damage = Damage(len(images.image_ids), spec.annotations, what="pictures")
    found = predict(predictor, asked_by_detector(boxes, images), names, damage, set(), progress)
    columns = [COCO_17.index(name) for name in names]
    return [_line(one, columns, score_mode) for one in without_doubles(found, names, score_mode, oks_nms)]


def submit_mpii(predictor: Predictor, spec: DataSpec, output: Path, progress: bool = False) -> int:
    """Write pred_keypoints_mpii.mat to `output`; the number of persons in it.

    Args:
        predictor: what answers; MPII's points that it does not know are missing, which the server counts as wrong.
        spec: MPII's official .mat and its pictures.
        output: the .mat file.
        progress: show a bar on stderr.
    Raises:
        InputError: not MPII's file, more than `damage.ALLOWED` of the pictures unreadable, or no point that MPII has.
    """
    test = MpiiTest(spec.annotations, spec.images)
    names = _shared(predictor, MPII_16)
    if test.without_place:
        say(f"{spec.annotations}: {test.without_place} test persons without position or scale are not answered")
    asked = test.asked
    damage = Damage(len({one.picture for one in asked}), spec.annotations, what="pictures")
    found = list(predict(predictor, asked, names, damage, set(), progress))
    test.write(output, found, names)
    return len(found)


def read_images(spec: DataSpec) -> PersonSet:
    """The images of a COCO JSON, image_info_*.json or one with annotations, without anybody on them.

    Raises:
        InputError: not such a file, or no image in the chosen range.
    """
    content = read_json(spec.annotations, "images")
    images = content.get("images") if isinstance(content, dict) else None
    if not isinstance(images, list) or not all(
        isinstance(i, dict) and is_integer(i.get("id")) and isinstance(i.get("file_name"), str) for i in images
    ):
        raise InputError(f"{spec.annotations}: 'images' must be a list of objects with an integer 'id' and 'file_name'")
    paths = {image["id"]: spec.images / image["file_name"] for image in images[spec.first - 1 : spec.last]}
    if not paths:
        raise InputError(f"{spec.annotations}: no images in the range; it has {len(images)}")
    others = frozenset(image["id"] for image in images) - set(paths)
    return PersonSet([], list(paths), dict(paths), COCO_17, others)


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = _parser()
    args = parser.parse_args(argv)
    try:
        _submit_arguments(args)
    except (PoseError, ValueError, OSError) as error:
        if args.debug:
            raise
        print(f"error: {error}", file=sys.stderr)
        fallback = InputError.exit_code if isinstance(error, OSError) else 2
        return error.exit_code if isinstance(error, PoseError) else fallback
    except KeyboardInterrupt:
        return 130
    return 0


def _submit_arguments(args: argparse.Namespace) -> None:
    spec = DataSpec.parse(args.data)
    _check_usage(args, spec)
    predictor = open_predictor(args.model, args.flip_test, args.device)
    assert not isinstance(predictor, list)
    if spec.kind == "mpii":
        print(f"{args.output}: {submit_mpii(predictor, spec, args.output, progress=True)} persons")
        return
    boxes = read_list(args.boxes, ("image_id", "bbox", "score"))
    score_mode = args.score_mode or "box*keypoint"
    lines = submit_coco(predictor, spec, boxes, score_mode, args.oks_nms or OKS_NMS, progress=True)
    with written_whole(args.output) as temporary:
        temporary.write_text(json.dumps(lines) + "\n")
    images = len({line["image_id"] for line in lines})
    print(f"{args.output}: {len(lines)} persons on {images} images, score mode {score_mode}")


def _check_usage(args: argparse.Namespace, spec: DataSpec) -> None:
    """ValueError for data of another form, and for options that do not belong to it."""
    if spec.kind not in ("coco", "mpii") or (spec.kind == "mpii" and spec.annotations.suffix != ".mat"):
        raise ValueError(f"data {args.data!r}: servers answer COCO's ANN.json:IMAGES and MPII's mpii:FILE.mat:IMAGES")
    if args.model.suffix == ".json":
        raise ValueError(f"{args.model}: is a results file; the answers must come from a checkpoint or an artifact")
    if spec.kind == "coco" and not args.boxes:
        raise ValueError("COCO's test images have no true boxes: give a detector's with --boxes DETECTIONS.json")
    given = {"--boxes": args.boxes, "--score-mode": args.score_mode, "--oks-nms": args.oks_nms}
    if spec.kind == "mpii" and any(given.values()):
        raise ValueError(f"{', '.join(name for name, value in given.items() if value)}: of COCO; MPII has boxes itself")
    expected = ".mat" if spec.kind == "mpii" else ".json"
    if args.output.suffix != expected:
        raise ValueError(f"--output is {args.output}; this server wants a {expected} file")
    check_target(args.output)


def _shared(predictor: Predictor, names: Sequence[str]) -> tuple[str, ...]:
    """Those of the set's key points that the predictor has; says which are missing."""
    shared = tuple(name for name in names if name in predictor.names)
    if not shared:
        raise InputError(f"the model has none of the test set's key points ({', '.join(names)})")
    if missing := [name for name in names if name not in shared]:
        say(f"the model does not know {', '.join(missing)}: the server will count them as wrong")
    return shared


def _line(found: Found, columns: list[int], score_mode: str) -> dict[str, Any]:
    keypoints = np.zeros((len(COCO_17), 3))
    keypoints[columns] = np.column_stack([found.keypoints_xy - 0.5, np.ones(len(columns))])  # pixel indices
    values = [round(float(value), 1) for value in keypoints.ravel()]
    score = round(found.score(score_mode), 6)
    return {"image_id": found.asked.image_id, "category_id": PERSON, "keypoints": values, "score": score}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m training.submit", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path, help="checkpoint or artifact")
    parser.add_argument("--data", required=True, metavar="DATA", help="ANN.json:IMAGES, or mpii:FILE.mat:IMAGES")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="results .json, or MPII's .mat")
    parser.add_argument("--boxes", type=Path, metavar="DETECTIONS.json", help="a detector's boxes, for COCO")
    parser.add_argument("--flip-test", action="store_true", help="average with the mirror image's key points")
    parser.add_argument("--score-mode", choices=SCORE_MODES, help="what ranks persons; default box*keypoint")
    parser.add_argument("--oks-nms", type=_share, metavar="OKS", help=f"default {OKS_NMS}; 1 keeps all")
    parser.add_argument("--device", default="cpu", help="of a checkpoint or an artifact's engine; default cpu")
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    return parser


def _share(text: str) -> float:
    """A number above 0, at most 1."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0, at most 1")
    return number


if __name__ == "__main__":
    raise SystemExit(main())
