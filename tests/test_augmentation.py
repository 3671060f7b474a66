"""Geometric augmentation: ranges, half bodies, and that key points and pixels move together, point by point."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime import geometry
from runtime.skeleton import COCO_17, LSP_14, flip_order
from training.data import crops
from training.data.augmentation import AUGMENTATIONS, PLAIN, Augmentation, each_alone, parse_augmentation
from training.train import main

SIZE_WH = (192, 256)
SIGMA = 5.0  # px of the picture, of the drawn markers
BLANK = np.zeros((8, 8, 3), np.uint8)
PAPER = AUGMENTATIONS["paper"]
GEOMETRIC = {
    "plain": PLAIN,
    "rotation": replace(PLAIN, rotation_deg=40),
    "scale": replace(PLAIN, scale=(0.5, 1.5)),
    "shift": replace(PLAIN, shift=0.2),
    "flip": replace(PLAIN, flip=1),
    "half body": replace(PLAIN, half_body=1),
    "all": replace(PAPER, half_body=1),
}


def standing(center=(150.0, 210.0), height=320.0, names=COCO_17):
    """Box (4,) and key points (K, 2) px of somebody upright, all points apart from each other."""
    rng = np.random.default_rng(5)
    order = [i / (len(names) - 1) - 0.5 for i in range(len(names))]
    points = np.column_stack([rng.uniform(-0.2, 0.2, len(names)), order]) * height + center
    box = np.array(
        [center[0] - 0.25 * height, center[1] - height / 2, center[0] + 0.25 * height, center[1] + height / 2]
    )
    return box, points


def draw(augmentation, seed, box, points, names=COCO_17, visible=None):
    """A random crop's matrix and flip."""
    visible = np.full(len(names), 2) if visible is None else visible
    rng = np.random.default_rng(seed)
    return crops.augmented_matrix(box, points, visible, names, SIZE_WH, 1.25, augmentation, rng)


def cut(picture, points, matrix, flip, names=COCO_17):
    """The crop of a person whose points are all visible."""
    seen = np.full(len(names), 2)
    return crops.cut(picture, points, seen, seen > 0, 1.0, names, SIZE_WH, matrix, flip)


def markers(size_wh, points_xy):
    """A black picture (H, W, 3) with a soft dot around each of three points, one per channel, B, G, R."""
    x, y = np.arange(size_wh[0]) + 0.5, np.arange(size_wh[1])[:, None] + 0.5
    planes = [255 * np.exp(-((x - px) ** 2 + (y - py) ** 2) / (2 * SIGMA**2)) for px, py in points_xy]
    return np.rint(np.stack(planes, -1)).astype(np.uint8)


def centroid(plane):
    """Continuous (x, y) of the light in a plane (H, W)."""
    light = plane.astype(float)
    x, y = np.arange(plane.shape[1]) + 0.5, np.arange(plane.shape[0]) + 0.5
    return np.array([light.sum(0) @ x, light.sum(1) @ y]) / light.sum()


def test_the_paper_s_recipe():
    assert Augmentation() == PAPER
    assert (PAPER.rotation_deg, PAPER.scale, PAPER.half_body, PAPER.half_body_min_keypoints) == (40, (0.5, 1.5), 0.3, 8)
    assert not PAPER.colours and PAPER.erase == PAPER.paste == 0


def test_rotation_scale_and_flip_are_uniform_over_their_ranges():
    box, points = standing()
    drawn = [draw(replace(PAPER, half_body=0), seed, box, points) for seed in range(2000)]
    mirrored = np.array([flip for _, flip in drawn])
    linear = np.array([matrix[:, :2] for matrix, _ in drawn])
    linear[mirrored, 0] *= -1
    turned = np.rad2deg(np.arctan2(linear[:, 0, 1], linear[:, 0, 0]))
    plain = np.linalg.det(crops.person_matrix(box, SIZE_WH, 1.25)[:, :2])
    region = np.sqrt(plain / np.linalg.det(linear))
    for values, low, high in ((turned, -40, 40), (region, 0.5, 1.5)):
        counts = np.histogram(values, bins=8, range=(low, high))[0]
        assert counts.sum() == 2000  # none outside
        assert counts.min() > 250 - 4 * 15 and counts.max() < 250 + 4 * 15, counts  # 15 = sqrt(2000 / 8 * 7 / 8)
    assert abs(mirrored.mean() - 0.5) < 4 * 0.0112


