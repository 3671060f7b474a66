"""Pictures that are decoded smaller: the key points still say where things are, to a fraction of a pixel."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from runtime import geometry
from runtime.errors import InputError
from runtime.skeleton import COCO_17
from tfpose_edge import PoseConfig
from training.data import dataset
from training.data.augmentation import AUGMENTATIONS, PLAIN
from training.data.dataset import PhotographedPeople
from training.data.picture import read_image
from training.data.reduced import jpeg_size_wh, read_reduced, reduction_for

CONFIG = PoseConfig()
EXIF_TIFF = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0%c\0\0\0\0\0\0"  # one entry, the orientation


def dot(size_wh, center_xy, sigma):
    """A gray soft dot (H, W, 3) on black."""
    x, y = np.arange(size_wh[0]) + 0.5, np.arange(size_wh[1])[:, None] + 0.5
    light = 250 * np.exp(-((x - center_xy[0]) ** 2 + (y - center_xy[1]) ** 2) / (2 * sigma**2))
    return np.repeat(np.rint(light).astype(np.uint8)[..., None], 3, axis=2)


def centroid(plane):
    light = np.where(plane > 16, plane, 0).astype(float)  # JPEG leaves traces in the dark
    x, y = np.arange(plane.shape[1]) + 0.5, np.arange(plane.shape[0]) + 0.5
    return np.array([light.sum(0) @ x, light.sum(1) @ y]) / light.sum()


def jpeg(path, image, orientation=None):
    """Write a JPEG, with an EXIF orientation if asked for."""
    encoded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 98])[1].tobytes()
    if orientation:
        content = b"Exif\0\0" + EXIF_TIFF % orientation
        encoded = encoded[:2] + b"\xff\xe1" + (len(content) + 2).to_bytes(2, "big") + content + encoded[2:]
    path.write_bytes(encoded)
    return path


def test_a_picture_stays_at_least_as_fine_as_the_crop():
    for zoom, expected in [(1.3, 1), (0.51, 1), (0.5, 2), (0.26, 2), (0.25, 4), (0.126, 4), (0.1, 8), (0.01, 8)]:
        matrix = geometry.warp_matrix(np.array([50.0, 50]), np.array([192.0, 256]) / zoom, (192, 256), 33, True)
        assert reduction_for(matrix) == expected, zoom


@pytest.mark.parametrize("size_wh", [(1600, 1200), (1601, 1203)])
@pytest.mark.parametrize("reduction", [1, 2, 4, 8])
def test_coordinates_are_divided(tmp_path, size_wh, reduction):
    center = np.array([803.7, 555.2])
    path = jpeg(tmp_path / "a.jpg", dot(size_wh, center, 30.0))
    image, by = read_reduced(path, reduction)
    assert by == reduction and image.shape[:2] == tuple(-(-side // reduction) for side in size_wh[::-1])
    assert np.abs(centroid(image[..., 0]) - center / reduction).max() < 0.05


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turned_by_exif(tmp_path, orientation):
    """The dot is where the whole picture has it, divided; sizes that EXIF would shift are decoded whole."""
    for size_wh, expected in [((800, 640), 4), ((801, 642), 1)]:
        path = jpeg(tmp_path / f"{size_wh[0]}.jpg", dot(size_wh, (203.4, 311.8), 20.0), orientation)
        whole, (image, by) = read_image(path), read_reduced(path, 4)
        assert by == expected and whole.shape[:2] == (size_wh[::-1] if orientation < 5 else size_wh)
        assert np.abs(centroid(image[..., 0]) - centroid(whole[..., 0]) / by).max() < 0.05


def test_other_formats_and_damage(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), dot((320, 240), (100, 90), 9))
    assert read_reduced(tmp_path / "a.png", 8)[1] == 1
    assert jpeg_size_wh((tmp_path / "a.png").read_bytes()) is None
    whole = jpeg(tmp_path / "a.jpg", dot((320, 240), (100, 90), 9)).read_bytes()
    assert jpeg_size_wh(whole) == (320, 240)
    for end in (0, 2, 3, 9, 30, 200, len(whole) // 2):
        (tmp_path / "cut.jpg").write_bytes(whole[:end])
        with pytest.raises(InputError, match="not a readable picture"):
            read_reduced(tmp_path / "cut.jpg", 4)
    with pytest.raises(InputError, match="no such picture"):
        read_reduced(tmp_path / "none.jpg", 4)


@pytest.mark.parametrize("size_wh", [(2400, 3200), (2399, 3197)])
def test_markers_of_large_people_are_where_the_key_points_say(tmp_path, monkeypatch, size_wh):
    """A dot in a picture of 8 megapixels, through every recipe: within 0.05 px of the crop, at each reduction."""
    center, used = np.array([1313.3, 1477.7]), set()
    points = np.tile(center, (17, 1)) + np.random.default_rng(0).uniform(-700, 700, (17, 2))
    wrist = COCO_17.index("left_wrist")
    points[wrist] = center
    path = jpeg(tmp_path / "large.jpg", dot(size_wh, center, 40.0))
    person = SimpleNamespace(
        image_path=path, annotation_id=1, keypoints_xy=points, visible=np.full(17, 2), named=np.ones(17, bool),
        box_xyxy=np.array([800.0, 750, 1900, 2250]), area=1e6,
    )  # fmt: skip

    def noted(path, reduction):
        used.add(reduction)
        return read_reduced(path, reduction)

    monkeypatch.setattr(dataset, "read_reduced", noted)
    for augmentation in (PLAIN, AUGMENTATIONS["paper"]):
        people = PhotographedPeople([person], CONFIG, augmentation)
        for epoch in range(10):
            item = people[epoch, 0]
            sigma = 40 * np.sqrt(abs(np.linalg.det(item.matrix[:, :2].numpy())))
            expected = geometry.transform_points(center, item.matrix.numpy())
            if (expected > 5 * sigma).all() and (expected < np.array((192, 256)) - 5 * sigma).all():
                assert np.abs(centroid(item.crops[0].numpy()) - expected).max() < 0.05
                distances = np.abs(item.keypoints.numpy() * (192, 256) - expected).max(1)
                assert distances[[wrist, wrist + 1]].min() < 1e-4  # the right wrist where mirrored
    assert used == {4, 8}


def large_person(path, image, box_xyxy=(200.0, 0, 1400, 1600)):
    """A person who fills a picture of 1600 x 1600 px, without any point of interest."""
    return SimpleNamespace(
        image_path=jpeg(path, image), annotation_id=1, keypoints_xy=np.full((17, 2), 800.0),
        visible=np.full(17, 2), named=np.ones(17, bool), box_xyxy=np.array(box_xyxy), area=1e6,
    )  # fmt: skip


def test_colours_change_wherever_the_crop_shows_its_picture(tmp_path):
    """A white picture is light up to its edges, and black beyond them."""
    person = large_person(tmp_path / "a.jpg", np.full((1600, 1600, 3), 255, np.uint8))
    changed = PhotographedPeople([person], CONFIG, replace(PLAIN, contrast=0.5))[0, 0].crops
    plain = PhotographedPeople([person], CONFIG, PLAIN)[0, 0].crops
    white = (plain == 255).all(0)
    assert 0.5 < white.float().mean() < 1 and (changed[:, white] > 100).all()
    assert (changed[:, (plain == 0).all(0)] == 0).all()


def test_occluders_from_large_pictures_show_what_is_in_the_box(tmp_path):
    """The other picture is blue inside the box and black outside of it."""
    image = np.zeros((1600, 1600, 3), np.uint8)
    image[:, 150:800] = (255, 0, 0)
    other = large_person(tmp_path / "b.jpg", image, (300.0, 500, 650, 900))
    for corner in (other.box_xyxy[:2], other.box_xyxy[2:]):
        assert image[int(corner[1]), int(corner[0]), 0] == 255
    subject = large_person(tmp_path / "a.jpg", np.full((1600, 1600, 3), 255, np.uint8))
    people = PhotographedPeople([subject, other], CONFIG, replace(PLAIN, paste=1))
    plain = PhotographedPeople([subject], CONFIG, PLAIN)[0, 0].crops.int()
    for epoch in range(6):
        changed = people[epoch, 0].crops.int()
        touched = ((changed - plain).abs() > 40).any(0) & (plain == 255).all(0)
        assert touched.any() and (changed[2, touched] > 200).float().mean() > 0.95


def test_without_augmentation_pictures_are_read_whole(tmp_path, monkeypatch):
    """As the runtime reads them."""
    monkeypatch.setattr(dataset, "read_reduced", None)
    person = SimpleNamespace(
        image_path=jpeg(tmp_path / "a.jpg", dot((800, 800), (400, 400), 30)), annotation_id=1, area=1e5,
        keypoints_xy=np.full((17, 2), 400.0), visible=np.full(17, 2), named=np.ones(17, bool),
        box_xyxy=np.array([0.0, 0, 800, 800]),
    )  # fmt: skip
    item = PhotographedPeople([person], CONFIG)[0, 0]
    whole = geometry.warp_image(read_image(person.image_path), item.matrix.numpy(), CONFIG.input_size_wh)
    np.testing.assert_array_equal(item.crops.permute(1, 2, 0).numpy(), whole[..., ::-1])
