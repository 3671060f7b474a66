"""What changes pixels alone: colours against a slow map, holes, occluders, and that key points stay as they are."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from photographs import write_data_set

from runtime.skeleton import COCO_17
from tfpose_edge import PRESETS
from training import engine
from training.data import colour, crops, occlusion
from training.data.augmentation import AUGMENTATIONS, PLAIN, Augmentation
from training.data.dataset import EpochSampler, JoinedPeople, PhotographedPeople, RenderedPeople
from training.data.reading import load_persons
from training.data.spec import DataSpec

TINY = PRESETS["tiny"]
STRONG = AUGMENTATIONS["strong"]
EVERYTHING = replace(STRONG, gray=0.5, erase=1, paste=1)


def crop_of(image, augmentation=PLAIN, seed=0):
    """A crop whose picture is larger than it on all sides, and a generator."""
    rng = np.random.default_rng(seed)
    points = rng.uniform(20, 80, (17, 2))
    seen = np.full(17, 2)
    seen[3] = 0
    box = np.array([30.0, 30, 90, 110])
    matrix, flip = crops.augmented_matrix(box, points, seen, COCO_17, (96, 128), 1.0, augmentation, rng)
    return crops.cut(image, points, seen, seen > 0, 99.0, COCO_17, (96, 128), matrix, flip), rng


def noise(seed=0, shape=(140, 120, 3)):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def people(folder, augmentation, count=6):
    """Photographed people of a small written data set."""
    persons = load_persons(DataSpec.parse(write_data_set(folder, count)), COCO_17).persons
    return PhotographedPeople(persons, TINY, augmentation)


def test_an_empty_place_takes_the_turn_of_a_person(tmp_path):
    """No labelled point is in such a crop, so its coordinates teach nothing, and its scores should be 0."""
    data, emptied = people(tmp_path, replace(PLAIN, empty=1)), 0
    for index in range(len(data)):
        item, plain = data[0, index], PhotographedPeople(data.persons, TINY, PLAIN)[0, index]
        assert torch.equal(item.labelled, plain.labelled)
        if not torch.equal(item.crops, plain.crops):
            assert not ((item.keypoints >= 0) & (item.keypoints <= 1)).all(-1)[item.labelled].any()
            emptied += 1
    assert emptied


def slow_colours(pixel, brightness, contrast, saturation, hue_deg, mean):
    """One pixel (3,) RGB, step by step; the hue turns around R = G = B by Rodrigues' formula."""
    value = brightness * pixel
    value = contrast * value + (1 - contrast) * brightness * mean
    luma = 0.299 * value[0] + 0.587 * value[1] + 0.114 * value[2]
    value = luma + saturation * (value - luma)
    axis, angle = np.ones(3) / np.sqrt(3), np.deg2rad(hue_deg)
    turned = value * np.cos(angle) + np.cross(axis, value) * np.sin(angle) + axis * (axis @ value) * (1 - np.cos(angle))
    return np.clip(turned, 0, 255)


def test_colours_are_those_of_the_slow_map():
    image, covered = noise(), np.full((140, 120), 255, np.uint8)
    augmentation = Augmentation(brightness=0.4, contrast=0.4, saturation=0.4, hue_deg=60)
    found = colour.jitter(image, covered, augmentation, np.random.default_rng(3))
    rng = np.random.default_rng(3)
    knobs = [1 + rng.uniform(-0.4, 0.4) for _ in range(3)] + [rng.uniform(-60, 60)]
    mean = image.reshape(-1, 3).mean(0) @ (0.299, 0.587, 0.114)
    for row, column in np.random.default_rng(4).integers(0, 120, (50, 2)):
        expected = slow_colours(image[row, column].astype(float), *knobs, mean)
        assert np.abs(found[row, column] - expected).max() <= 1  # OpenCV computes in fixed point


