"""Reading, joining, cropping and batching of training data."""

from __future__ import annotations

import json
import shutil

import cv2
import numpy as np
import pytest
import torch
from photographs import write_data_set

from runtime import geometry
from runtime.errors import InputError
from runtime.skeleton import COCO_17, LSP_14, flip_order
from tfpose_edge import PRESETS, PoseConfig
from training.data import crops, show
from training.data.calibration import calibration_crops
from training.data.crops import Augmentation
from training.data.dataset import EpochSampler, JoinedPeople, PhotographedPeople, RenderedPeople, in_order
from training.data.picture import read_image
from training.data.reading import load_labelled, load_persons
from training.data.spec import DataSpec
from training.options import Options, with_defaults
from training.people import training_people

TINY = PRESETS["tiny"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data_set(tmp_path_factory.mktemp("coco"))


@pytest.fixture
def edited(tmp_path):
    """Write a data set whose annotations went through a function; returns its specification."""

    def edit(change):
        spec = DataSpec.parse(write_data_set(tmp_path / "edited", 3))
        content = json.loads(spec.annotations.read_text())
        content = change(content) or content
        spec.annotations.write_text(content if isinstance(content, str) else json.dumps(content))
        return spec

    return edit


def test_data_argument():
    spec = DataSpec.parse("a/b.json:some/images:901-1000")
    assert (str(spec.annotations), str(spec.images), spec.first, spec.last) == ("a/b.json", "some/images", 901, 1000)
    assert DataSpec.parse(r"C:\a.json:D:\images").images.name.endswith("images")
    for wrong in ("a.json", "a.txt:images", "a.json:images:5-1", "a.json:images:0-3", ""):
        with pytest.raises(InputError, match="data"):
            DataSpec.parse(wrong)


def test_pixel_indices_become_continuous(data):
    spec = DataSpec.parse(data)
    record = json.loads(spec.annotations.read_text())["annotations"][0]
    person = load_persons(spec, COCO_17).persons[0]
    k = int(np.flatnonzero(person.visible)[0])
    np.testing.assert_allclose(person.keypoints_xy[k], np.array(record["keypoints"][3 * k : 3 * k + 2]) + 0.5)
    np.testing.assert_allclose(person.box_xyxy[:2], record["bbox"][:2])


def test_range_is_by_image_order_and_inclusive(data):
    chosen = load_persons(DataSpec.parse(data + ":2-4"), COCO_17)
    assert chosen.image_ids == [2, 3, 4]
    assert {p.image_id for p in chosen.persons} == {2, 3, 4}
    with pytest.raises(InputError, match="no images in 50-60; it has 6"):
        load_persons(DataSpec.parse(data + ":50-60"), COCO_17)


def test_joined_by_name(tmp_path, data):
    spec = DataSpec.parse(write_data_set(tmp_path / "lsp", 2, LSP_14))
    lsp = load_persons(spec, COCO_17).persons[0]
    coco = load_persons(DataSpec.parse(data), COCO_17).persons[0]
    assert lsp.named.sum() == 12 and not lsp.named[:5].any() and not lsp.visible[:5].any()
    shared = lsp.named & (coco.visible > 0)
    np.testing.assert_allclose(lsp.keypoints_xy[shared], coco.keypoints_xy[shared])
    with pytest.raises(InputError, match="none of its key points"):
        load_persons(spec, ("tail",))


def test_bad_annotations(edited, tmp_path):
    for change, message in [
        (lambda c: "{not json", "not JSON"),
        (lambda c: [1, 2], "'images' must be a list"),
        (lambda c: c.update(annotations="x"), "'annotations' must be a list"),
        (lambda c: c.update(categories=[{}]), "no category has 'keypoints'"),
        (lambda c: c.update(images=[{"file_name": "x"}]), "every image needs"),
        (lambda c: c["annotations"][0].update(bbox=[1, 2, 0, 4]), "both sizes above 0"),
        (lambda c: c["annotations"][0].update(bbox=[1, float("nan"), 3, 4]), "'bbox' is"),
        (lambda c: c["annotations"][0].update(bbox="wide"), "annotation 100"),
        (lambda c: c["annotations"][0].update(keypoints=[1, 2, 3]), "51 finite numbers"),
        (lambda c: c["annotations"][0].update(keypoints="abc"), "annotation 100"),
        (lambda c: c["annotations"][0].update(bbox=None), "annotation 100"),
        (lambda c: c["annotations"].append(7), "annotation 7"),
        (lambda c: c["annotations"][0].update(area=float("nan")), "'area' is nan"),
        (lambda c: c["annotations"][0].update(area=-4), "'area' is -4"),
        (lambda c: c["annotations"][0].update(area="9"), "'area' is '9'"),
        (lambda c: c["annotations"][0].update(id=101), "annotation 101: 'id' is 101"),
        (lambda c: c["annotations"][0].update(id="a"), "annotation a: 'id' is 'a'"),
        (lambda c: c["annotations"][0].update(id=None), "annotation None: 'id' is None"),
        (lambda c: c["annotations"][0].update(image_id="1"), "annotation 100: 'image_id' is '1'"),
        (lambda c: c["annotations"][0].update(image_id=[1]), "annotation 100: 'image_id' is"),
        (lambda c: c["annotations"][0].update(image_id=77), "annotation 100: 'image_id' is 77"),
        (lambda c: c["annotations"][0].update(image_id=None), "annotation 100: 'image_id' is None"),
        (lambda c: c["images"][0].update(id="1"), "every image needs"),
    ]:
        shutil.rmtree(tmp_path / "edited", ignore_errors=True)
        with pytest.raises(InputError, match=message):
            load_persons(edited(change), COCO_17)
    with pytest.raises(InputError, match="cannot read annotations"):
        load_persons(DataSpec.parse(f"{tmp_path}/none.json:{tmp_path}"), COCO_17)


def test_a_rare_bad_record_is_reported_and_left_out(edited, capsys):
    def one_in_two_hundred(content):
        content["annotations"] = [{**r, "id": i} for i, r in enumerate(content["annotations"] * 80)]
        content["annotations"][5] = {**content["annotations"][5], "bbox": [0, 0, -1, 5]}

    persons = load_persons(edited(one_in_two_hundred), COCO_17).persons
    assert len(persons) == 239
    assert "1 unusable records left out" in capsys.readouterr().err


def test_bad_pictures(tmp_path):
    with pytest.raises(InputError, match="no such picture"):
        read_image(tmp_path / "none.jpg")
    (tmp_path / "cut.jpg").write_bytes(b"\xff\xd8\xff\xe0 and then nothing")
    with pytest.raises(InputError, match="not a readable picture"):
        read_image(tmp_path / "cut.jpg")


def test_half_a_jpeg_is_no_picture(tmp_path):
    whole = cv2.imencode(".jpg", np.random.default_rng(0).integers(0, 255, (96, 96, 3), np.uint8))[1].tobytes()
    (tmp_path / "half.jpg").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="not a readable picture"):
        read_image(tmp_path / "half.jpg")
    (tmp_path / "empty.jpg").write_bytes(b"")
    with pytest.raises(InputError, match="not a readable picture"):
        read_image(tmp_path / "empty.jpg")


