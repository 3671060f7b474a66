"""Crops: what a plain warp gives, in buffers that never leak into results."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from conftest import dots_image

import runtime
from runtime import cropping
from runtime.cropping import Cropper, pixels_of
from runtime.geometry import box_to_center_scale, crop_region, warp_image, warp_matrix

RNG = np.random.default_rng(0)
IMAGE = RNG.integers(0, 256, (180, 240, 3)).astype(np.uint8)
BOXES = np.array(
    [[50.3, 40.1, 110.7, 120.9], [-30, -40, 60, 70], [200, 150, 300, 230.5], [0, 0, 240, 180], [100, 90, 102, 93.5]]
)


def plain(box, size_wh, padding):
    """(3, H, W) RGB by one warp of the whole image."""
    matrix = warp_matrix(*box_to_center_scale(box, size_wh, padding), size_wh)
    return warp_image(IMAGE, matrix, size_wh)[:, :, ::-1].transpose(2, 0, 1)


@pytest.mark.parametrize("four_channels_below", [0, 1, 16, 10**9], ids=["never", "rarely", "often", "always"])
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_crops_are_those_of_a_plain_warp(monkeypatch, dtype, four_channels_below):
    monkeypatch.setattr(cropping, "FOUR_CHANNELS_BELOW", four_channels_below)
    cropper = Cropper((48, 64), dtype, 1.25)
    crops, _ = cropper.cut(IMAGE, BOXES, 8)
    assert crops.shape == (8, 3, 64, 48) and crops.dtype == dtype and crops.flags.c_contiguous
    for crop, box in zip(crops, BOXES, strict=False):
        difference = np.abs(crop.astype(int) - plain(box, (48, 64), 1.25))
        # OpenCV 4 rounds positions to 1 / 32 px; 5 computes them in floats
        assert difference.max() <= 17 and difference.mean() < 0.1, f"largest {difference.max()}, box {box}"
    assert not crops[len(BOXES) :].any()


def test_rows_behind_the_crops_are_zeros_whatever_was_there_before():
    cropper = Cropper((48, 64), "uint8", 1.25)
    assert cropper.cut(IMAGE, BOXES, 5)[0].any(axis=(1, 2, 3)).all()
    again = cropper.cut(IMAGE, BOXES[:2], 4)[0]
    assert again.shape[0] == 4 and again[:2].any() and not again[2:].any()


def test_regions_hold_all_that_the_crops_show_and_lie_in_the_image():
    for box in BOXES:
        region = crop_region(box.tolist(), (48, 64), 1.25)
        center, scale = box_to_center_scale(box, (48, 64), 1.25)
        np.testing.assert_allclose(region, [*(center - scale / 2), *(center + scale / 2)], atol=1e-9)
        left, top, right, bottom = pixels_of(region, IMAGE)
        assert 0 <= left < right <= 240 and 0 <= top < bottom <= 180
        assert left <= max(region[0], 0) and top <= max(region[1], 0)
        assert right >= min(region[2], 240) and bottom >= min(region[3], 180)


def test_key_points_come_back_to_where_the_crop_took_them():
    cropper = Cropper((48, 64), "uint8", 1.25)
    _, regions = cropper.cut(IMAGE, BOXES, 5)
    keypoints = RNG.uniform(0, 1, (5, 7, 2)).astype(np.float32)
    found = cropper.to_image(keypoints, regions)
    for row, box in enumerate(BOXES):
        center, scale = box_to_center_scale(box, (48, 64), 1.25)
        np.testing.assert_allclose(found[row], center + (keypoints[row] - 0.5) * scale, atol=1e-3)
    assert cropper.to_image(keypoints[:0], regions[:0]).shape == (0, 7, 2)


def test_results_keep_their_numbers_when_the_buffers_are_used_again(centroid_artifacts):
    first, second = (dots_image((320, 240), np.array([[150.0, 90], [120, 130], [175, 140]]) + s) for s in (0, 20))
    for artifact in centroid_artifacts.values():
        with runtime.Pose(artifact, threads=1) as pose:
            before = pose(first)
            copies = [before.keypoints_xy.copy(), before.scores.copy(), before.boxes_xyxy.copy()]
            pose(second, [[90, 60, 250, 200]] * 3)
            for kept, copy in zip((before.keypoints_xy, before.scores, before.boxes_xyxy), copies, strict=True):
                np.testing.assert_array_equal(kept, copy)


def test_every_thread_has_its_own_buffers():
    cropper = Cropper((48, 64), "uint8", 1.25)
    mine = cropper.cut(IMAGE, BOXES, 5)[0]
    theirs = []
    thread = threading.Thread(target=lambda: theirs.append(cropper.cut(IMAGE, BOXES[::-1], 5)[0]))
    thread.start()
    thread.join()
    assert not np.shares_memory(mine, theirs[0])
    np.testing.assert_array_equal(mine, cropper.cut(IMAGE, BOXES, 5)[0])
    assert np.shares_memory(mine, cropper.cut(IMAGE, BOXES, 3)[0])
