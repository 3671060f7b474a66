"""Drawing: where, in which colour, how thick, and what stays hidden."""

from __future__ import annotations

import numpy as np
import pytest

from runtime.draw import (
    COLOURS_BGR,
    LIMB_SHARE,
    MIN_LIMB_PX,
    PERSONS_BGR,
    Style,
    draw_poses,
    draw_text,
    limb_width_px,
    side_of,
)
from runtime.errors import InputError

NAMES = ("nose", "left_hip", "right_hip")
POINTS = np.array([[[100.5, 50.5], [140.5, 150.5], [60.5, 150.5]]], np.float32)
SKELETON = ((0, 1), (0, 2), (1, 2))
SURE = np.full((1, 3), 0.9, np.float32)


def drawn(points=POINTS, scores=SURE, size=(200, 200), threshold=0.3):
    image = np.full((*size, 3), 128, np.uint8)
    return draw_poses(image, points, scores, NAMES, SKELETON, threshold)


def test_key_points_have_the_colour_of_their_side():
    picture = drawn()
    for (x, y), side in zip(POINTS[0].astype(int), ("middle", "left", "right"), strict=True):
        np.testing.assert_array_equal(picture[y, x], COLOURS_BGR[side])


def test_limbs_are_drawn_between_their_ends():
    assert (drawn()[150, 100] == COLOURS_BGR["middle"]).all()  # hip to hip


def test_the_drawing_is_symmetric_about_the_key_point():
    picture = draw_poses(
        np.zeros((21, 21, 3), np.uint8), np.full((1, 1, 2), 10.5, np.float32), np.ones((1, 1)), ["nose"], []
    )
    np.testing.assert_allclose(picture.astype(int), picture[::-1], atol=16)
    np.testing.assert_allclose(picture.astype(int), picture[:, ::-1], atol=16)


def test_low_scores_fade_and_vanish():
    change = [np.abs(drawn(scores=SURE * 0 + s).astype(int) - 128).sum() for s in (0.9, 0.2, 0.1)]
    assert change[0] > change[1] > 0 and change[2] == 0


def test_one_unsure_end_hides_its_limbs_only():
    picture = drawn(scores=np.array([[0.9, 0.9, 0.0]], np.float32))
    assert (picture[100, 121] != 128).any() and (picture[150, 70] == 128).all()


@pytest.mark.parametrize("shift", [1e4, -1e9, 1e30])
def test_points_far_outside_do_no_harm(shift):
    assert drawn(points=POINTS + np.float32(shift)).shape == (200, 200, 3)


@pytest.mark.parametrize("size", [(1, 1), (5, 400), (3000, 2000)])
def test_any_picture_size_is_drawn_on(size):
    picture = drawn(size=size)
    draw_text(picture, "30 fps")
    assert picture.shape == (*size, 3)


def test_line_width_follows_the_person():
    image = np.zeros((1000, 1000, 3), np.uint8)
    assert limb_width_px(POINTS[0], image) < limb_width_px(POINTS[0] * 4, image) <= 1000 * LIMB_SHARE
    assert limb_width_px(POINTS[0, :0], image) == MIN_LIMB_PX


def styled(ids=None, **values):
    image = np.full((200, 200, 3), 128, np.uint8)
    return draw_poses(image, POINTS, SURE, NAMES, SKELETON, style=Style(**values), ids=ids)


def test_a_style_without_values_changes_nothing():
    np.testing.assert_array_equal(styled(), drawn())


def test_colours_can_be_set_by_side_and_by_key_point():
    picture = styled(colours_bgr={"left": (1, 2, 3), "right_hip": (4, 5, 6)})
    assert picture[150, 140].tolist() == [1, 2, 3] and picture[150, 60].tolist() == [4, 5, 6]
    assert picture[50, 100].tolist() == list(COLOURS_BGR["middle"])


def test_the_skeleton_can_be_replaced_by_names():
    picture = styled(skeleton=[("left_hip", "right_hip")])
    assert (picture[150, 100] == COLOURS_BGR["middle"]).all() and (picture[100, 121] == 128).all()
    assert (styled(skeleton=[])[150, 100] == 128).all()
    with pytest.raises(InputError, match="'tail', legal are nose, left_hip, right_hip"):
        styled(skeleton=[("nose", "tail")])


def test_thresholds_width_and_outline_can_be_set():
    np.testing.assert_array_equal(styled(threshold=0.95), drawn(threshold=0.95))
    change = [int((styled(width=width) != 128).sum()) for width in (1, 2, 4)]
    assert change[0] < change[1] < change[2]
    assert (styled(outline_bgr=(0, 0, 255)) != drawn()).any()