def test_shifts_are_uniform_over_shares_of_the_region():
    box, points = standing()
    plain = geometry.transform_points(box[None, :2], crops.person_matrix(box, SIZE_WH, 1.25))
    drawn = [draw(GEOMETRIC["shift"], seed, box, points)[0] for seed in range(500)]
    moved = np.array([geometry.transform_points(box[None, :2], matrix) - plain for matrix in drawn])[:, 0] / SIZE_WH
    assert np.abs(moved).max() < 0.2 and (np.abs(moved).max(0) > 0.19).all()
    assert (np.histogram(moved[:, 0], bins=4, range=(-0.2, 0.2))[0] > 125 - 4 * 10).all()


def test_an_empty_place_shows_no_labelled_point():
    _, points = standing()
    other, shown = np.array([[0.0, 0, 40, 60]]), []
    for seed in range(50):
        matrix = crops.empty_matrix((300, 420), points[5:], other, SIZE_WH, np.random.default_rng(seed))
        if matrix is None:
            continue
        inside = geometry.transform_points(points, matrix) / SIZE_WH
        corners = geometry.transform_points(np.array([[0.0, 0], SIZE_WH]), geometry.invert_matrix(matrix))
        assert not ((inside >= 0) & (inside <= 1)).all(1)[5:].any()
        assert (corners > -1e-6).all() and (corners < (300 + 1e-6, 420 + 1e-6)).all()
        assert (corners[0] >= other[0, 2:]).any()
        shown.append(corners[1, 1] - corners[0, 1])
    assert len(shown) > 25 and np.ptp(shown) > 40  # most seeds find one, of many sizes
    everywhere = np.stack(np.meshgrid(np.arange(5, 300, 10), np.arange(5, 420, 10)), -1).reshape(-1, 2).astype(float)
    args = (300, 420), everywhere, np.zeros((0, 4)), SIZE_WH
    assert crops.empty_matrix(*args, np.random.default_rng(0)) is None


def test_half_bodies_are_as_frequent_as_told_and_upper_as_often_as_lower():
    box, points = standing()
    only = replace(PLAIN, half_body=0.3)
    plain = crops.person_matrix(box, SIZE_WH, 1.25)
    drawn = [draw(only, seed, box, points)[0] for seed in range(2000)]
    halves = [matrix for matrix in drawn if not np.allclose(matrix, plain)]
    assert abs(len(halves) / 2000 - 0.3) < 4 * 0.0103
    middle = [geometry.transform_points(np.array([96.0, 128]), geometry.invert_matrix(matrix)) for matrix in halves]
    expected = [(points[half].min(0) + points[half].max(0)) / 2 for half in (slice(0, 11), slice(11, 17))]
    upper = [np.allclose(m, expected[0]) for m in middle]
    assert all(u or np.allclose(m, expected[1]) for u, m in zip(upper, middle, strict=True))
    assert abs(np.mean(upper) - 0.5) < 4 * 0.5 / np.sqrt(len(upper))


@pytest.mark.parametrize(("labelled", "cut"), [(7, False), (8, True)])
def test_half_bodies_need_eight_labelled_points(labelled, cut):
    box, points = standing(names=LSP_14)
    visible = np.array([2] * 4 + [0] * (14 - labelled) + [1] * (labelled - 4))
    drawn = [draw(GEOMETRIC["half body"], seed, box, points, LSP_14, visible)[0] for seed in range(20)]
    plain = crops.person_matrix(box, SIZE_WH, 1.25)
    assert any(not np.allclose(matrix, plain) for matrix in drawn) == cut


