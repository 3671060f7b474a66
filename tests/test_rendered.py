"""People rendered on the fly: exact, repeatable, varied and shaped like people."""

import cv2
import numpy as np
import pytest

from training.data.figure import OWNERS, paint_figure, pose_figure, visible_keypoints
from training.data.painting import Canvas
from training.data.posture import BONE_LENGTHS, bone_lengths, faces_camera, is_plausible, sample_posture
from training.data.rendered import SIZE_RANGE, render_clip, render_person
from training.data.show import contact_sheet, draw_keypoints
from training.data.wardrobe import sample_appearance

SIZES = ((256, 320), (192, 256), (97, 131))


def painted(seed: int, back_probability: float = 0.2):
    """A figure on an empty canvas, wholly inside it: (figure, canvas, visible)."""
    rng = np.random.default_rng(seed)
    canvas = Canvas(np.zeros((3, 320, 320), np.float32))
    posture = sample_posture(rng, back_probability)
    unit_px = 200 / np.ptp(posture, axis=0).max()
    origin = 160 - unit_px * (posture.min(0) + posture.max(0)) / 2
    look = sample_appearance(rng)
    figure = pose_figure(posture, look, unit_px, origin)
    paint_figure(canvas, figure, look, rng)
    return figure, canvas, visible_keypoints(figure, canvas)


def test_the_same_seed_gives_the_same_picture():
    first, second = (render_person(np.random.default_rng([3, 1, 4])) for _ in range(2))
    assert np.array_equal(first.image, second.image)
    assert np.array_equal(first.keypoints_xy, second.keypoints_xy)
    assert np.array_equal(first.visible, second.visible)


def test_different_seeds_give_different_pictures():
    people = [render_person(np.random.default_rng(seed), (96, 128)) for seed in range(12)]
    means = np.array([person.image.mean((0, 1)) for person in people])
    assert len({person.image.tobytes() for person in people}) == len(people)
    assert means.std(0).min() > 15
    assert np.std([person.area for person in people]) > 300


@pytest.mark.parametrize("size_wh", SIZES)
def test_shapes_ranges_and_visibility(size_wh):
    for seed in range(25):
        person = render_person(np.random.default_rng([seed, 7]), size_wh)
        width, height = size_wh
        assert person.image.shape == (height, width, 3) and person.image.dtype == np.uint8
        assert person.mask.shape == (height, width) and person.area == person.mask.sum() > 0
        assert person.keypoints_xy.shape == (17, 2) and person.keypoints_xy.dtype == np.float64
        inside = ((person.keypoints_xy >= 0) & (person.keypoints_xy < size_wh)).all(1)
        assert np.array_equal(person.visible > 0, inside) and set(person.visible) <= {0, 1, 2}
        left, top, right, bottom = person.box_xyxy
        assert 0 <= left < right <= width and 0 <= top < bottom <= height
        assert person.head_size > 0


def test_body_points_lie_on_the_silhouette():
    on_body = []
    for seed in range(60):
        person = render_person(np.random.default_rng([seed, 8]), (128, 160))
        body = np.flatnonzero(person.visible[5:]) + 5
        x, y = person.keypoints_xy[body].astype(int).T
        on_body += person.mask[y, x].tolist()
    assert np.mean(on_body) > 0.995


def test_a_seen_point_lies_on_its_own_body_part():
    for seed in range(20):
        figure, canvas, visible = painted(seed)
        for index in np.flatnonzero(visible == 2):
            x, y = figure.keypoints_xy[index].astype(int)
            assert canvas.parts[y, x] in OWNERS[index]


def test_most_points_of_a_lonely_person_are_seen_and_faces_turned_away_are_not():
    front = [painted(seed, back_probability=0.0) for seed in range(40)]
    back = [painted(seed, back_probability=1.0) for seed in range(40)]
    assert np.mean([visible == 2 for _, _, visible in front]) > 0.75
    assert np.mean([visible[0] == 2 for _, _, visible in back]) < 0.3


