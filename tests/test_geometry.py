"""The crop's matrix against matrices written by hand, the warp against a double loop."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.geometry import box_to_center_scale, invert_matrix, transform_points, warp_image, warp_matrix

SIZE_WH = (192, 256)


def test_box_is_extended_to_the_crop_aspect_then_padded():
    center, scale = box_to_center_scale(np.array([10.0, 20, 40, 140]), SIZE_WH, padding=1.25)  # 30 x 120
    np.testing.assert_allclose(center, [25, 80])
    np.testing.assert_allclose(scale, [90 * 1.25, 120 * 1.25])  # 120 * 3 / 4 = 90 wide
    center, scale = box_to_center_scale(np.array([0.0, 0, 150, 50]), SIZE_WH, padding=1.0)  # 150 x 50
    np.testing.assert_allclose(scale, [150, 200])


def test_matrix_without_rotation_is_the_handwritten_one():
    matrix = warp_matrix(np.array([100.0, 50]), np.array([96.0, 128]), SIZE_WH)
    np.testing.assert_allclose(matrix, [[2, 0, 96 - 200], [0, 2, 128 - 100]])


def test_quarter_turn_is_counter_clockwise_on_screen():
    matrix = warp_matrix(np.array([100.0, 50]), np.array([96.0, 128]), SIZE_WH, rotation_deg=90)
    right_of_center = transform_points(np.array([110.0, 50]), matrix)
    np.testing.assert_allclose(right_of_center, [96, 128 - 20], atol=1e-9)  # moves up


def test_flip_mirrors_around_the_middle_of_the_crop():
    center, scale = np.array([100.0, 50]), np.array([96.0, 128])
    points = np.array([[80.0, 20], [111.0, 90]])
    plain = transform_points(points, warp_matrix(center, scale, SIZE_WH, 20))
    mirrored = transform_points(points, warp_matrix(center, scale, SIZE_WH, 20, flip=True))
    np.testing.assert_allclose(mirrored, np.stack([192 - plain[:, 0], plain[:, 1]], 1))


@settings(max_examples=200, deadline=None)
@given(
    center=st.tuples(*[st.floats(-2000, 4000)] * 2),
    width=st.floats(4, 4000),
    rotation_deg=st.floats(-180, 180),
    flip=st.booleans(),
    point=st.tuples(*[st.floats(-2000, 6000)] * 2),
)
def test_round_trip_within_a_ten_thousandth_of_a_pixel(center, width, rotation_deg, flip, point):
    scale = np.array([width, width * 4 / 3])
    matrix = warp_matrix(np.array(center), scale, SIZE_WH, rotation_deg, flip)
    back = transform_points(transform_points(np.array(point), matrix), invert_matrix(matrix))
    assert np.abs(back - point).max() < 1e-4


def slow_warp(image: np.ndarray, matrix: np.ndarray, size_wh: tuple[int, int]) -> np.ndarray:
    """Bilinear, pixel by pixel, in continuous coordinates, zeros outside."""
    crop = np.zeros((size_wh[1], size_wh[0], 3))
    inverse = invert_matrix(matrix)
    for row in range(size_wh[1]):
        for column in range(size_wh[0]):
            x, y = transform_points(np.array([column + 0.5, row + 0.5]), inverse) - 0.5
            left, top = int(np.floor(x)), int(np.floor(y))
            for j, i in ((top, left), (top, left + 1), (top + 1, left), (top + 1, left + 1)):
                if 0 <= j < image.shape[0] and 0 <= i < image.shape[1]:
                    crop[row, column] += image[j, i] * (1 - abs(x - i)) * (1 - abs(y - j))
    return crop


@pytest.mark.parametrize(("rotation_deg", "flip"), [(0, False), (25, False), (-70, True)])
def test_warp_image_equals_the_double_loop(rotation_deg, flip):
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3)).astype(np.uint8)
    matrix = warp_matrix(np.array([16.3, 9.1]), np.array([18.0, 24]), (24, 32), rotation_deg, flip)
    difference = np.abs(warp_image(image, matrix, (24, 32)) - slow_warp(image, matrix, (24, 32)))
    # OpenCV 4 rounds positions to 1 / 32 px: up to 255 / 32 * 2 on noise
    assert difference.max() <= 17 and difference.mean() < 2, f"largest {difference.max():.1f}"


def test_whole_image_at_its_own_size_is_the_image():
    image = np.random.default_rng(1).integers(0, 256, (256, 192, 3)).astype(np.uint8)
    matrix = warp_matrix(np.array([96.0, 128]), np.array([192.0, 256]), SIZE_WH)
    np.testing.assert_array_equal(warp_image(image, matrix, SIZE_WH), image)


def test_pixel_centres_stay_centres_when_the_image_doubles():
    image = np.zeros((8, 6, 3), dtype=np.uint8)
    image[2, 1] = 200  # continuous centre (1.5, 2.5) -> (3, 5) in the crop: between columns 2 and 3, rows 4 and 5
    crop = warp_image(image, warp_matrix(np.array([3.0, 4]), np.array([6.0, 8]), (12, 16)), (12, 16))[:, :, 0]
    weights = crop / crop.sum()
    centroid = (weights.sum(0) @ (np.arange(12) + 0.5), weights.sum(1) @ (np.arange(16) + 0.5))
    np.testing.assert_allclose(centroid, (3, 5), atol=0.02)