def test_colours_by_hand():
    red_to_green = colour.colour_matrix(1, 1, 1, 120, 100.0)
    np.testing.assert_allclose(red_to_green @ (200, 10, 30, 1), (30, 200, 10), atol=1e-9)
    np.testing.assert_allclose(colour.colour_matrix(1, 1, 1, 0, 77.0) @ (1, 2, 3, 1), (1, 2, 3))
    np.testing.assert_allclose(colour.colour_matrix(1.2, 1, 1, 0, 77.0) @ (10, 20, 30, 1), (12, 24, 36))
    np.testing.assert_allclose(colour.colour_matrix(1, 0.5, 1, 0, 80.0) @ (100, 80, 60, 1), (90, 80, 70))
    np.testing.assert_allclose(colour.colour_matrix(1, 1, 0, 33, 80.0) @ (100, 0, 0, 1), [29.9] * 3)
    np.testing.assert_allclose(colour.colour_matrix(1, 1, 1.4, 33, 80.0) @ (90, 90, 90, 1), [90] * 3)


def test_gray_crops_have_no_colour_and_come_as_often_as_told():
    crop, rng = crop_of(noise())
    gray = [
        np.ptp(crops.disguise(crop, Augmentation(gray=0.25), rng, None).image, axis=2).max() == 0 for _ in range(400)
    ]
    assert abs(np.mean(gray) - 0.25) < 4 * 0.0217


def test_outside_of_the_picture_stays_black():
    """As the runtime leaves it, whatever the contrast does to dark pixels."""
    turned = replace(PLAIN, rotation_deg=40, scale=(2, 2))
    image = np.full((140, 120, 3), 200, np.uint8)
    crop, rng = crop_of(image, turned)
    outside = crop.image.max(2) == 0
    assert 500 < outside.sum() < 10000
    changed = crops.disguise(crop, Augmentation(contrast=1, brightness=0.4), rng, None).image
    assert changed[outside].any(1).sum() <= 5  # the faintest blends round to black
    assert (changed[~outside] > 0).all()
    np.testing.assert_array_equal(colour.jitter(image, np.zeros(image.shape[:2], np.uint8), STRONG, rng), 0)


def test_the_paper_s_recipe_leaves_pixels_alone():
    crop, rng = crop_of(noise(), AUGMENTATIONS["paper"])
    np.testing.assert_array_equal(crops.disguise(crop, AUGMENTATIONS["paper"], rng, None).image, crop.image)


def test_key_points_and_labels_do_not_change_under_a_disguise():
    crop, rng = crop_of(noise())
    made = crops.disguise(crop, EVERYTHING, rng, lambda size_wh: noise(1, (*size_wh[::-1], 3)))
    assert (made.image != crop.image).any()
    for name in ("keypoints", "labelled", "named", "area_px", "matrix"):
        np.testing.assert_array_equal(getattr(made, name), getattr(crop, name))


def test_holes_have_all_shapes_and_fills():
    """On a crop of two colours: pixels change inside holes only, and by each of the three fills."""
    image = np.full((128, 96, 3), (10, 200, 90), np.uint8)
    image[64:] = (250, 20, 10)
    shares, changes = [], set()
    for seed in range(60):
        erased = occlusion.erase(image, np.random.default_rng(seed))
        changed = (erased != image).any(2)
        shares.append(changed.mean())
        colours = {tuple(c) for c in erased[changed].tolist()} - {(250, 20, 10), (10, 200, 90)}
        changes.add("noise" if len(colours) > 50 else "mean" if colours == {(130, 110, 50)} else "piece")
    assert changes == {"noise", "mean", "piece"}
    assert 0 < np.mean(shares) < 0.3 and max(shares) <= 3 * 0.4 * 0.4 * 96 / 128


