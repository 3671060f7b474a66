"""Following people: found, lost, searched and found again; several at once, each with its id."""

from __future__ import annotations

import sys
import types

import numpy as np
import pytest
from conftest import dots_image, write_centroid_onnx

import runtime
from runtime.crowd import Crowd, merge
from runtime.detections import Detections
from runtime.following import WINDOW_SHARES, OnePerson, windows
from runtime.geometry import box_to_center_scale
from runtime.identities import MEMORY_S, PoseIdentities, open_identities

SIGMAS = (0.026, 0.107, 0.107)
SIZE_WH = (640, 360)
SHAPE = np.array([[0.5, 0.05], [0.3, 0.6], [0.7, 0.95]])  # of a pose in its box
IMAGE = np.zeros((SIZE_WH[1], SIZE_WH[0], 3), np.uint8)
WINDOWS = windows(SIZE_WH, 0.75, 1.25)
N_LARGE = len(windows(SIZE_WH, 0.75, 1.25, WINDOW_SHARES[:1]))


class World:
    """People as boxes. The network sees who fills enough of a crop, and is unsure otherwise."""

    def __init__(self, *people, least_share=0.05):
        self.people = [np.array(p, float) for p in people]
        self.least_share = least_share
        self.looks: list[np.ndarray] = []

    def estimate(self, image, boxes):
        boxes = np.array([[0.0, 0, *SIZE_WH]]) if boxes is None else np.asarray(boxes, float)
        self.looks.append(boxes)
        persons = [self.look(box) for box in boxes]
        points = np.array([p for p, _ in persons], np.float32).reshape(-1, 3, 2)
        scores = np.array([np.full(3, s) for _, s in persons], np.float32).reshape(-1, 3)
        timing = {"crop": 1.0, "inference": 2.0, "decode": 3.0}
        return runtime.PoseResult(points, scores, boxes.astype(np.float32), ("a", "b", "c"), (), SIZE_WH, timing)

    def look(self, box):
        """The person who fills most of a box."""
        best, share = None, 0.0
        for person in self.people:
            low, high = np.maximum(person[:2], box[:2]), np.minimum(person[2:], box[2:])
            inside = np.prod(np.maximum(high - low, 0)) / np.prod(person[2:] - person[:2])
            filled = inside**4 * np.prod(person[2:] - person[:2]) / np.prod(box[2:] - box[:2])
            if filled > share:
                best, share = person, filled
        if best is None or share < self.least_share:
            return box[:2] + SHAPE * (box[2:] - box[:2]), 0.05
        return best[:2] + SHAPE * (best[2:] - best[:2]), 0.9

    def detect(self, image):
        return Detections(np.array(self.people).reshape(-1, 4), np.ones(len(self.people)))


def one(world):
    return OnePerson(world.estimate, PoseIdentities(SIGMAS))


def test_a_person_is_found_closely_and_followed_with_one_look():
    world = World([100, 50, 220, 350])
    follower = one(world)
    first = follower.see(IMAGE, 0.0)
    assert [len(boxes) for boxes in world.looks] == [N_LARGE, 1] and first.ids.tolist() == [1]
    assert first.timing_ms == {"crop": 2, "inference": 4, "decode": 6}  # both looks
    for frame in range(1, 40):
        world.people[0] += [6, 0, 6, 0]
        result = follower.see(IMAGE, frame / 30)
        assert result.ids.tolist() == [1] and len(world.looks) == 2 + frame
        np.testing.assert_allclose(result.keypoints_xy[0], world.look(world.people[0])[0], atol=1e-3)