@pytest.mark.parametrize("augmentation", GEOMETRIC.values(), ids=GEOMETRIC)
@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32), center=st.tuples(*[st.floats(-500, 4000)] * 2), height=st.floats(20, 3000),
    names=st.sampled_from([COCO_17, LSP_14]),
)  # fmt: skip
def test_key_points_come_back(augmentation, seed, center, height, names):
    """To the picture within 1e-4 px through the inverse matrix; in the crop within 1e-4 px of it, kept as float32."""
    box, points = standing(center, height, names)
    matrix, flip = draw(augmentation, seed, box, points, names)
    back = geometry.transform_points(geometry.transform_points(points, matrix), geometry.invert_matrix(matrix))
    assert np.abs(back - points).max() < 1e-4
    crop = cut(BLANK, points, matrix, flip, names)
    unswapped = crop.keypoints[flip_order(names)] if flip else crop.keypoints
    by_hand = np.array([matrix @ (x, y, 1) for x, y in points])
    assert np.abs(unswapped.astype(float) * SIZE_WH - by_hand).max() < 1e-4


def test_mirroring_is_the_mirrored_crop_with_left_and_right_swapped():
    box, points = standing()
    plain = geometry.transform_points(points, draw(PLAIN, 0, box, points)[0])
    matrix, flip = draw(GEOMETRIC["flip"], 0, box, points)
    assert flip
    crop = crops.cut(
        np.zeros((8, 8, 3), np.uint8), points, np.full(17, 2), np.ones(17, bool), 1, COCO_17, SIZE_WH, matrix, flip
    )
    left, right = COCO_17.index("left_knee"), COCO_17.index("right_knee")
    np.testing.assert_allclose(crop.keypoints[left] * SIZE_WH, (192 - plain[right, 0], plain[right, 1]), atol=1e-4)


@pytest.mark.parametrize("augmentation", GEOMETRIC.values(), ids=GEOMETRIC)
def test_markers_are_where_the_key_points_say(augmentation):
    """Dots drawn at three key points are found in the crop's pixels within 0.05 px of the crop's key points."""
    box, points = standing()
    drawn = ("left_shoulder", "right_wrist", "left_ankle")
    places = [COCO_17.index(name) for name in drawn]
    picture, checked = markers((300, 420), points[places]), 0
    for seed in range(25):
        matrix, flip = draw(augmentation, seed, box, points)
        crop = cut(picture, points, matrix, flip)
        radius = 4.5 * SIGMA * np.sqrt(abs(np.linalg.det(matrix[:, :2])))
        order = flip_order(COCO_17) if flip else range(17)
        for channel, place in enumerate(places):
            expected = crop.keypoints[order[place]] * SIZE_WH
            if (expected > radius).all() and (expected < SIZE_WH - radius).all():
                found = centroid(crop.image[:, :, 2 - channel])  # the picture is BGR, the crop RGB
                assert np.abs(found - expected).max() < 0.05, (seed, drawn[channel], found, expected)
                checked += 1
    assert checked >= 15


def test_single_knobs():
    assert parse_augmentation("paper") == PAPER
    chosen = parse_augmentation("strong,gray=0,scale=0.7..1.3,half_body_min_keypoints=10")
    assert chosen == replace(AUGMENTATIONS["strong"], gray=0.0, scale=(0.7, 1.3), half_body_min_keypoints=10)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("weak", "unknown augmentation 'weak'; legal are paper, strong"),
        ("strong,tilt=3", "'tilt=3' is not KNOB=VALUE with a KNOB of rotation_deg, scale"),
        ("paper,flip", "'flip' is not KNOB=VALUE"),
        ("paper,flip=often", "'often' is not a number"),
        ("paper,flip=2", "flip is 2.0; legal: 0..1"),
        ("paper,hue_deg=nan", "hue_deg is nan; legal: 0..180"),
        ("paper,scale=1", "'1' is not LOW..HIGH"),
        ("paper,scale=2..1", "scale is 2.0..1.0; legal"),
    ],
)
def test_wrong_augmentations_are_answered_with_what_is_legal(text, message):
    with pytest.raises(ValueError, match=message):
        parse_augmentation(text)


def test_help_names_every_knob(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    text = capsys.readouterr().out
    assert not [field.name for field in fields(Augmentation) if field.name not in text]


def test_each_alone_leaves_out_what_is_off():
    assert list(each_alone(PAPER)) == ["rotation +-40", "scale 0.5..1.5", "flip", "half body"]
    strong = each_alone(AUGMENTATIONS["strong"])
    assert list(strong)[4:] == ["colours", "gray", "paste", "erase"]
    assert strong["erase"] == replace(PLAIN, erase=1) and strong["flip"] == replace(PLAIN, flip=1)
    assert each_alone(PLAIN) == {}