def test_left_is_on_the_right_of_who_faces_the_camera():
    rng = np.random.default_rng(5)
    for _ in range(200):
        posture = sample_posture(rng, back_probability=0.0)
        upright = posture[11:13, 1].mean() - posture[5:7, 1].mean() > 0.4
        wide = abs(posture[5, 0] - posture[6, 0]) > 0.2
        if upright and wide:
            assert posture[5, 0] > posture[6, 0]


def test_the_camera_sees_backs_as_often_as_asked():
    rng = np.random.default_rng(6)
    share = np.mean([faces_camera(sample_posture(rng, back_probability=0.3)) for _ in range(600)])
    assert 0.62 < share < 0.78


def test_sampled_postures_are_human_and_varied():
    rng = np.random.default_rng(7)
    postures = np.array([sample_posture(rng) for _ in range(500)])
    assert is_plausible(postures).mean() > 0.99
    assert np.median(bone_lengths(postures) / BONE_LENGTHS, axis=0).min() > 0.5
    heights = np.ptp(postures[..., 1], axis=1)
    assert (heights > 1.3).mean() > 0.3 and (heights < 1.1).mean() > 0.1  # standing, and sitting or bent


def test_a_fitted_head_reproduces_its_points():
    for seed in range(20):
        figure, _, _ = painted(seed)
        assert np.allclose(figure.head.rotation @ figure.head.rotation.T, np.eye(3), atol=1e-9)
        assert np.linalg.det(figure.head.rotation) == pytest.approx(1.0)
        assert np.array_equal(figure.keypoints_xy[:5], figure.head.keypoints_xy())


def test_a_clip_moves_smoothly_across_the_picture():
    frames = list(render_clip(np.random.default_rng(1), 40, (320, 240)))
    points = np.array([keypoints_xy for _, keypoints_xy in frames])
    assert len(frames) == 40 and frames[0][0].shape == (240, 320, 3) and frames[0][0].dtype == np.uint8
    assert np.abs(np.diff(points, axis=0)).max() < 12  # px
    assert abs(points[-1, 11:13, 0].mean() - points[0, 11:13, 0].mean()) > 120


def test_a_clip_changes_where_its_key_points_move():
    (first, before), *_, (last, after) = render_clip(np.random.default_rng(2), 30, (320, 240))
    changed = np.abs(first.astype(int) - last).max(2) > 12
    touched = np.zeros(changed.shape, np.uint8)
    for x, y in np.concatenate([before, after]).astype(int):
        cv2.circle(touched, (x, y), 45, 1, -1)
    assert changed[touched == 1].mean() > 0.05 and changed[touched == 0].mean() < 0.01


def test_a_clip_is_repeatable():
    first, second = (list(render_clip(np.random.default_rng(3), 3, (160, 120))) for _ in range(2))
    assert all(np.array_equal(a[0], b[0]) and np.array_equal(a[1], b[1]) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("size_wh", [(0, 100), (100, -1), (63, 200), (5000, 200), (200,), (100, 100, 3)])
def test_illegal_sizes_are_named(size_wh):
    with pytest.raises(ValueError, match=f"{SIZE_RANGE[0]}..{SIZE_RANGE[1]}"):
        render_person(np.random.default_rng(0), size_wh)
    with pytest.raises(ValueError, match="legal"):
        next(render_clip(np.random.default_rng(0), 2, size_wh))


def test_a_clip_needs_frames():
    with pytest.raises(ValueError, match="1 or more"):
        next(render_clip(np.random.default_rng(0), 0))


def test_contact_sheet_lays_images_out_row_by_row():
    images = [np.full((4, 6, 3), value, np.uint8) for value in (10, 20, 30)]
    sheet = contact_sheet(images, 2)
    assert sheet.shape == (8, 12, 3)
    assert (sheet[0, 0, 0], sheet[0, 6, 0], sheet[4, 0, 0], sheet[4, 6, 0]) == (10, 20, 30, 0)
    with pytest.raises(ValueError, match="at least one"):
        contact_sheet([], 2)


def test_drawing_leaves_the_picture_alone():
    person = render_person(np.random.default_rng(9), (96, 128))
    before = person.image.copy()
    drawn = draw_keypoints(person.image, person.keypoints_xy, person.visible)
    assert np.array_equal(person.image, before) and (drawn != before).any()
