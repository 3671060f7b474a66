"""Boxes around poses, and how alike boxes and poses are."""

from __future__ import annotations

import numpy as np
import pytest

from runtime.tracking import CONFIDENT_SCORE, box_around, glide, matches, overlap, overlaps, similarities

SIZE_WH = (640, 480)
POINTS = np.array([[300, 100], [280, 200], [320, 200], [290, 300]], np.float32)
SURE = np.full(4, 0.9, np.float32)


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


def test_box_stays_where_it_is_while_the_pose_only_trembles():
    previous = np.array([0.0, 0, 100, 200])
    for shift in np.random.default_rng(0).normal(0, 2, (50, 4)):
        assert glide(previous, previous + shift) is previous
    assert glide(previous, previous + np.array([12, 0, 12, 0]))[0] > 0  # IoU of 0.79


def test_overlaps_are_those_of_each_pair():
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 50, (2, 7, 2))
    first, second = (np.hstack([c, c + rng.uniform(1, 40, (7, 2))]) for c in corners)
    expected = [[overlap(a, b) for b in second] for a in first]
    np.testing.assert_allclose(overlaps(first, second), expected)
    assert overlaps(first, second[:0]).shape == (7, 0)


def slow_oks(first, second, sigmas):
    """COCO's formula, point by point; the area is that of the box around the first pose."""
    (x1, y1), (x2, y2) = first.min(axis=0), first.max(axis=0)
    area = (x2 - x1) * (y2 - y1)
    terms = []
    for a, b, sigma in zip(first, second, sigmas, strict=True):
        squared = (a[0] - b[0]) ** 2 + (a[1] - b[1]) ** 2
        terms.append(np.exp(-squared / (2 * area * (2 * sigma) ** 2)))
    return np.mean(terms)


def test_similarity_is_cocos_oks():
    rng = np.random.default_rng(1)
    sigmas = np.array([0.026, 0.079, 0.107, 0.06])
    first = np.float32(POINTS + rng.normal(0, 9, (3, 4, 2)))
    second = np.float32(POINTS + rng.normal(0, 9, (2, 4, 2)))
    expected = [[slow_oks(a.astype(float), b.astype(float), sigmas) for b in second] for a in first]
    np.testing.assert_allclose(similarities(first, second, sigmas), expected, rtol=1e-5)
    np.testing.assert_allclose(np.diag(similarities(first, first, sigmas)), 1)


def test_matches_take_the_most_alike_first_and_each_once():
    likeness = np.array([[0.9, 0.8, 0.1], [0.85, 0.2, 0.3]])
    assert matches(likeness, 0.25) == [(0, 0), (1, 2)]
    assert matches(likeness, 0.5) == [(0, 0)]
    assert matches(np.zeros((0, 3)), 0.1) == []