def test_records_without_an_id_get_one_of_their_own(edited):
    def without_ids(content):
        content["annotations"][0].pop("id")
        content["annotations"][1].pop("id")
        content["annotations"][2]["id"] = 1

    assert [p.annotation_id for p in load_persons(edited(without_ids)).persons] == [0, 4, 1]


def test_records_of_other_images_and_categories_are_skipped(edited, capsys):
    def change(content):
        content["annotations"][1]["category_id"] = 7
        content["annotations"].append({"category_id": [8], "image_id": "no"})

    spec = edited(change)
    assert [p.image_id for p in load_persons(spec).persons] == [1, 3]
    chosen = load_persons(DataSpec(spec.annotations, spec.images, 3))
    assert [p.image_id for p in chosen.persons] == [3] and chosen.other_image_ids == {1, 2}
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("area", [None, 0])
def test_no_area_is_a_share_of_the_box(edited, area):
    person = load_persons(edited(lambda c: c["annotations"][0].update(area=area, bbox=[0, 0, 10, 20]))).persons[0]
    assert person.area == pytest.approx(0.53 * 200)


def test_no_labelled_person(edited):
    spec = edited(lambda c: [a.update(keypoints=[0] * 51) for a in c["annotations"]] and None)
    data = f"{spec.annotations}:{spec.images}"
    with pytest.raises(InputError, match="no person with labelled key points"):
        calibration_crops((96, 128), 1.25, data)
    assert show.main(["--data", data, "--output", str(spec.images / "sheet.png")]) == 4


@pytest.mark.parametrize("seed", range(5))
def test_augmented_key_points_come_back(data, seed):
    person = load_persons(DataSpec.parse(data), COCO_17).persons[seed]
    rng = np.random.default_rng(seed)
    matrix, flip = crops.augmented_matrix(
        person.box_xyxy, person.keypoints_xy, person.visible, COCO_17, (192, 256), 1.25, Augmentation(), rng
    )
    image = read_image(person.image_path)
    crop = crops.cut(
        image, person.keypoints_xy, person.visible, person.named, person.area, COCO_17, (192, 256), matrix, flip
    )
    back = geometry.transform_points(crop.keypoints.astype(float) * (192, 256), geometry.invert_matrix(matrix))
    back = back[flip_order(COCO_17)] if flip else back
    labelled = person.visible > 0
    assert np.abs(back - person.keypoints_xy)[labelled].max() < 1e-3  # float32 fractions of the crop
    assert crop.area_px == pytest.approx(person.area * abs(np.linalg.det(matrix[:, :2])))


