"""Following several people: each with an id, found by a detector every n frames."""

from __future__ import annotations

import sys
import types

import numpy as np
import pytest
from conftest import dots_image, write_centroid_onnx
from following_world import IMAGE, SHAPE, SIGMAS, World

import runtime
from runtime.crowd import Crowd, merge
from runtime.detections import Detections
from runtime.identities import PoseIdentities, open_identities


def crowd(world, detect_every=5):
    return Crowd(world.estimate, world.detect, detect_every, PoseIdentities(SIGMAS), SIGMAS)


def test_several_people_keep_their_ids_in_one_look_per_frame():
    world = World([50, 50, 130, 300], [300, 60, 380, 310], [500, 40, 600, 330])
    follower = crowd(world)
    for frame in range(30):
        for row, person in enumerate(world.people):
            person += [(3, -2, 1)[row], 0, (3, -2, 1)[row], 0]
        result = follower.see(IMAGE, frame / 30)
        assert result.ids.tolist() == [1, 2, 3]
        np.testing.assert_allclose(result.keypoints_xy, [world.look(p)[0] for p in world.people], atol=1e-3)
    assert len(world.looks) == 30 and "detect" in result.timing_ms


def test_the_detector_runs_every_n_frames_and_finds_who_comes():
    world = World([50, 50, 130, 300])
    calls = []
    detect = world.detect
    world.detect = lambda image: calls.append(1) or detect(image)
    follower = crowd(world, detect_every=4)
    numbers = []
    for frame in range(12):
        if frame == 5:
            world.people.append(np.array([400.0, 50, 480, 300]))
        numbers.append(follower.see(IMAGE, frame / 30).ids.tolist())
    assert len(calls) == 3 and numbers == [[1]] * 8 + [[1, 2]] * 4


def test_who_leaves_is_lost_and_the_others_keep_their_ids():
    world = World([50, 50, 130, 300], [300, 60, 380, 310])
    follower = crowd(world)
    follower.see(IMAGE, 0.0)
    world.people.pop(0)
    for frame in range(1, 7):
        assert follower.see(IMAGE, frame / 30).ids.tolist() == [2]


def test_who_the_detector_misses_is_followed_all_the_same():
    world = World([50, 50, 130, 300], [300, 60, 380, 310])
    follower = crowd(world, detect_every=1)
    follower.see(IMAGE, 0.0)
    world.detect = lambda image: Detections(np.zeros((0, 4)), np.zeros(0))
    follower._detect = world.detect
    assert all(follower.see(IMAGE, frame / 30).ids.tolist() == [1, 2] for frame in range(1, 10))


def seen_without_a_detector(presence, score, frames=12):
    """How many people there are in each frame after the first; the detector finds the one of the first only."""
    world = World([50, 50, 130, 300])
    look = world.look
    world.look = lambda box: (look(box)[0], score)
    follower = Crowd(world.estimate, world.detect, 2, PoseIdentities(SIGMAS), SIGMAS, presence)
    follower.see(IMAGE, 0.0)
    follower._detect = lambda image: Detections(np.zeros((0, 4)), np.zeros(0))
    return [len(follower.see(IMAGE, frame / 30)) for frame in range(1, frames)]


def test_who_is_in_doubt_is_gone_after_three_detections_without_them():
    assert seen_without_a_detector(0.4, 0.6) == [1] * 11
    assert seen_without_a_detector(0.4, 0.45) == [1] * 5 + [0] * 6  # frames 2, 4 and 6
    assert seen_without_a_detector(0.4, 0.3) == [0] * 11
    assert seen_without_a_detector(None, 0.6) == [1] * 11
    assert seen_without_a_detector(None, 0.3) == [1] * 5 + [0] * 6


def test_a_detection_clears_the_doubt():
    world = World([50, 50, 130, 300])
    look = world.look
    world.look = lambda box: (look(box)[0], 0.45)
    follower = Crowd(world.estimate, world.detect, 1, PoseIdentities(SIGMAS), SIGMAS, 0.4)
    for frame in range(20):
        seen = world.detect(IMAGE) if frame % 3 == 0 else Detections(np.zeros((0, 4)), np.zeros(0))
        follower._detect = lambda image, seen=seen: seen
        assert follower.see(IMAGE, frame / 30).ids.tolist() == [1]


def test_two_boxes_on_one_person_are_one_person():
    world = World([50, 50, 130, 300])
    follower = crowd(world)
    follower._detect = lambda image: Detections(np.array([[50.0, 50, 130, 300], [40, 80, 150, 310]]), np.ones(2))
    assert follower.see(IMAGE, 0.0).ids.tolist() == [1]


def test_nobody_at_all_runs_nothing_but_the_detector():
    world = World()
    result = crowd(world).see(IMAGE, 0.0)
    assert len(result) == 0 and result.ids.shape == (0,) and world.looks[0].shape == (0, 4)


