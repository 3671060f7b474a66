"""Following one person: found, lost, searched and found again."""

from __future__ import annotations

import numpy as np
import pytest
from following_world import IMAGE, SHAPE, SIGMAS, SIZE_WH, World

import runtime
from runtime.following import (
    AT_ONCE,
    MOST_WINDOWS,
    RARELY,
    WHILE_IN_DOUBT,
    WINDOW_SHARES,
    OnePerson,
    windows,
)
from runtime.geometry import box_to_center_scale, refuse_bad_boxes
from runtime.identities import MEMORY_S, PoseIdentities

WINDOWS = windows(SIZE_WH, 0.75, 1.25)
N_LARGE = len(windows(SIZE_WH, 0.75, 1.25, WINDOW_SHARES[:1]))


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


@pytest.mark.parametrize("fps", [0.1, 0.5, 1])
def test_films_with_rare_frames_keep_the_id(fps):
    world = World([100, 50, 220, 350])
    follower = one(world)
    here = world.people[:]
    for frame in range(6):
        world.people = [] if frame == 4 else here
        assert follower.see(IMAGE, frame / fps).ids.tolist() == [1] * len(world.people)
    assert follower.see(IMAGE, 5 / fps + 3 / fps + 0.1).ids.tolist() == [2]


def test_a_gap_in_a_fast_video_is_not_taken_for_its_pace():
    world = World([100, 50, 220, 350])
    follower = one(world)
    times = (0.0, 0.1, 0.2, 3.0, 3.1, 3.1 + MEMORY_S + 0.1)
    assert [follower.see(IMAGE, time_s).ids.tolist() for time_s in times] == [[1]] * 3 + [[2]] * 2 + [[3]]


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
    for frame in range(10, 10 + RARELY * (1 + len(WINDOWS) // WHILE_IN_DOUBT)):
        result = follower.see(IMAGE, frame / 30)
    np.testing.assert_allclose(result.keypoints_xy[0], look(real)[0], atol=1e-3)
    world.looks.clear()
    follower.see(IMAGE, 3.0)
    assert [len(boxes) for boxes in world.looks] == [1]  # sure again: one look


def test_a_closer_look_that_disagrees_costs_its_time():
    world = World([100, 50, 220, 350])
    look, ghost = world.look, np.array([300.0, 40, 420, 300])
    follower = OnePerson(world.estimate, PoseIdentities(SIGMAS), presence=0.6)
    world.look = lambda box: (look(box)[0], look(box)[1] * 0.7)
    follower.see(IMAGE, 0.0)
    doubtful = world.look

    def with_a_mirage(box):
        """A window shows somebody, who is gone when one looks closer."""
        wide = len(world.looks[-1]) > 1 and not np.allclose(box, world.looks[-1][0])
        return (ghost[:2] + SHAPE * (ghost[2:] - ghost[:2]), 0.95) if wide else doubtful(box)

    follower.see(IMAGE, 0.1)
    world.look = with_a_mirage
    result = follower.see(IMAGE, 0.2)
    np.testing.assert_allclose(result.keypoints_xy[0], look(world.people[0])[0], atol=1e-3)
    assert result.timing_ms["inference"] == 4.0


def test_who_stays_in_doubt_costs_less_once_all_windows_were_looked_into():
    world = World([100, 50, 220, 350])
    look = world.look
    world.look = lambda box: (look(box)[0], look(box)[1] * 0.7)  # 0.63, and in doubt under 0.7
    follower = OnePerson(world.estimate, PoseIdentities(SIGMAS), presence=0.6)
    follower.see(IMAGE, 0.0)
    for turn in range(2):
        world.looks.clear()
        follower.see(IMAGE, 0.1)  # of whoever was just found nobody is in doubt yet
        follower.see(IMAGE, 0.1)
        looked_into = {tuple(box) for boxes in world.looks for box in boxes[1:]}
        world.looks.clear()
        full = -(-len(WINDOWS) // WHILE_IN_DOUBT) - 1  # and the frame before
        for frame in range(full + 30):
            assert len(follower.see(IMAGE, 0.2 + frame / 30)) == 1
        counts = [len(boxes) - 1 for boxes in world.looks]
        assert counts[:full] == [WHILE_IN_DOUBT] * full and sum(counts[full:]) == WHILE_IN_DOUBT * 30 / RARELY
        looked_into |= {tuple(box) for boxes in world.looks[:full] for box in boxes[1:]}
        assert looked_into == {tuple(box) for box in WINDOWS}
        if not turn:  # lost and found again: the same from the beginning
            person = world.people.pop()
            assert len(follower.see(IMAGE, 9.0)) == 0
            world.people.append(person)
            while not len(follower.see(IMAGE, 9.1)):
                pass


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


@pytest.mark.parametrize("person", [[30, 20, 150, 340], [420, 30, 480, 190], [560, 250, 600, 350]])
def test_a_person_somewhere_in_a_picture_is_found_at_once(person):
    """Of three sizes; a follower would look for the smallest for several frames."""
    world = World(person, least_share=0.05)
    found = one(world).find(IMAGE)
    assert len(found) == 1 and found.ids is None
    np.testing.assert_allclose(found.keypoints_xy[0], world.look(np.array(person, float))[0], atol=1e-3)
    assert sum(map(len, world.looks[: -(-len(WINDOWS) // AT_ONCE)])) == len(WINDOWS)


def test_where_the_surest_place_does_not_stay_the_next_ones_are_looked_at(monkeypatch):
    world = World([420, 30, 480, 190])
    look = world.look

    def with_a_mirage(box):
        """The whole picture looks like somebody, until one looks closer."""
        if (box == [0, 0, *SIZE_WH]).all():
            return np.array([[100.0, 100], [90, 200], [140, 250]]), 0.95
        return look(box)

    monkeypatch.setattr(world, "look", with_a_mirage)
    found = one(world).find(IMAGE)
    np.testing.assert_allclose(found.keypoints_xy[0], look(np.array([420.0, 30, 480, 190]))[0], atol=1e-3)


@pytest.mark.parametrize("size_wh", [(1, 1), (2, 2), (1, 40), (16, 1), (10000, 400), (60000, 100)])
def test_odd_pictures_have_few_windows_all_of_them_legal(size_wh):
    boxes = windows(size_wh, 0.75, 1.25)
    assert 1 <= len(boxes) <= 1 + 3 * MOST_WINDOWS
    refuse_bad_boxes(np.stack(boxes), size_wh)


def test_a_picture_without_anybody_has_nobody():
    found = one(World()).find(IMAGE)
    assert len(found) == 0 and found.ids is None and found.image_size_wh == SIZE_WH