def test_mirroring_moves_pixels_and_names_together():
    """A picture with a red dot at the left wrist: after mirroring, the dot lies at the *right* wrist's key point."""
    image = np.zeros((64, 64, 3), np.uint8)
    image[20:23, 40:43] = (0, 0, 255)
    keypoints = np.zeros((17, 2))
    keypoints[COCO_17.index("left_wrist")] = (41.5, 21.5)
    visible = np.zeros(17, np.int64)
    visible[COCO_17.index("left_wrist")] = 2
    matrix = geometry.warp_matrix(np.array([32.0, 32.0]), np.array([64.0, 64.0]), (64, 64), flip=True)
    crop = crops.cut(image, keypoints, visible, np.ones(17, bool), 1.0, COCO_17, (64, 64), matrix, flip=True)
    k = COCO_17.index("right_wrist")
    assert crop.labelled.nonzero()[0].tolist() == [k]
    x, y = crop.keypoints[k] * 64
    assert crop.image[int(y), int(x)].tolist() == [255, 0, 0]  # RGB


def test_half_body_shows_only_half():
    rng = np.random.default_rng(0)
    keypoints = np.stack([np.linspace(10, 60, 17), np.linspace(10, 200, 17)], axis=1)
    always = Augmentation(rotation_deg=0, scale=(1, 1), flip=0, half_body=1.0)
    matrix, _ = crops.augmented_matrix(
        np.array([0, 0, 70, 210.0]), keypoints, np.full(17, 2), COCO_17, (96, 128), 1.25, always, rng
    )
    inside = geometry.transform_points(keypoints, matrix)
    shown = ((inside >= 0) & (inside <= (96, 128))).all(1)
    assert shown[:11].all() != shown[11:].all()


def test_items_depend_on_seed_epoch_and_index_alone(data):
    persons = load_persons(DataSpec.parse(data), TINY.keypoint_names).labelled
    one = JoinedPeople([PhotographedPeople(persons, TINY, Augmentation()), RenderedPeople(3, TINY, Augmentation())])
    two = JoinedPeople([PhotographedPeople(persons, TINY, Augmentation()), RenderedPeople(3, TINY, Augmentation())])
    for key in [(0, 0), (0, 7), (1, 7)]:
        assert all(torch.equal(a, b) for a, b in zip(one[key], two[key], strict=True))
    assert not torch.equal(one[0, 7].crops, one[1, 7].crops)
    assert len(one) == 9 and int(one[0, 7].place) == 7
    assert one[0, 0].crops.shape == (3, 128, 96) and one[0, 0].crops.dtype == torch.uint8


def test_data_that_are_there_twice_are_cropped_differently(data):
    options = with_defaults(Options(preset="tiny", train=(data, data), augment="strong"))
    both, _ = training_people(options, TINY, pytest.fail)
    assert [len(part) for part in both.parts] == [6, 6]
    for index in range(6):
        first, second = both[3, index], both[3, index + 6]
        assert not torch.equal(first.crops, second.crops) and not torch.equal(first.keypoints, second.keypoints)
        assert int(second.place) == int(first.place) + 6


def test_nothing_is_empty_where_a_crowd_or_somebody_without_points_is(edited):
    def change(content):
        first = content["annotations"][0]
        crowd = {**first, "id": 900, "iscrowd": 1, "bbox": [0, 0, 50, 60], "segmentation": {}}
        nameless = {**first, "id": 901, "keypoints": [0] * 51, "num_keypoints": 0, "bbox": [100, 100, 40, 80]}
        content["annotations"] += [crowd, nameless]

    spec = edited(change)
    (persons,), _ = load_labelled([f"{spec.annotations}:{spec.images}"], TINY.keypoint_names)
    assert [person.beside_xyxy.tolist() for person in persons] == [[[0, 0, 50, 60], [100, 100, 140, 180]], [], []]
    beside = PhotographedPeople(persons, TINY)._boxes_beside(persons[0])
    assert beside.tolist() == [[0, 0, 50, 60], [100, 100, 140, 180]]


def test_rendered_people_for_other_skeletons():
    lsp = PoseConfig.from_json(TINY.to_json().replace('"nose"', '"head_top"'))
    item = RenderedPeople(1, lsp)[0, 0]
    assert not item.named[0] and not item.labelled[0] and item.named[1:].all()
    with pytest.raises(InputError, match="must be at least 1"):
        RenderedPeople(0, TINY)


def test_sampler_resumes_and_shares():
    whole = EpochSampler(10, 4, seed=3)
    batches = list(whole)
    assert len(batches) == len(whole) == 3 and all(len(b) == 4 for b in batches)
    assert {i for b in batches for _, i in b} == set(range(10))
    whole.start = 2
    assert list(whole) == batches[2:]
    whole.start, whole.epoch = 0, 1
    assert list(whole) != batches
    parts = [list(EpochSampler(10, 4, 3, rank, 2)) for rank in range(2)]
    assert [sorted(a + b) for a, b in zip(*parts, strict=True)] == [sorted(b) for b in batches]


def test_in_order_visits_everything_once():
    assert in_order(5, 2) == [[(0, 0), (0, 1)], [(0, 2), (0, 3)], [(0, 4)]]