def test_round_and_angular_holes():
    kinds = set()
    image = np.zeros((200, 200, 3), np.uint8)
    for seed in range(80):
        mask = (occlusion.erase(image + np.uint8(seed % 2), np.random.default_rng(seed)) != seed % 2).any(2)
        count, _, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
        if count == 2 and stats[1, :2].min() > 0 and (stats[1, :2] + stats[1, 2:4]).max() < 200:
            kinds.add("round" if stats[1, 4] < 0.85 * stats[1, 2] * stats[1, 3] else "angular")
    assert kinds == {"round", "angular"}


def test_occluders_come_from_another_picture(tmp_path):
    """The other pictures are pure blue: blue appears, blended at soft edges only, and near the key points."""
    data = people(tmp_path / "set", replace(PLAIN, paste=1))
    for person in data.persons[1:]:
        cv2.imwrite(str(person.image_path), np.full((256, 192, 3), (255, 0, 0), np.uint8))
    plain = PhotographedPeople(data.persons, TINY, PLAIN)[0, 0]
    for epoch in range(8):
        item = data[epoch, 0]
        changed = (item.crops != plain.crops).any(0)
        blue = (item.crops == torch.tensor([0, 0, 255])[:, None, None]).all(0)
        assert changed.any() and (blue & changed).sum() > 0.3 * changed.sum()
        assert torch.equal(item.keypoints, plain.keypoints) and torch.equal(item.labelled, plain.labelled)


def test_without_another_picture_occluders_are_rendered(tmp_path):
    alone = people(tmp_path / "one", replace(PLAIN, paste=1), 1)
    plain = PhotographedPeople(alone.persons, TINY, PLAIN)[0, 0]
    assert any((alone[epoch, 0].crops != plain.crops).any() for epoch in range(3))
    two = people(tmp_path / "two", replace(PLAIN, paste=1), 2)
    two.persons[1].image_path.write_bytes(b"no picture")
    assert any(
        (two[epoch, 0].crops != PhotographedPeople(two.persons, TINY, PLAIN)[0, 0].crops).any() for epoch in range(3)
    )


def test_soft_and_hard_edges_of_all_outlines():
    masks = [occlusion._outline((60, 50), np.random.default_rng(seed)) for seed in range(60)]
    assert all(mask.shape == (50, 60) for mask in masks)
    soft = [len(np.unique(mask)) > 2 for mask in masks]
    assert 10 < sum(soft) < 50
    assert len({int((mask > 127).sum()) for mask in masks}) > 10  # polygons differ


@pytest.mark.parametrize("size_wh", [(2, 2), (3, 40), (200, 300)])
def test_occluders_of_any_size_at_any_place(size_wh):
    image, patch = np.zeros((64, 48, 3), np.uint8), np.full((*size_wh[::-1], 3), 255, np.uint8)
    for center in [(-500, 3), (0, 0), (24, 32), (48, 64), (999, 999)]:
        occlusion._lay_over(image.copy(), patch, np.full(size_wh[::-1], 255, np.uint8), np.array(center, float))
    for seed in range(20):
        occlusion._outline(size_wh, np.random.default_rng(seed))
        occlusion.rendered_piece(np.random.default_rng(seed), size_wh)
        occlusion._fill(image, size_wh, np.random.default_rng(seed))


def test_batches_do_not_depend_on_workers_or_on_what_came_before(tmp_path):
    """The strong recipe from 0, 1 and 2 workers, and from the middle of the epoch: bit by bit the same."""
    data = JoinedPeople([people(tmp_path / "set", EVERYTHING), RenderedPeople(2, TINY, EVERYTHING)])
    engine.prepare_process(1)

    def batches(workers, start=0):
        sampler = EpochSampler(len(data), 3, seed=1)
        sampler.epoch, sampler.start = 4, start
        return list(engine.loader(data, sampler, workers))

    first = batches(0)
    for others, expected in ((batches(1), first), (batches(2), first), (batches(0, 1), first[1:])):
        assert len(others) == len(expected)
        for other, batch in zip(others, expected, strict=True):
            assert all(torch.equal(a, b) for a, b in zip(other, batch, strict=True))
