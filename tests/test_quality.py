"""How good a model is: variants, reliability by hand, and the command's report."""

from __future__ import annotations

import dataclasses
import json

import cv2
import numpy as np
import pytest
import torch
from conftest import dots_image, write_centroid_onnx
from photographs import write_data_set

from runtime.errors import InputError
from tfpose_edge import PRESETS, TFPose, save_checkpoint
from training import networks
from training.data.persons import Person
from training.data.spec import DataSpec
from training.evaluate import evaluate
from training.predictor import CheckpointPredictor
from training.quality.__main__ import main
from training.quality.reliability import Points, bins_of, calibration_error, points_of
from training.quality.variants import resized, variants_of

TINY = PRESETS["tiny"]
NAMES = ("left_shoulder", "right_hip", "nose")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    torch.manual_seed(0)
    model = TFPose(TINY)
    for head in model.keypoint_heads:
        torch.nn.init.normal_(head.layers[-1].weight, 0, 0.2)  # or every layer answers with the same pose
    path = tmp_path_factory.mktemp("quality") / "model.safetensors"
    save_checkpoint(path, model)
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data_set(tmp_path_factory.mktemp("pictures"), 3)


def person(identity, visible=(2, 2, 2)):
    points = np.array([[10.0, 10], [10, 60], [30, 10]])  # a torso of 50 px
    return Person(None, 1, identity, points, np.array(visible), np.ones(3, bool), np.array([0.0, 0, 60, 70]), 400.0)


def result(identity, offsets, scores):
    rows = np.column_stack([person(0).keypoints_xy + np.column_stack([offsets, [0, 0, 0]]) - 0.5, scores])
    return {"annotation_id": identity, "keypoints": rows.ravel().tolist()}


def test_points_by_hand():
    """10 px off is a fifth of the torso and right; unlabelled points do not count, nor do torsos without an end."""
    results = [result(2, (0, 11, 10), (0.9, 0.3, 0.5)), result(1, (0, 0, 0), (0.1, 0.2, 0.3))]
    points = points_of(results, [person(1, (2, 0, 2)), person(2)], NAMES)
    assert points.scores.tolist() == pytest.approx([0.1, 0.3, 0.9, 0.3, 0.5])
    assert points.judged.tolist() == [False, False, True, True, True]
    assert points.right.tolist() == [False, False, True, False, True]
    assert points.oks[:3].tolist() == [1, 1, 1] and points.oks[3] < 1


def test_bins_and_their_error_by_hand():
    scores = np.array([0.02, 0.04, 0.83, 0.87, 1.0])
    points = Points(scores, np.array([0.0, 0.1, 0.7, 0.5, 1.0]), np.array([0, 0, 1, 0, 1], bool), scores > 0.03)
    low, high, top = bins_of(points)
    assert low == pytest.approx((0.03, 0.05, 0.0, 2)) and high == pytest.approx((0.85, 0.6, 0.5, 2))
    assert top == pytest.approx((1.0, 1.0, 1.0, 1))
    assert calibration_error([low, high, top]) == pytest.approx((2 * 0.02 + 2 * 0.25) / 5)


def test_variants_of_a_checkpoint(checkpoint, data):
    variants = {v.name: v for v in variants_of(checkpoint, [(96, 128), (128, 160)])}
    assert list(variants) == [
        "as it is",
        "flip test",
        "whole picture as one crop",
        "1 decoder layer",
        "2 decoder layers",
        "crops of 128x160",
    ]
    found = {name: evaluate(v.open(), DataSpec.parse(data), "oks")[1] for name, v in variants.items()}
    assert len({json.dumps(results) for results in found.values()}) == len(found)  # each answers differently
    model, crops = CheckpointPredictor(checkpoint).model, torch.rand(1, 3, 128, 96) * 255
    layers = variants["2 decoder layers"].open().model(crops).per_layer
    assert torch.equal(layers, model(crops).per_layer[:2])


def test_an_artifact_looks_for_a_person_by_itself(tmp_path):
    """The dots of one picture; nobody on a black one."""
    variants = variants_of(write_centroid_onnx(tmp_path / "pose.onnx"))
    assert [v.name for v in variants[2:]] == ["whole picture as one crop", "found in the picture"]
    dots = np.array([[300.0, 160], [280, 230], [330, 240]])
    predictor, boxes = variants[-1].open(), np.array([[0.0, 0, 9, 9]] * 2)
    keypoints_xy, scores = predictor(dots_image((480, 360), dots, radius=12), boxes)
    assert keypoints_xy.shape == (2, 3, 2) and np.abs(keypoints_xy - dots).max() < 2 and scores.min() > 0.5
    keypoints_xy, scores = predictor(np.zeros((360, 480, 3), np.uint8), boxes)
    assert keypoints_xy.shape == (2, 3, 2) and not scores.any()


def test_sizes_that_cannot_be(checkpoint, capsys):
    with pytest.raises(InputError, match="multiples of 32"):
        resized(CheckpointPredictor(checkpoint).model, (100, 100))
    with pytest.raises(SystemExit):
        main([str(checkpoint), "--data", "any.json:any", "--sizes", "96,100"])
    assert "'96,100' is not legal, legal are multiples of 32 px" in capsys.readouterr().err


def test_the_report_sets_models_side_by_side(tmp_path, checkpoint, data, capsys):
    config = dataclasses.replace(TINY, heatmap_channels=32)
    networks.save(tmp_path / "rival.safetensors", networks.build("simplebaseline", config))
    assert (
        main([str(checkpoint), str(tmp_path / "rival.safetensors"), "--data", data, "--output", str(tmp_path / "q")])
        == 0
    )
    report = json.loads((tmp_path / "q" / "quality.json").read_text())
    names = [(row["model"], row["variant"]) for row in report["rows"]]
    assert names[:2] == [("model.safetensors", "as it is"), ("model.safetensors", "flip test")]
    assert names[-3:] == [("rival.safetensors", way) for way in ("as it is", "flip test", "whole picture as one crop")]
    first = report["rows"][0]
    expected, _ = evaluate(CheckpointPredictor(checkpoint), DataSpec.parse(data), "pck", 0.1)
    assert first["pck0.1"] == expected["value"] and first["pck0.1_per_keypoint"] == expected["per_keypoint"]
    assert sum(b[3] for b in report["bins"]["model.safetensors"]) > 20 and 0 <= first["calibration_error"] <= 1
    text = (tmp_path / "q" / "quality.md").read_text()
    assert text.strip() in capsys.readouterr().out and "| left_wrist |" in text
    assert cv2.imread(str(tmp_path / "q" / "reliability.png")) is not None


def test_errors_are_one_line(tmp_path, checkpoint, data, capsys):
    (tmp_path / "results.json").write_text("[]")
    assert main([str(tmp_path / "results.json"), "--data", data, "--output", str(tmp_path / "q")]) == 4
    assert "a results file" in capsys.readouterr().err
    assert main([str(tmp_path / "none.safetensors"), "--data", data, "--output", str(tmp_path / "q")]) == 3
    assert main([str(checkpoint), str(checkpoint), "--data", data, "--output", str(tmp_path / "q")]) == 4
    assert "the same name" in capsys.readouterr().err
