"""Losses and metrics against hand-computed values."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
import torch

from runtime.errors import InputError
from runtime.skeleton import COCO_17, sigmas
from tfpose_edge import PRESETS, PoseOutput, TFPose
from training import criterion, metrics
from training.data.dataset import Batch
from training.data.persons import Person, PersonSet
from training.figures import draw_curves, running_mean
from training.optimizer import build_optimizer, scaled_lr, schedule, set_lr


def batch(keypoints, labelled, named=None, area=100.0):
    keypoints, labelled = torch.tensor(keypoints), torch.tensor(labelled)
    named = torch.ones_like(labelled) if named is None else torch.tensor(named)
    count = len(keypoints)
    return Batch(torch.zeros(count, 3, 4, 4), keypoints, labelled, named, torch.full((count,), area), None, None, None)


def output(per_layer, scores):
    per_layer = torch.tensor(per_layer)
    return PoseOutput(per_layer[-1], torch.tensor(scores), per_layer, torch.zeros(1))


def test_regression_loss_is_the_mean_over_points_summed_over_layers():
    truth = batch([[[0.5, 0.5], [0.2, 0.2], [1.5, 0.5]]], [[True, False, True]])  # the third is outside the crop
    layers = [[[[0.4, 0.5], [0, 0], [0, 0]]], [[[0.5, 0.7], [0, 0], [0, 0]]]]
    terms = criterion.losses(output(layers, [[0.5] * 3]), None, truth, torch.ones(3) * 0.1, (10, 10))
    assert float(terms["loss_keypoints"]) == pytest.approx((0.1 + 0.2) / 2)


def test_no_labelled_point_is_no_loss():
    truth = batch([[[0.5, 0.5]]], [[False]], [[False]])
    terms = criterion.losses(output([[[[0.1, 0.1]]]], [[0.5]]), torch.ones(1, 1, 4, 4), truth, torch.ones(1), (4, 4))
    assert [float(t) for t in terms.values()] == [0, 0, 0]


def test_heatmaps_are_unbiased_and_scale_with_the_map():
    maps = criterion.gaussian_heatmaps(torch.tensor([[[0.5, 0.25]]]), 64, 48)[0, 0]
    x, y = 0.5 * 48 - 0.5, 0.25 * 64 - 0.5
    assert float(maps[16, 23]) == pytest.approx(math.exp(-((23 - x) ** 2 + (16 - y) ** 2) / 8))
    columns = (maps.sum(0) * torch.arange(48)).sum() / maps.sum()
    assert float(columns) == pytest.approx(x, abs=1e-4)
    wide = criterion.gaussian_heatmaps(torch.tensor([[[0.5, 0.5]]]), 96, 72)[0, 0]
    assert float(wide[47, 40]) == pytest.approx(math.exp(-((40 - 35.5) ** 2 + (47 - 47.5) ** 2) / 18))


def test_heatmap_loss_is_a_mean_over_pixels_then_labelled_maps():
    truth = batch([[[0.5, 0.5], [0.2, 0.2]]], [[True, False]])
    target = criterion.gaussian_heatmaps(truth.keypoints, 8, 8)
    wrong = target.clone()
    wrong[0, 0] += 0.5
    wrong[0, 1] += 9
    terms = criterion.losses(output([[[[0.5, 0.5], [0, 0]]]], [[0.5, 0.5]]), wrong, truth, torch.ones(2), (4, 4))
    assert float(terms["loss_heatmaps"]) == pytest.approx(0.25)


def test_score_target_is_soft_oks_zero_or_absent():
    """Labelled: OKS; named but unlabelled: 0; not named: no say."""
    truth = batch([[[0.5, 0.5], [0.0, 0.0], [0.0, 0.0]]], [[True, False, False]], [[True, True, False]], area=50.0)
    distance, sigma = 1.0, 0.1
    oks = math.exp(-(distance**2) / (2 * 50 * (2 * sigma) ** 2))
    scores = [[0.7, 0.2, 0.9]]
    terms = criterion.losses(
        output([[[[0.6, 0.5], [0, 0], [0, 0]]]], scores), None, truth, torch.full((3,), sigma), (10, 10)
    )
    entropy = -(oks * math.log(0.7) + (1 - oks) * math.log(0.3)) - math.log(0.8)
    assert float(terms["loss_scores"]) == pytest.approx(entropy / 2, rel=1e-4)


def test_weights_are_equation_7():
    terms = {"loss_keypoints": torch.tensor(1.0), "loss_heatmaps": torch.tensor(0.1), "loss_scores": torch.tensor(2.0)}
    assert float(criterion.weighted_sum(terms)) == pytest.approx(1 + 50 * 0.1 + 2)
    assert set(terms) == set(criterion.LOSS_WEIGHTS)


def test_optimizer_groups():
    model = TFPose(PRESETS["tiny"])
    optimizer = build_optimizer(model, 1e-3, 1e-4, 0.1)
    groups = {id(p): g for g in optimizer.param_groups for p in g["params"]}
    assert len(groups) == len(list(model.parameters()))
    for name, parameter in model.named_parameters():
        slow = name.startswith(("encoder.", "decoder.", "keypoint_heads."))
        lr = 1e-2 if name.startswith("score_head.") else 1e-4 if slow else 1e-3
        assert groups[id(parameter)]["lr"] == pytest.approx(lr), name
        assert groups[id(parameter)]["weight_decay"] == (1e-4 if parameter.ndim > 1 else 0), name
    set_lr(optimizer, 0.5)
    set_lr(optimizer, 0.5)
    assert {g["lr"] for g in optimizer.param_groups} == {5e-4, 5e-5, 5e-3}


def test_schedule():
    assert scaled_lr(1024) == 4e-3 and scaled_lr(256) == 1e-3
    assert schedule(0, 1000, 10) == 0.1 and schedule(9, 1000, 10) == 1.0
    assert schedule(10, 1000, 10) == 1.0 and schedule(505, 1000, 10) == pytest.approx(0.5)
    assert schedule(1000, 1000, 10) == pytest.approx(0.0)


def person(keypoints, visible=None, **more):
    keypoints = np.asarray(keypoints, float)
    visible = np.full(len(keypoints), 2) if visible is None else np.asarray(visible)
    base = {
        "image_path": None,
        "image_id": 1,
        "annotation_id": 1,
        "area": 400.0,
        "box_xyxy": np.array([0, 0, 20, 40.0]),
    }
    return Person(keypoints_xy=keypoints, visible=visible, named=visible >= 0, **{**base, **more})


NAMES = ("left_shoulder", "right_hip", "left_wrist")


def test_pck_by_hand():
    """Torso 10 px, so 0.2 is 2 px; the second person has no torso and is left out."""
    people = [person([[0, 0], [6, 8], [20, 20]]), person([[0, 0], [0, 0], [5, 5]], [0, 2, 2])]
    predicted = np.array([[[0, 1.9], [6, 10.1], [20, 22]], [[9, 9], [9, 9], [9, 9]]])
    figures = metrics.pck(predicted, people, NAMES, 0.2)
    assert figures["value"] == pytest.approx(200 / 3)
    assert figures["per_keypoint"] == {"left_shoulder": 100.0, "right_hip": 0.0, "left_wrist": 100.0}
    assert (figures["persons"], figures["left_out"]) == (1, 1)
    with pytest.raises(InputError, match="none of the 1 persons has a labelled left shoulder"):
        metrics.pck(predicted[:1], [people[1]], NAMES, 0.2)


def test_pckh_by_hand():
    people = [person([[0, 0], [6, 8], [20, 20]], head_size=4.0)]
    predicted = np.array([[[0, 1.9], [6, 10.1], [20, 22]]])
    assert metrics.pck(predicted, people, NAMES, 0.5, by_head=True)["value"] == pytest.approx(200 / 3)
    with pytest.raises(InputError, match="head size"):
        metrics.pck(predicted, [person([[0, 0], [6, 8], [20, 20]])], NAMES, 0.5, by_head=True)


def test_oks_by_hand():
    people = [person([[0, 0], [6, 8], [20, 20]], [2, 2, 0])]
    k = 2 * np.array(sigmas(NAMES))
    expected = (1 + math.exp(-9 / (2 * 400 * k[1] ** 2))) / 2
    assert metrics.oks(np.array([[[0, 0], [9, 8], [99, 99]]]), people, NAMES)[0] == pytest.approx(expected)


def test_oks_of_each_key_point_by_hand():
    """The third point is labelled for nobody, the second for one of two persons."""
    people = [person([[0, 0], [6, 8], [9, 9]], [2, 2, 0]), person([[0, 0], [6, 8], [9, 9]], [1, 0, 0])]
    k = 2 * np.array(sigmas(NAMES))
    predicted = np.array([[[3, 0], [6, 8], [0, 0]], [[0, 0], [0, 0], [0, 0]]], float)
    points = metrics.oks_per_keypoint(predicted, people, NAMES)
    assert points["left_shoulder"] == pytest.approx(50 * (1 + math.exp(-9 / (2 * 400 * k[0] ** 2))))
    assert points["right_hip"] == 100 and points["left_wrist"] is None


def test_pairing_by_annotation_id():
    people = [person([[0, 0]], annotation_id=4), person([[0, 0]], annotation_id=5)]
    found = metrics.paired([{"annotation_id": 5, "keypoints": [1.0, 2.0, 0.9]}], people, 1)
    assert found.tolist() == [[[np.inf, np.inf]], [[1.5, 2.5]]]
    assert metrics.paired([{"keypoints": [1.0, 2.0, 0.9]}], people, 1) is None
    assert np.isinf(metrics.paired([], people, 1)).all()


def test_average_precision_of_truth_and_of_noise():
    rng = np.random.default_rng(0)
    people = [
        person(rng.uniform(0, 100, (17, 2)) + 200 * i, image_id=i + 1, annotation_id=i + 1, area=5000.0)
        for i in range(6)
    ]
    truth = PersonSet(people, [1, 2, 3, 4, 5, 6], {}, COCO_17)

    def results(offset):
        rows = [np.column_stack([p.keypoints_xy - 0.5 + offset, np.ones(17)]) for p in people]
        return [
            {"image_id": p.image_id, "keypoints": r.ravel().tolist(), "score": 0.9}
            for p, r in zip(people, rows, strict=True)
        ]

    assert metrics.average_precision(results(0.0), truth, COCO_17)["value"] == pytest.approx(100)
    assert metrics.average_precision(results(4.0), truth, COCO_17)["value"] < 90
    assert metrics.average_precision([], truth, COCO_17)["value"] == 0


def test_running_mean():
    assert running_mean(np.array([2.0, 4, 6, 8]), 2).tolist() == [2, 3, 5, 7]


def test_curves_of_an_empty_log_are_a_picture(tmp_path):
    draw_curves(tmp_path / "curves.png", [])
    assert cv2.imread(str(tmp_path / "curves.png")) is not None