def test_somebody_who_leaves_is_lost_and_searched_for_at_a_bounded_price():
    world = World([100, 50, 220, 350])
    follower = one(world)
    follower.see(IMAGE, 0.0)
    world.people.clear()
    world.looks.clear()
    for frame in range(1, 3 + len(WINDOWS) // 2):
        result = follower.see(IMAGE, frame / 30)
        assert len(result) == 0 and result.ids.shape == (0,) and result.keypoints_xy.shape == (0, 3, 2)
    # the box, then the large windows, then three places at a time: all windows in turn, and where the person was
    assert [len(boxes) for boxes in world.looks] == [1, N_LARGE] + [3] * (1 + len(WINDOWS) // 2)
    np.testing.assert_array_equal(world.looks[1][0], [0, 0, *SIZE_WH])
    searched = {tuple(box) for boxes in world.looks[2:] for box in boxes}
    assert searched == {tuple(box) for box in WINDOWS} | {tuple(follower._last)}


def test_somebody_small_is_found_by_the_windows():
    world = World([400, 200, 430, 280])  # fills too little of the whole image and of the largest windows
    follower = one(world)
    found = [len(follower.see(IMAGE, frame / 30)) for frame in range(20)]
    assert found[0] == 0 and found[-1] == 1 and found == sorted(found)


def test_a_short_loss_keeps_the_id_a_long_one_does_not():
    world = World([100, 50, 220, 350])
    follower = one(world)
    here = world.people[:]
    assert follower.see(IMAGE, 0.0).ids.tolist() == [1]
    for time_s in (0.1, 0.2):
        world.people = []
        assert len(follower.see(IMAGE, time_s)) == 0
    world.people = here
    assert follower.see(IMAGE, 0.3).ids.tolist() == [1]
    world.people = []
    for time_s in np.arange(0.4, 0.4 + MEMORY_S + 0.2, 0.1):
        follower.see(IMAGE, time_s)
    world.people = here
    assert follower.see(IMAGE, 2.0).ids.tolist() == [2]


def test_what_a_closer_look_contradicts_does_not_count():
    """A network that is always sure, and says something else about every crop, has not found anybody."""

    def estimate(image, boxes):
        result = World().estimate(image, boxes)
        wide = result.boxes_xyxy[0, 2] == SIZE_WH[0]
        points = np.float32([[30, 30], [60, 90], [40, 120]] if wide else [[400, 200], [450, 300], [420, 340]])
        return runtime.PoseResult(
            np.stack([points] * len(result)), result.scores + 1, result.boxes_xyxy, (), (), SIZE_WH, result.timing_ms
        )

    assert len(OnePerson(estimate, PoseIdentities(SIGMAS)).see(IMAGE, 0.0)) == 0


@pytest.mark.parametrize("size_wh", [(1280, 720), (720, 1280), (500, 500), (64, 48), (1920, 200)])
@pytest.mark.parametrize("aspect", [0.75, 1.0, 1.5])
def test_windows_cover_the_image_at_each_size_and_overlap(size_wh, aspect):
    """What the network sees of a box: its crop, which is the box extended by the padding."""
    found = windows(size_wh, aspect, 1.25)
    np.testing.assert_array_equal(found[0], [0, 0, *size_wh])
    regions = []
    for box in found[1:]:
        center, scale = box_to_center_scale(box, (round(aspect * 400), 400), 1.25)
        regions.append(np.concatenate([center - scale / 2, center + scale / 2]))
        assert scale[0] / scale[1] == pytest.approx(aspect)
        assert (regions[-1] > -1e-6).all() and (regions[-1][2:] < np.array(size_wh) + 1e-6).all()
    heights = np.array([region[3] - region[1] for region in regions])
    assert len(windows(size_wh, aspect, 1.25, WINDOW_SHARES[:1])) == 1 + np.isclose(heights, heights.max()).sum()
    for height in heights.max() * np.array([1, 0.65, 0.42]):
        covered = np.zeros((size_wh[1], size_wh[0]), int)
        rows = np.isclose(heights, height)
        for x1, y1, x2, y2 in np.rint(np.array(regions)[rows]).astype(int):
            covered[y1:y2, x1:x2] += 1
        assert covered.min() >= 1 and (covered.max() >= 2) == (rows.sum() > 1)


def test_whoever_the_network_is_surer_of_takes_the_place_of_a_doubtful_one():
    """A ghost that never disappears: somebody real who comes into the picture is seen all the same."""
    world = World([500, 80, 620, 340])
    real = world.people.pop()
    look, ghost = world.look, np.array([30.0, 40, 90, 160])

    def haunted(box):
        points, score = look(box)
        inside = (box[:2] < (60, 100)).all() and (box[2:] > (60, 100)).all()  # the ghost's middle
        return (ghost[:2] + SHAPE * (ghost[2:] - ghost[:2]), 0.3) if score < 0.5 and inside else (points, score)

    world.look = haunted
    follower = one(world)
    for frame in range(10):
        result = follower.see(IMAGE, frame / 30)
    assert len(result) == 1 and result.keypoints_xy[0, :, 0].max() < 100 and follower.box_xyxy[0] < 100
    world.people.append(real)
    for frame in range(10, 10 + len(WINDOWS)):
        result = follower.see(IMAGE, frame / 30)
    np.testing.assert_allclose(result.keypoints_xy[0], look(real)[0], atol=1e-3)
    world.looks.clear()
    follower.see(IMAGE, 3.0)
    assert [len(boxes) for boxes in world.looks] == [1]  # sure again: one look


def test_a_score_below_the_network_s_own_limit_is_nobody():
    """0.9 where somebody is, 0.05 and more elsewhere; somebody who is followed may be a little below the limit."""
    world = World([100, 50, 220, 350])
    look = world.look
    for limit, certainty, expected in ((0.8, 1.0, 1), (0.95, 1.0, 0)):
        world.look = lambda box, certainty=certainty: (look(box)[0], look(box)[1] * certainty)
        assert len(OnePerson(world.estimate, PoseIdentities(SIGMAS), presence=limit).see(IMAGE, 0.0)) == expected
    follower = OnePerson(world.estimate, PoseIdentities(SIGMAS), presence=0.6)
    counts = []
    for frame, certainty in enumerate((1.0, 0.65, 0.62, 0.58, 0.65, 0.7)):  # of 0.9: 0.90 0.59 0.56 0.52 0.59 0.63
        world.look = lambda box, certainty=certainty: (look(box)[0], look(box)[1] * certainty)
        counts.append(len(follower.see(IMAGE, frame / 30)))
    assert counts == [1, 1, 1, 0, 0, 1]


def test_what_is_too_small_to_be_true_is_nobody():
    """30 px in a picture 360 px high, however sure the network is."""
    world = World([100, 100, 118, 128], least_share=0.0)
    assert all(len(one(world).see(IMAGE, frame / 30)) == 0 for frame in range(30))


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
    np.testing.assert_array_equal(merge(followed, detected), [detected[1], followed[1], detected[0]])
    np.testing.assert_array_equal(merge(followed[:0], detected), detected)
    np.testing.assert_array_equal(merge(followed, detected[:0]), followed)


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
