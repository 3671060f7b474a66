"""The One-Euro filter against its own definition, and what it does to people."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

import runtime
from runtime.smoothing import RESET_AFTER_S, Smoother, Smoothing

NAMES = ("nose", "left_hip", "right_hip")
POSE = np.array([[100.0, 50], [140, 250], [60, 250]])  # 200 px high
SIZE_PX = 200


def result_of(*poses, ids=(1,)):
    """A followed result with these poses (K, 2)."""
    points = np.float32(poses).reshape(-1, 3, 2)
    scores, boxes = np.ones(points.shape[:2], np.float32), np.zeros((len(points), 4), np.float32)
    return runtime.PoseResult(points, scores, boxes, NAMES, (), (640, 480), {}, np.array(ids))


def slow_one_euro(values, times, size, smoothing):
    """The published algorithm for one point, with its speed as the length of a vector in person sizes."""

    def alpha(cutoff, dt):
        tau = 1 / (2 * math.pi * cutoff)
        return 1 / (1 + tau / dt)

    out, hat, speed_hat = [values[0]], values[0], np.zeros(2)
    for before, now, dt in zip(values, values[1:], np.diff(times), strict=False):
        a = alpha(smoothing.speed_cutoff_hz, dt)
        speed_hat = a * (now - before) / dt / size + (1 - a) * speed_hat
        a = alpha(smoothing.min_cutoff_hz + smoothing.speed_gain * math.hypot(*speed_hat), dt)
        hat = a * now + (1 - a) * hat
        out.append(hat)
    return np.array(out)


def test_it_is_the_one_euro_filter():
    rng = np.random.default_rng(0)
    times = np.cumsum(rng.uniform(0.02, 0.06, 40))
    wander = np.cumsum(rng.normal(0, 5, (40, 2)), axis=0)  # the whole person, so that the size stays
    smoother = Smoother(Smoothing(1.5, 8.0, 0.7))
    found = [smoother.smooth(result_of(POSE + w), t).keypoints_xy[0] for w, t in zip(wander, times, strict=True)]
    # every point moves alike, and so does the smoothed pose: its size is that of the pose
    expected = slow_one_euro(wander, times, SIZE_PX, Smoothing(1.5, 8.0, 0.7))
    for index in range(3):
        np.testing.assert_allclose(np.array(found)[:, index] - POSE[index], expected, atol=1e-3)


def test_size_and_speed_go_together():
    """The same motion twice as near: twice the pixels, the same filter."""
    times = np.arange(30) / 30
    path = POSE + np.stack([30 * np.sin(5 * times), 20 * times], axis=-1)[:, None]
    near, far = Smoother(Smoothing()), Smoother(Smoothing())
    for pose, time_s in zip(path, times, strict=True):
        twice = near.smooth(result_of(2 * pose), time_s).keypoints_xy
        np.testing.assert_allclose(twice, 2 * far.smooth(result_of(pose), time_s).keypoints_xy, rtol=1e-5)


def test_people_are_smoothed_apart_whatever_their_row():
    times, apart = np.arange(20) / 30, Smoother(Smoothing())
    together = Smoother(Smoothing())
    rng = np.random.default_rng(2)
    for index, time_s in enumerate(times):
        first, second = POSE + rng.normal(0, 3, (3, 2)), POSE + 200 + rng.normal(0, 3, (3, 2))
        expected = apart.smooth(result_of(first), time_s).keypoints_xy[0]
        order = [first, second][:: 1 if index % 2 else -1]
        found = together.smooth(result_of(*order, ids=[7, 9][:: 1 if index % 2 else -1]), time_s).keypoints_xy
        np.testing.assert_array_equal(found[0 if index % 2 else 1], expected)


def test_somebody_back_after_a_while_is_not_dragged_from_where_they_were():
    smoother = Smoother(Smoothing())
    for time_s in (-1 / 30, 0.0):
        smoother.smooth(result_of(POSE), time_s)
    later = smoother.smooth(result_of(POSE + 300), RESET_AFTER_S + 0.1)
    np.testing.assert_array_equal(later.keypoints_xy[0], np.float32(POSE + 300))
    assert len(smoother.filters) == 1


@pytest.mark.parametrize("fps", [0.1, 0.5, 1, 2])
def test_films_with_rare_frames_are_smoothed(fps):
    """A tremble of 2 px around a pose at rest, and one frame in which nobody is seen."""
    smoother, noise = Smoother(Smoothing(0.1 * fps, 0.0, 1.0)), np.random.default_rng(3).normal(0, 2, (30, 3, 2))
    found = [smoother.smooth(result_of(POSE + one), index / fps).keypoints_xy[0] for index, one in enumerate(noise)]
    assert np.abs(found[1] - POSE - noise[1]).max() > 0.5  # from the second frame on
    smoother.smooth(result_of(ids=[]), 30 / fps)
    found.append(smoother.smooth(result_of(POSE + 9), 31 / fps).keypoints_xy[0])
    assert np.std(found[10:30], axis=0).mean() < 0.7 * np.std(noise[10:]) and np.abs(found[-1] - POSE).max() < 7
    later = smoother.smooth(result_of(POSE + 9), 31 / fps + max(RESET_AFTER_S, 3 / fps) + 0.1)
    np.testing.assert_array_equal(later.keypoints_xy[0], np.float32(POSE + 9))


def test_filters_of_people_who_left_are_forgotten():
    smoother = Smoother(Smoothing())
    for index in range(1000):
        smoother.smooth(result_of(POSE, ids=[index]), index / 30)
    assert len(smoother.filters) <= RESET_AFTER_S * 30 + 1


def test_frames_without_ids_or_people_pass_through():
    smoother = Smoother(Smoothing())
    single = replace(result_of(POSE), ids=None)
    assert smoother.smooth(single, 0.0) is single
    assert len(smoother.smooth(result_of(ids=[]), 0.1)) == 0


def test_people_without_an_id_yet_are_not_smoothed():
    smoother = Smoother(Smoothing())
    for index in range(5):
        poses = [POSE + 10 * index, POSE + 300]
        np.testing.assert_array_equal(smoother.smooth(result_of(*poses, ids=[0, 0]), index / 30).keypoints_xy, poses)


def test_time_stamps_that_stand_still_do_no_harm():
    smoother = Smoother(Smoothing())
    for _ in range(3):
        found = smoother.smooth(result_of(POSE), 1.0).keypoints_xy
    np.testing.assert_allclose(found[0], POSE)


@pytest.mark.parametrize(
    ("values", "named"),
    [({"min_cutoff_hz": 0}, "min_cutoff_hz"), ({"speed_gain": -1}, "speed_gain"), ({"speed_cutoff_hz": "1"}, "'1'")],
)
def test_parameters_are_checked(values, named):
    with pytest.raises(runtime.InputError, match=named):
        Smoothing(**values)
    assert Smoothing(speed_gain=0).speed_gain == 0


@pytest.mark.parametrize("given", [None, "yes", 3.0])
def test_what_smoothing_may_be_is_said(centroid_onnx, given):
    with pytest.raises(runtime.InputError, match=r"legal are True, False and a runtime\.Smoothing"):
        runtime.Pose(centroid_onnx, smoothing=given)
