"""The box that follows a person."""

from __future__ import annotations

import numpy as np
import pytest

from runtime.results import PoseResult
from runtime.tracking import CONFIDENT_SCORE, Follower, box_around, glide, overlap

SIZE_WH = (640, 480)
POINTS = np.array([[300, 100], [280, 200], [320, 200], [290, 300]], np.float32)
SURE = np.full(4, 0.9, np.float32)


def result_of(points: np.ndarray, scores: np.ndarray) -> PoseResult:
    boxes = np.array([[0, 0, *SIZE_WH]], np.float32)
    return PoseResult(points[None], scores[None], boxes, tuple("abcd"), (), SIZE_WH, {})


def test_box_holds_the_pose_with_a_margin():
    box = box_around(POINTS, SURE, SIZE_WH)
    np.testing.assert_allclose(box, [280 - 30, 100 - 30, 320 + 30, 300 + 30])  # 15 % of 200 px


def test_box_is_cut_at_the_image():
    np.testing.assert_allclose(box_around(POINTS - [270, 90], SURE, SIZE_WH)[:2], [0, 0])


def test_unsure_points_do_not_shape_the_box():
    points = np.vstack([POINTS, [[600, 470]]]).astype(np.float32)
    scores = np.append(SURE, CONFIDENT_SCORE / 2).astype(np.float32)
    np.testing.assert_array_equal(box_around(points, scores, SIZE_WH), box_around(POINTS, SURE, SIZE_WH))


@pytest.mark.parametrize(
    ("points", "scores"),
    [(POINTS, SURE * 0.1), (np.full_like(POINTS, 100), SURE), (POINTS + 5000, SURE), (POINTS - 5000, SURE)],
    ids=["low scores", "one spot", "right of the image", "left of it"],
)
def test_a_person_is_lost(points, scores):
    assert box_around(points, scores, SIZE_WH) is None


def test_overlap_of_known_boxes():
    first = np.array([0.0, 0, 10, 10])
    assert overlap(first, first) == 1
    assert overlap(first, np.array([5.0, 0, 15, 10])) == pytest.approx(1 / 3)
    assert overlap(first, np.array([20.0, 20, 30, 30])) == 0


def test_box_glides_to_a_near_pose_and_jumps_to_a_far_one():
    near, far = np.array([2.0, 0, 12, 10]), np.array([100.0, 0, 110, 10])
    previous = np.array([0.0, 0, 10, 10])
    assert previous[0] < glide(previous, near)[0] < near[0]
    np.testing.assert_array_equal(glide(previous, far), far)


def test_follower_searches_finds_follows_and_searches_again():
    follower = Follower()
    assert follower.boxes_xyxy is None
    follower.update(result_of(POINTS, SURE))
    assert follower.boxes_xyxy.shape == (1, 4)
    follower.update(result_of(POINTS, SURE * 0.1))
    assert follower.boxes_xyxy is None


def test_box_stays_with_a_steady_pose():
    follower = Follower()
    for _ in range(50):
        follower.update(result_of(POINTS, SURE))
    np.testing.assert_allclose(follower.box_xyxy, box_around(POINTS, SURE, SIZE_WH))
