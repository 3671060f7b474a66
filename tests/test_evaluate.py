"""`training.evaluate` on checkpoints, artifacts and results files."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from conftest import write_centroid_onnx
from photographs import write_data_set

from runtime.errors import InputError
from runtime.skeleton import LSP_14
from tfpose_edge import PRESETS, TFPose, save_checkpoint
from training.data.coco import DataSpec, load_persons
from training.evaluate import evaluate, main
from training.options import Options
from training.predictor import CheckpointPredictor, FlipTest
from training.run import RunFolder
from training.train import train


class Oracle:
    """Knows the truth of a data set, and adds an offset."""

    def __init__(self, spec, offset_px=0.0):
        self.people = load_persons(spec).persons
        self.names = load_persons(spec).names
        self.offset_px = offset_px

    def __call__(self, image_bgr, boxes_xyxy):
        nearest = [min(self.people, key=lambda p: np.abs(p.box_xyxy - box).sum()) for box in boxes_xyxy]
        keypoints_xy = np.stack([p.keypoints_xy for p in nearest]) + self.offset_px
        return keypoints_xy, np.full(keypoints_xy.shape[:2], 0.5)


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