def test_people_who_meet_and_part_keep_their_ids():
    """Two who walk through each other: the poses tell them apart while their boxes cannot."""
    identities = PoseIdentities(SIGMAS)
    tall, wide = SHAPE * (60, 240), SHAPE[:, ::-1] * (140, 200)
    for frame in range(61):
        shift = np.array([4.0 * frame, 0])
        poses = np.float32([tall + shift + [100, 60], wide - shift + [340, 90]])
        boxes = np.concatenate([poses.min(axis=1), poses.max(axis=1)], axis=1).astype(float)
        order = [0, 1] if frame % 3 else [1, 0]
        ids = identities.assign(poses[order], np.ones((2, 3), np.float32), boxes[order], frame / 30)
        assert ids.tolist() == ([1, 2] if order == [1, 0] else [2, 1])


def test_merge_replaces_what_overlaps_and_adds_the_rest():
    followed = np.array([[0.0, 0, 100, 100], [200, 0, 300, 100]])
    detected = np.array([[400.0, 0, 500, 100], [10, 0, 110, 100]])
    boxes, is_found = merge(followed, detected)
    np.testing.assert_array_equal(boxes, [detected[1], followed[1], detected[0]])
    assert is_found == [True, False, True]
    np.testing.assert_array_equal(merge(followed[:0], detected)[0], detected)
    boxes, is_found = merge(followed, detected[:0])
    np.testing.assert_array_equal(boxes, followed)
    assert is_found == [False, False]


def test_video_with_a_detector_follows_two_people(tmp_path):
    import cv2

    dots = np.array([[60.0, 60], [40, 130], [80, 140]])
    path = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (400, 240))
    for frame in range(10):
        left, right = (
            dots_image((400, 240), dots + np.array([x, 20]), radius=12) for x in (3 * frame, 230 - 2 * frame)
        )
        writer.write(cv2.max(left, right))
    writer.release()
    boxes = [[20, 60, 100, 180], [250, 60, 330, 180]]
    pose = runtime.Pose(
        write_centroid_onnx(tmp_path / "m" / "pose.onnx", batch=2),
        threads=1, detector=lambda image: boxes, detect_every=100, smoothing=False,
    )  # fmt: skip
    for frame in pose.video(path):
        assert frame.result.ids.tolist() == [1, 2]
        shifts = np.array([[3.0 * frame.index, 20], [230 - 2.0 * frame.index, 20]])
        np.testing.assert_allclose(frame.result.keypoints_xy, dots[None] + shifts[:, None], atol=4)


@pytest.mark.parametrize("given", ["botsort", None, 3])
def test_what_a_tracker_may_be_is_said(centroid_onnx, given):
    with pytest.raises(runtime.InputError, match="legal are oks, bytetrack"):
        runtime.Pose(centroid_onnx, tracker=given)


@pytest.mark.parametrize("given", [0, -1, 2.5, True, "5"])
def test_detect_every_is_checked(centroid_onnx, given):
    with pytest.raises(runtime.InputError, match="detect_every"):
        runtime.Pose(centroid_onnx, detect_every=given)


def test_bytetrack_that_is_not_installed_is_an_error(centroid_onnx, monkeypatch):
    monkeypatch.setitem(sys.modules, "trackers", None)
    monkeypatch.setitem(sys.modules, "supervision", types.ModuleType("supervision"))
    with pytest.raises(runtime.BackendUnavailable, match=r"pip install .*trackers") as caught:
        runtime.Pose(centroid_onnx, tracker="bytetrack")
    assert caught.value.exit_code == 5


def test_ids_of_bytetrack_come_back_to_their_rows(monkeypatch):
    """The package answers in an order of its own and may leave people out, or without an id (-1)."""

    class Detections(types.SimpleNamespace):
        def __len__(self):
            return len(self.xyxy)

    class ByteTrackTracker:
        def __init__(self, **options):
            assert options["frame_rate"] == 25.0 and options["minimum_consecutive_frames"] == 1

        def update(self, detections):
            assert detections.xyxy.dtype == np.float32 and detections.confidence.shape == (3,)
            rows = detections.data["row"][[2, 0]]
            return Detections(xyxy=detections.xyxy[[2, 0]], tracker_id=np.array([7, -1]), data={"row": rows})

    monkeypatch.setitem(sys.modules, "supervision", types.SimpleNamespace(Detections=Detections))
    monkeypatch.setitem(sys.modules, "trackers", types.SimpleNamespace(ByteTrackTracker=ByteTrackTracker))
    identities = open_identities("bytetrack", SIGMAS, 25.0)
    ids = identities.assign(np.zeros((3, 3, 2), np.float32), np.ones((3, 3), np.float32), np.eye(3, 4), 0.0)
    assert ids.tolist() == [0, 0, 8]


def test_the_real_bytetrack_keeps_ids_whatever_the_order():
    identities = open_identities("bytetrack", SIGMAS, 30.0)
    walkers = np.array([[10.0, 10, 60, 160], [200, 20, 260, 180]])
    seen = []
    for frame in range(10):
        order = [1, 0] if frame % 2 else [0, 1]
        boxes = (walkers + frame * np.array([2, 0, 2, 0]))[order]
        ids = identities.assign(np.zeros((2, 3, 2), np.float32), np.full((2, 3), 0.8, np.float32), boxes, frame / 30)
        seen.append(ids[order].tolist())
    assert len({tuple(ids) for ids in seen[2:]}) == 1 and sorted(seen[-1]) == [1, 2]