def test_people_can_have_their_own_colours_boxes_and_ids():
    one, same, other = (styled(ids=np.array([number]), by_person=True) for number in (1, 1 + len(PERSONS_BGR), 2))
    np.testing.assert_array_equal(one, same)
    assert (one != other).any() and tuple(one[150, 100]) == PERSONS_BGR[0]
    boxed, numbered = styled(show_boxes=True), styled(ids=np.array([12]), show_boxes=True)
    assert (boxed != drawn()).any() and (numbered != boxed).any()


@pytest.mark.parametrize(
    ("name", "side"), [("left_hip", "left"), ("right_eye", "right"), ("nose", "middle"), ("neck", "middle")]
)
def test_sides_come_from_names(name, side):
    assert side_of(name) == side


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"colours_bgr": {"left": "red"}}, "Style.colours_bgr['left'] is 'red', legal are three integers 0..255"),
        ({"colours_bgr": {"lefft": (1, 2, 3)}}, "Style.colours_bgr has 'lefft', legal are left, right, middle, nose"),
        ({"outline_bgr": (0, 0, 256)}, "Style.outline_bgr is (0, 0, 256), legal are"),
        ({"threshold": "x"}, "Style.threshold is 'x', legal is 0..1"),
        ({"threshold": float("nan")}, "Style.threshold is nan, legal is 0..1"),
        ({"width": -1}, "Style.width is -1, legal is 0..100"),
        ({"colours_bgr": None}, "Style.colours_bgr is None, legal is a dict from left, right, middle"),
        ({"skeleton": 5}, "Style.skeleton is 5, legal are None and pairs of key-point names"),
        ({"skeleton": [("nose",)]}, "Style.skeleton is [('nose',)], legal are None and pairs"),
        ({"skeleton": ["ab"]}, "Style.skeleton is ['ab'], legal are None and pairs"),
        ({"skeleton": [("nose", 1)]}, "Style.skeleton is [('nose', 1)], legal are None and pairs"),
    ],
)
def test_a_style_that_cannot_be_drawn_with_is_named(values, said):
    with pytest.raises(InputError) as caught:
        styled(**values)
    assert said in str(caught.value)


def test_levels_of_colours_may_be_numpy_s():
    plain = styled(colours_bgr={"left": (0, 200, 255)}, outline_bgr=(1, 2, 3), show_boxes=True)
    levels = {"colours_bgr": {"left": tuple(np.array([0, 200, 255]))}, "outline_bgr": tuple(np.uint8([1, 2, 3]))}
    np.testing.assert_array_equal(styled(**levels, show_boxes=True), plain)


@pytest.mark.parametrize(
    "given",
    [
        np.full((200, 200), 128, np.uint8),
        np.full((200, 200, 1), 128, np.uint8),
        np.dstack([np.full((200, 200, 3), 128, np.uint8), np.full((200, 200), 7, np.uint8)]),
        np.full((200, 200, 3), 128 << 8, np.uint16),
        np.full((200, 200, 4), 128 << 8, np.uint16),
    ],
    ids=["gray", "one channel", "BGRA", "16 bits", "BGRA of 16 bits"],
)
def test_every_picture_that_a_call_takes_is_drawn_on_alike(given):
    before = given.copy()
    np.testing.assert_array_equal(draw_poses(given, POINTS, SURE, NAMES, SKELETON), drawn())
    np.testing.assert_array_equal(given, before)


@pytest.mark.parametrize(
    ("image", "values", "said"),
    [
        ("x.jpg", {}, "image_bgr is a str, legal are uint8 or uint16 arrays"),
        (None, {}, "image_bgr is None"),
        (np.zeros((20, 20, 3)), {}, "image_bgr has dtype float64, legal are"),
        (np.zeros((20, 20, 3), np.uint8), {"threshold": "x"}, "threshold is 'x', legal is 0..1"),
        (np.zeros((20, 20, 3), np.uint8), {"threshold": 1.5}, "threshold is 1.5, legal is 0..1"),
        (np.zeros((20, 20, 3), np.uint8), {"style": "bold"}, "style is 'bold', legal is a runtime.Style"),
    ],
)
def test_what_cannot_be_drawn_is_named(image, values, said):
    with pytest.raises(InputError) as caught:
        draw_poses(image, POINTS, SURE, NAMES, SKELETON, **values)
    assert str(caught.value).startswith(said)
