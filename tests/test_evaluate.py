"""`training.evaluate` on checkpoints, artifacts and results files."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import torch
from conftest import write_centroid_onnx
from photographs import write_data_set
from predicting import Oracle

from runtime.errors import BackendUnavailable, InputError
from runtime.geometry import box_problem
from runtime.skeleton import LSP_14
from tfpose_edge import PRESETS, TFPose, save_checkpoint
from training.data.reading import load_persons
from training.data.spec import DataSpec
from training.evaluate import evaluate, main
from training.options import Options
from training.predictor import CheckpointPredictor, FlipTest
from training.run import RunFolder
from training.train import train


@pytest.fixture(scope="module")
def spec(tmp_path_factory):
    return DataSpec.parse(write_data_set(tmp_path_factory.mktemp("coco"), 4))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("c") / "model.safetensors"
    save_checkpoint(path, TFPose(PRESETS["tiny"]))
    return path


@pytest.mark.parametrize("metric", ["oks", "pck", "pckh"])
def test_truth_scores_100_and_nonsense_less(spec, metric):
    figures, results = evaluate(Oracle(spec), spec, metric)
    assert figures["value"] == pytest.approx(100)
    assert figures["persons"] == 4 and figures["score_mode"] == "keypoint"
    assert len(results) == 4 and results[0]["score"] == 0.5
    worse, _ = evaluate(Oracle(spec, 40.0), spec, metric)
    assert worse["value"] < 10


def test_names_are_shared(tmp_path, spec):
    lsp = DataSpec.parse(write_data_set(tmp_path / "lsp", 2, LSP_14))
    figures, results = evaluate(Oracle(spec), lsp, "pck")
    assert set(figures["per_keypoint"]) == set(LSP_14) - {"neck", "head_top"}
    assert len(results[0]["keypoints"]) == 3 * len(LSP_14)
    again, _ = evaluate(results, lsp, "pck")
    assert again["value"] == figures["value"] and again["names"] == figures["names"]


def test_results_file_scores_as_it_was(tmp_path, spec, checkpoint):
    data = f"{spec.annotations}:{spec.images}"
    for metric in ("oks", "pck"):
        first = [str(checkpoint), "--data", data, "--metric", metric, "--json", str(tmp_path / "a.json")]
        assert main([*first, "--save-predictions", str(tmp_path / "results.json")]) == 0
        second = [str(tmp_path / "results.json"), "--data", data, "--metric", metric]
        assert main([*second, "--json", str(tmp_path / "b.json")]) == 0
        a, b = (json.loads((tmp_path / name).read_text()) for name in ("a.json", "b.json"))
        assert a["value"] == pytest.approx(b["value"], abs=1e-6)
        assert {"metric", "value", "per_keypoint", "persons", "score_mode"} <= set(a)


def test_validation_in_training_is_the_same_figure(tmp_path, spec):
    """33 persons: more than a batch of validation, and no multiple of it."""
    data = write_data_set(tmp_path / "val", 33)
    given = Options(rendered=4, batch_size=4, epochs=1, workers=0, threads=1, val=data, output=tmp_path / "run")
    folder = train(given)
    [line] = [line for line in RunFolder(folder).read_log() if line["kind"] == "epoch"]
    figures, _ = evaluate(CheckpointPredictor(folder / "last.safetensors"), DataSpec.parse(data), "pck")
    assert line["pck"] == pytest.approx(figures["value"], abs=1e-9)


def test_flip_test_of_an_equivariant_predictor_changes_nothing():
    """A predictor that reports box corners and centre moves with the mirror image; its flip test equals itself."""

    class Corners:
        names = ("nose", "left_eye", "right_eye")

        def __call__(self, image_bgr, boxes_xyxy):
            x1, y1, x2, y2 = boxes_xyxy.T
            points = [((x1 + x2) / 2, y1), (x2, y1), (x1, y2 * 0 + y1)]
            return np.stack([np.stack(p, -1) for p in points], 1), np.tile([0.5, 0.9, 0.1], (len(boxes_xyxy), 1))

    image, boxes = np.zeros((60, 100, 3), np.uint8), np.array([[10.0, 20, 30, 50]])
    plain, scores = Corners()(image, boxes)
    flipped, flipped_scores = FlipTest(Corners())(image, boxes)
    np.testing.assert_allclose(flipped, plain)
    np.testing.assert_allclose(flipped_scores, [[0.5, 0.5, 0.5]])
    assert scores[0, 1] == 0.9


def test_flip_test_runs_on_a_checkpoint(spec, checkpoint, capsys):
    data = f"{spec.annotations}:{spec.images}:1-1"
    assert main([str(checkpoint), "--data", data, "--metric", "pck", "--flip-test"]) == 0
    assert "PCK@0.2" in capsys.readouterr().out


def test_an_artifact_is_measured_through_the_runtime(tmp_path, spec):
    path = write_centroid_onnx(tmp_path / "pose.onnx")
    assert main([str(path), "--data", f"{spec.annotations}:{spec.images}", "--metric", "oks"]) == 0


def test_detector_boxes_and_score_modes(tmp_path, spec):
    truth = load_persons(spec).persons
    boxes = [
        {"image_id": p.image_id, "bbox": [*p.box_xyxy[:2], *(p.box_xyxy[2:] - p.box_xyxy[:2])], "score": 0.8}
        for p in truth
    ]
    figures, results = evaluate(Oracle(spec), spec, "oks", boxes=boxes)
    assert figures["score_mode"] == "box*keypoint" and results[0]["score"] == pytest.approx(0.4)
    assert figures["value"] == pytest.approx(100)
    _, by_box = evaluate(Oracle(spec), spec, "oks", boxes=boxes, score_mode="box")
    assert by_box[0]["score"] == 0.8
    _, results = evaluate(Oracle(spec), spec, "oks", boxes=[])
    assert results == []


@pytest.fixture
def edited(tmp_path):
    """Write a data set whose annotations went through a function; returns its specification."""

    def edit(change):
        spec = DataSpec.parse(write_data_set(tmp_path / "edited", 2))
        content = json.loads(spec.annotations.read_text())
        for record in content["annotations"]:
            record.update(change)
        spec.annotations.write_text(json.dumps(content))
        return spec

    return edit


def fails(arguments, code, message, capsys):
    """Run the command line, and expect one line on stderr with `message` and exit code `code`."""
    assert main([str(argument) for argument in arguments]) == code
    (line,) = capsys.readouterr().err.splitlines()[-1:]
    assert line.startswith("error: ") and message in line


def refused(arguments, message, capsys):
    """Run the command line, and expect a usage error with `message`."""
    with pytest.raises(SystemExit) as usage:
        main([str(argument) for argument in arguments])
    assert usage.value.code == 2 and message in capsys.readouterr().err


BAD_RESULTS = [
    (
        {"keypoints": 5},
        r"results\[1\] \(image 2\): 'keypoints' is 5; legal are 51 finite numbers, 3 for each of the data's 17",
    ),
    ({"keypoints": [1.0] * 50}, "51 finite numbers"),
    ({"keypoints": [float("nan")] * 51}, "51 finite numbers"),
    ({"keypoints": ["1"] * 51}, "51 finite numbers"),
    ({"score": float("nan")}, r"results\[1\] \(image 2\): 'score' is nan"),
    ({"score": None}, "'score' is None"),
    ({"image_id": 99}, r"results\[1\]: 'image_id' is 99, which is no image of the data"),
    ({"image_id": [1]}, r"results\[1\]: 'image_id' is \[1\]"),
    ({"annotation_id": "a"}, r"results\[1\]: 'annotation_id' is 'a'"),
]


@pytest.mark.parametrize(("change", "message"), BAD_RESULTS)
@pytest.mark.parametrize("metric", ["oks", "pck"])
def test_bad_results_are_named(spec, metric, change, message):
    _, results = evaluate(Oracle(spec), spec, "pck")
    results[1] = {**results[1], **change}
    with pytest.raises(InputError, match=message):
        evaluate(results, spec, metric)


def test_results_outside_the_range_are_left_out(spec):
    _, results = evaluate(Oracle(spec), spec, "pck")
    part = DataSpec(spec.annotations, spec.images, 2, 3)
    for metric in ("oks", "pck"):
        figures, used = evaluate(results, part, metric)
        assert figures["value"] == pytest.approx(100) and [r["image_id"] for r in used] == [2, 3]


def test_a_model_that_answers_nan_is_not_perfect(spec):
    with pytest.raises(InputError, match="51 finite numbers"):
        evaluate(Oracle(spec, float("nan")), spec, "oks")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bbox": 5}, r"boxes\[0\] \(image 1\): 'bbox' is 5; legal are 4 finite numbers"),
        ({"bbox": [1, 2, 3]}, "4 finite numbers"),
        ({"bbox": [1, 2, 3, float("inf")]}, "4 finite numbers"),
        ({"score": "high"}, r"boxes\[0\] \(image 1\): 'score' is 'high'"),
        ({"image_id": {}}, r"boxes\[0\]: 'image_id' is \{\}"),
    ],
)
def test_bad_detections_are_named(tmp_path, spec, checkpoint, change, message, capsys):
    box = {"image_id": 1, "bbox": [10, 10, 50, 90], "score": 0.5, **change}
    with pytest.raises(InputError, match=message):
        evaluate(Oracle(spec), spec, "oks", boxes=[box])
    (tmp_path / "boxes.json").write_text(json.dumps([box]))
    data = f"{spec.annotations}:{spec.images}"
    fails([checkpoint, "--data", data, "--metric", "oks", "--boxes", tmp_path / "boxes.json"], 4, "boxes[0]", capsys)


@pytest.mark.parametrize("metric", ["pck", "pckh"])
def test_pck_of_detector_boxes_is_refused(spec, metric):
    with pytest.raises(InputError, match=r"PCK needs the true boxes \(leave out --boxes\)"):
        evaluate(Oracle(spec), spec, metric, boxes=[])


@pytest.mark.parametrize("boxes", [None, []])
def test_nobody_labelled(edited, spec, boxes):
    with pytest.raises(InputError, match="no person with labelled key points"):
        evaluate(Oracle(spec), edited({"keypoints": [0] * 51}), "oks", boxes=boxes)


def test_oks_of_each_key_point(spec):
    figures, results = evaluate(Oracle(spec), spec, "oks")
    labelled = np.any([p.visible > 0 for p in load_persons(spec).labelled], axis=0)
    for name, seen in zip(figures["names"], labelled, strict=True):
        assert figures["per_keypoint"][name] == (pytest.approx(100) if seen else None)
    moved = [{**r, "keypoints": [*r["keypoints"][:-3], -900, -900, 1]} for r in results]
    points = evaluate(moved, spec, "oks")[0]["per_keypoint"]
    assert points["right_ankle"] == pytest.approx(0) and points["left_hip"] == pytest.approx(100)
    nameless = [{k: v for k, v in r.items() if k != "annotation_id"} for r in results]
    assert set(evaluate(nameless, spec, "oks")[0]["per_keypoint"].values()) == {None}
    boxes = [{"image_id": 1, "bbox": [10, 10, 50, 90], "score": 0.5}]
    figures, results = evaluate(Oracle(spec), spec, "oks", boxes=boxes)
    assert set(figures["per_keypoint"].values()) == {None} and "annotation_id" not in results[0]


def test_devices_of_a_checkpoint(spec, checkpoint, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert CheckpointPredictor(checkpoint).device.type == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(BackendUnavailable, match="legal here is cpu"):
        CheckpointPredictor(checkpoint, device="cuda")
    data = f"{spec.annotations}:{spec.images}"
    fails([checkpoint, "--data", data, "--metric", "pck", "--device", "foo"], 5, "runs on cpu or cuda", capsys)


@pytest.mark.parametrize("suffix", ["safetensors", "onnx"])
def test_boxes_outside_the_picture_are_refused(edited, tmp_path, checkpoint, suffix, capsys):
    model = checkpoint if suffix == "safetensors" else write_centroid_onnx(tmp_path / "pose.onnx")
    spec = edited({"bbox": [500, 10, 20, 30]})
    data = f"{spec.annotations}:{spec.images}"
    fails([model, "--data", data, "--metric", "pck"], 4, "fully outside the image of 192 x 256 px", capsys)


@pytest.mark.parametrize(
    "box", [[0, 0, np.nan, 9], [9, 0, 3, 9], [0, -9, 5, 0], [30, 0, 35, 9], [0, 0, 9e9, 9], [1, 1, 1.5, 1.5]]
)
def test_a_checkpoint_refuses_the_boxes_that_the_runtime_refuses(checkpoint, box):
    image, boxes = np.zeros((40, 30, 3), np.uint8), np.array([[0, 0, 9, 9], box], float)
    problem = box_problem(boxes[1].tolist(), (30, 40))
    with pytest.raises(InputError, match=rf"^boxes_xyxy\[1\] is .*: {re.escape(problem)}$"):
        CheckpointPredictor(checkpoint)(image, boxes)


def test_usage_errors(tmp_path, spec, checkpoint, capsys):
    common = ["--data", f"{spec.annotations}:{spec.images}", "--metric"]
    refused([checkpoint, *common, "oks", "--threshold", "0.3"], "--threshold is of pck and pckh", capsys)
    for wrong in ("0", "-1", "nan", "inf", "much"):
        refused([checkpoint, *common, "pck", f"--threshold={wrong}"], "is not a finite number above 0", capsys)
    for more in (["--flip-test"], ["--boxes", "b.json"], ["--score-mode", "box"]):
        refused([tmp_path / "r.json", *common, "oks", *more], "a results file is scored as it is", capsys)
    for option in ("--json", "--save-predictions"):
        refused([checkpoint, *common, "pck", option, tmp_path / "none" / "f.json"], "there is no folder", capsys)


def test_errors(tmp_path, spec, checkpoint, capsys):
    data = f"{spec.annotations}:{spec.images}"
    for arguments, code, message in [
        ([str(tmp_path / "none.safetensors"), "--data", data, "--metric", "pck"], 3, "no such checkpoint"),
        ([str(tmp_path / "none.onnx"), "--data", data, "--metric", "pck"], 3, "none.onnx"),
        ([str(checkpoint), "--data", "x", "--metric", "pck"], 4, "is not ANN.json:IMAGES"),
        ([str(tmp_path / "none.json"), "--data", data, "--metric", "pck"], 4, "cannot read"),
    ]:
        assert main(arguments) == code
        error = capsys.readouterr().err
        assert message in error and "Traceback" not in error
    (tmp_path / "r.json").write_text('{"a": 1}')
    assert main([str(tmp_path / "r.json"), "--data", data, "--metric", "pck"]) == 4
    with pytest.raises(InputError, match="unknown metric 'iou'; legal are oks, pck, pckh"):
        evaluate(Oracle(spec), spec, "iou")
    with pytest.raises(SystemExit) as usage:
        main([str(checkpoint), "--data", data, "--metric", "iou"])
    assert usage.value.code == 2
