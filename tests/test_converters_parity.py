"""Parity: distances in pixels, limits, batches, and models that do not move."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from photographs import write_data_set

from converters.accuracy import Accuracy, Labels
from converters.errors import ConversionError
from converters.parity import Outputs, artifact_outputs, compare
from runtime.geometry import transform_points
from runtime.skeleton import COCO_17
from training.data.calibration import subjects
from training.data.spec import DataSpec
from training.evaluate import evaluate

SIZE_WH = (100, 200)
RANDOM = np.random.default_rng(0)
EXPECTED = Outputs(RANDOM.random((5, 17, 2), dtype=np.float32), RANDOM.random((5, 17), dtype=np.float32))


class Echo:
    """Answers a crop that is filled with i with row i of `EXPECTED`; remembers the batches."""

    def __init__(self):
        self.seen = []

    def infer(self, crops):
        self.seen.append(crops)
        rows = crops[:, 0, 0, 0].astype(int) - 1
        return EXPECTED.keypoints[rows], EXPECTED.scores[rows]

    def close(self):
        pass


def test_distances_are_in_pixels_of_the_crop():
    keypoints = EXPECTED.keypoints.copy()
    keypoints[0, 0] += np.float32([0.03, 0.02])  # 3 px and 4 px
    parity = compare(EXPECTED, Outputs(keypoints, EXPECTED.scores + np.float32(0.25)), SIZE_WH, "here")
    assert parity.max_px == pytest.approx(5, abs=1e-3) and parity.p99_px < 5
    assert parity.within_1px == parity.within_4px == pytest.approx(84 / 85)
    assert parity.max_score_difference == pytest.approx(parity.mean_score_difference) == pytest.approx(0.25)
    assert (parity.engine, parity.images, parity.meaningful, parity.accepted) == ("here", 5, True, False)


@pytest.mark.parametrize(
    ("max_px", "score", "number"), [(0.05, 0.01, 0), (0.051, 0, 1), (np.nan, 0, 1), (0, np.nan, 1), (1, 1, 2)]
)
def test_limits(max_px, score, number):
    parity = compare(EXPECTED, EXPECTED, SIZE_WH, "here")
    parity = dataclasses.replace(parity, max_px=max_px, max_score_difference=score)
    assert len(parity.violations("fp32")) == number


@pytest.mark.parametrize(
    ("precision", "changes", "words"),
    [
        ("fp16", {"max_px": 3.9, "within_1px": 0.99}, []),
        ("fp16", {"max_px": 3.9, "within_1px": 0.9899}, ["98.99% of the key points stay within 1 px (limit 99%)"]),
        ("fp16", {"max_px": 4.1, "within_4px": 0.999}, ["99.90% of the key points stay within 4 px (limit 100%)"]),
        ("int8", {"max_px": 90, "within_1px": 0, "within_4px": 0.95, "max_score_difference": 0.5}, []),
        ("int8", {"max_px": 90, "within_4px": 0.949}, ["94.90% of the key points stay within 4 px (limit 95%)"]),
        ("int8", {"max_px": np.nan}, ["key points are not finite"]),
        ("int8", {"accuracy": Accuracy(49.1, 80.0)}, []),
        ("int8", {"accuracy": Accuracy(48.9, 80.0)}, ["AP falls by 1.10 (limit 1.0)"]),
        ("fp16", {"accuracy": Accuracy(49.7, 80.0)}, ["AP falls by 0.30 (limit 0.2)"]),
        ("fp16", {"accuracy": Accuracy(None, 80.0)}, []),
    ],
)
def test_limits_of_precisions(precision, changes, words):
    parity = compare(EXPECTED, EXPECTED, SIZE_WH, "here")
    parity = dataclasses.replace(parity, checkpoint_accuracy=Accuracy(50.0, 80.0), **changes)
    assert parity.violations(precision) == words


@pytest.mark.parametrize("names", [COCO_17, (*COCO_17[5:], "tail", "horn")])
def test_accuracy_is_that_of_evaluation(tmp_path, names):
    """With a network that has key points which the data lack, whose scores rank nobody."""
    data = write_data_set(tmp_path / "coco", 6)
    compared, _ = subjects(SIZE_WH, 1.25, data)
    labels = Labels.of(compared, names, SIZE_WH)
    others = np.zeros((len(names) - len(set(names) & set(COCO_17)), 2))
    shared = [COCO_17.index(name) for name in names if name in COCO_17]
    truth = np.stack([np.concatenate([p.keypoints_xy[shared], others]) for p in compared.truth.persons])
    moved = truth + np.where(np.arange(6) < 3, 0, 40)[:, None, None]
    scores = np.random.default_rng(1).random((6, len(names)), np.float32)

    def in_crops(keypoints_xy):
        pairs = zip(keypoints_xy, compared.matrices, strict=True)
        return np.float32([transform_points(xy, matrix) / SIZE_WH for xy, matrix in pairs])

    def predictor(image, boxes):
        (row,) = [i for i, p in enumerate(compared.truth.persons) if np.array_equal(p.box_xyxy, boxes[0])]
        return moved[row][None], scores[row][None]

    predictor.names = names
    assert labels.accuracy(in_crops(truth), scores) == pytest.approx((100, 100))
    actual = labels.accuracy(in_crops(moved), scores)
    for metric, value in zip(("oks", "pck"), actual, strict=True):
        expected = evaluate(predictor, DataSpec.parse(data), metric)[0]["value"]
        assert expected == pytest.approx(value, abs=0.01) and value < 100


def test_rendered_people_have_no_labels_and_foreign_names_neither(tmp_path):
    assert Labels.of(subjects(SIZE_WH, 1.25, count=2)[0], COCO_17, SIZE_WH) is None
    annotated = subjects(SIZE_WH, 1.25, write_data_set(tmp_path / "coco", 3))[0]
    assert Labels.of(annotated, ("tail", "horn"), SIZE_WH) is None
    few = Labels.of(annotated, ("left_ankle", "tail", "nose"), SIZE_WH)
    assert few.truth.names == ("nose", "left_ankle") and few.columns == (2, 0)
    assert few.accuracy(np.zeros((3, 3, 2), np.float32), np.ones((3, 3), np.float32)).pck is None  # no torso


def test_nan_is_not_parity():
    keypoints = EXPECTED.keypoints.copy()
    keypoints[3, 4, 0] = np.nan
    assert compare(EXPECTED, Outputs(keypoints, EXPECTED.scores), SIZE_WH, "here").violations("fp32")


def test_key_points_that_stay_are_not_meaningful():
    still = Outputs(EXPECTED.keypoints[:1] + np.float32(1e-3) * EXPECTED.keypoints, EXPECTED.scores)
    parity = compare(still, still, SIZE_WH, "here")
    assert not parity.meaningful and 0 < parity.motion_px < 1


@pytest.mark.parametrize("batch", [1, 2, 5, 8])
def test_batches_are_filled_and_cut(batch):
    crops = np.broadcast_to(np.arange(1, 6, dtype=np.uint8)[:, None, None, None], (5, 3, 4, 4))
    echo = Echo()
    outputs = artifact_outputs(echo, crops, batch, "float32", EXPECTED)
    np.testing.assert_array_equal(outputs.keypoints, EXPECTED.keypoints)
    np.testing.assert_array_equal(outputs.scores, EXPECTED.scores)
    assert {(seen.shape, seen.dtype.name) for seen in echo.seen} == {((batch, 3, 4, 4), "float32")}
    assert not echo.seen[-1][5 - batch * (len(echo.seen) - 1) :].any()


def test_wrong_shapes_are_an_error():
    class Swapped(Echo):
        def infer(self, crops):
            return super().infer(crops)[::-1]

    with pytest.raises(ConversionError, match="shapes"):
        artifact_outputs(Swapped(), np.ones((5, 3, 4, 4), dtype=np.uint8), 1, "uint8", EXPECTED)
