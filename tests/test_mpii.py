"""MPII: the official .mat with its oddities, the JSON list, boxes, and head sizes up to PCKh."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matlab_files import EMPTY, mpii_points, rectangle, write_release
from scipy.io import savemat

from runtime import geometry
from runtime.errors import InputError
from runtime.skeleton import COCO_17, MPII_16
from training.data.persons import Person
from training.data.reading import load_persons
from training.data.spec import DataSpec
from training.evaluate import evaluate
from training.metrics import pck

ANKLE, HEAD_TOP, WRIST = (MPII_16.index(name) for name in ("right_ankle", "head_top", "left_wrist"))
POINTS = [
    {"x": 101, "y": 301, "id": 0, "is_visible": 1},
    {"x": 151.5, "y": 101.25, "id": 9, "is_visible": EMPTY},
    {"x": 201, "y": 201, "id": 15, "is_visible": 0},
]
PLACE = {"objpos": {"x": 151, "y": 201}, "scale": 1.5}
HEAD = {"x1": 131, "y1": 101, "x2": 171, "y2": 131}  # 40 x 30: a diagonal of 50


def read(path, *options, images="images", more=""):
    return load_persons(DataSpec.parse(",".join(["mpii", *options]) + f":{path}:{images}{more}"))


def write_list(path, objects):
    path.write_text(json.dumps(objects))
    return path


def listed(points=POINTS, **changes):
    """The object of the JSON list for some points."""
    joints, seen = [[-1, -1] for _ in MPII_16], [0] * 16
    for point in points:
        joints[point["id"]], seen[point["id"]] = [point["x"], point["y"]], 1
    return {"image": "1.jpg", "center": [151, 201], "scale": 1.5, "joints": joints, "joints_vis": seen, **changes}


def test_matlab_coordinates_become_continuous(tmp_path):
    mat = write_release(tmp_path / "m.mat", [{"name": "1.jpg", "annorect": [rectangle(POINTS, **PLACE, **HEAD)]}])
    found = read(mat)
    (person,) = found.persons
    assert found.names == MPII_16 and person.image_path.as_posix() == "images/1.jpg"
    assert person.keypoints_xy[[ANKLE, HEAD_TOP, WRIST]].tolist() == [[100.5, 300.5], [151.0, 100.75], [200.5, 200.5]]
    assert person.visible[[ANKLE, HEAD_TOP, WRIST]].tolist() == [2, 2, 1] and (person.visible > 0).sum() == 3
    assert person.head_size == pytest.approx(0.6 * 50)


def test_box_of_scale_and_position(tmp_path):
    """200 px x 1.5 = 300 px, around (150.5, 200.5 + 15 x 1.5); padding 1.25 of the crop makes MPII's usual 375."""
    mat = write_release(tmp_path / "m.mat", [{"name": "1.jpg", "annorect": [rectangle(POINTS, **PLACE)]}])
    (person,) = read(mat).persons
    assert person.box_xyxy.tolist() == [0.5, 73.0, 300.5, 373.0] and person.head_size is None
    (tight,) = read(mat, "keypoint-boxes").persons  # 100 x 199.75 px, a tenth of that on every side
    np.testing.assert_allclose(tight.box_xyxy, [90.5, 80.775, 210.5, 320.475])
    assert tight.area == person.area == pytest.approx(0.53 * 120 * 239.7)
    (zero,) = read(mat, "zero-based", "keypoint-boxes").persons
    np.testing.assert_allclose(zero.keypoints_xy[ANKLE], [101.5, 301.5])
    np.testing.assert_allclose(zero.box_xyxy, tight.box_xyxy + 1)


def test_oddities_of_the_official_file(tmp_path, capsys):
    text = [{"x": "12", "y": "14.5", "id": "3", "is_visible": "0"}, {"x": "40", "y": "60", "id": "4"}]
    images = [
        {"name": "none.jpg", "annorect": []},
        {"name": "test.jpg", "annorect": [{"scale": 2.0, "objpos": {"x": 1, "y": 1}}], "train": 0},
        {"name": "text.jpg", "annorect": [rectangle(text, scale="1.0", objpos={"x": "30", "y": "40"})]},
        {"name": "two.jpg", "annorect": [rectangle(POINTS), {"annopoints": EMPTY, **PLACE}, rectangle(POINTS)]},
        {"name": "bare.jpg", "annorect": [{"annopoints": {"point": EMPTY}}, {"x1": 3}]},
    ]
    found = read(write_release(tmp_path / "m.mat", images))
    first, second, third = found.persons
    assert [p.image_path.name for p in found.persons] == ["text.jpg", "two.jpg", "two.jpg"]
    assert [first.annotation_id, second.annotation_id, third.annotation_id] == [1, 2, 4]
    assert first.keypoints_xy[3].tolist() == [11.5, 14.0] and first.visible[[3, 4]].tolist() == [1, 2]
    assert first.box_xyxy.tolist() == [-70.5, -45.5, 129.5, 154.5]
    np.testing.assert_allclose(second.box_xyxy[:2], [90.5, 80.775])
    assert found.image_ids == [1, 2, 3, 4] and found.unlabelled == 3 and found.problems == []
    assert "3 persons without key points left out" in capsys.readouterr().err


def test_a_lone_point_without_scale_has_no_box(tmp_path):
    good = [{"name": "1.jpg", "annorect": [rectangle(POINTS)]}] * 99
    mat = write_release(tmp_path / "m.mat", [*good, {"name": "2.jpg", "annorect": [rectangle(POINTS[:1])]}])
    found = read(mat)
    assert len(found.persons) == 99 and "annotation 100: the box" in found.problems[0]


@pytest.mark.parametrize(
    ("point", "message"),
    [
        ({"x": float("nan")}, "must be 48 finite numbers"),
        ({"id": 16}, "point id 16; legal are 0 to 15"),
        ({"x": EMPTY}, "'x' is None; it must be one number"),
        ({"y": "low"}, "could not convert"),
    ],
)
def test_broken_records_are_named(tmp_path, point, message):
    bad = rectangle([{**POINTS[0], **point}, POINTS[1]])
    mat = write_release(tmp_path / "m.mat", [{"name": "1.jpg", "annorect": [bad]}] * 2)
    with pytest.raises(InputError, match=f"2 of 2 records are unusable .* annotation 1: .*{message}"):
        read(mat)


def test_range_and_single_persons(tmp_path):
    two = [rectangle(POINTS, **PLACE), rectangle(POINTS, **PLACE)]
    images = [{"name": f"{i}.jpg", "annorect": two, "single": [2] if i == 1 else []} for i in range(3)]
    mat = write_release(tmp_path / "m.mat", images)
    found = read(mat, more=":2-3")
    assert [p.annotation_id for p in found.persons] == [3, 4, 5, 6]
    assert found.image_ids == [2, 3] and found.other_image_ids == {1}
    assert [p.annotation_id for p in read(mat, "single").persons] == [4]
    alone = write_release(tmp_path / "one.mat", [{"name": "1.jpg", "annorect": two, "single": [1, 2]}])
    assert len(read(alone, "single").persons) == 2
    with pytest.raises(InputError, match="no images in 9-9; it has 3"):
        read(mat, more=":9-9")


def test_the_json_list_is_the_same(tmp_path):
    mat = write_release(tmp_path / "m.mat", [{"name": "1.jpg", "annorect": [rectangle(POINTS, **PLACE)]}])
    (official,) = read(mat).persons
    (person,) = read(write_list(tmp_path / "v.json", [listed()])).persons
    np.testing.assert_array_equal(person.keypoints_xy, official.keypoints_xy)
    np.testing.assert_array_equal(person.box_xyxy, official.box_xyxy)
    assert person.head_size is None
    (zero,) = read(tmp_path / "v.json", "zero-based").persons
    assert zero.keypoints_xy[ANKLE].tolist() == [101.5, 301.5]
    (away,) = read(write_list(tmp_path / "w.json", [listed(center=[-1, -1], scale=-1)])).persons
    np.testing.assert_allclose(away.box_xyxy[:2], [90.5, 80.775])


def test_head_sizes_beside_the_json_list(tmp_path):
    objects = [listed(), listed(center=[901, 201]), listed(image="2.jpg")]
    path = write_list(tmp_path / "valid.json", objects)
    boxes = np.zeros((2, 2, 3))
    boxes[:, :, 0], boxes[:, :, 1], boxes[:, :, 2] = [[0, 0], [30, 40]], [[5, 5], [11, 13]], [[1, 2], [4, 6]]
    savemat(tmp_path / "gt_valid.mat", {"headboxes_src": boxes, "jnt_missing": EMPTY})
    sizes = [p.head_size for p in read(path, f"heads={tmp_path / 'gt_valid.mat'}").persons]
    assert sizes == pytest.approx([30, 6, 3])
    images = [
        {"name": "2.jpg", "annorect": [rectangle(POINTS, **PLACE)]},
        {"name": "1.jpg", "annorect": [rectangle(POINTS, objpos={"x": 901, "y": 201}, **HEAD), rectangle(POINTS)]},
    ]
    mat = write_release(tmp_path / "m.mat", images)
    assert [p.head_size for p in read(path, f"heads={mat}").persons] == [None, pytest.approx(30), None]
    savemat(tmp_path / "short.mat", {"headboxes_src": boxes[..., :2]})
    with pytest.raises(InputError, match=r"has 2 head boxes, but .*valid\.json 3 persons"):
        read(path, f"heads={tmp_path / 'short.mat'}")


def test_pelvis_and_thorax_are_not_in_the_total():
    """Two of three wrong, one of them the pelvis: the total is of the two others."""
    names = ("pelvis", "head_top", "left_knee")
    xy = np.array([[10.0, 10.0], [20.0, 20.0], [30.0, 30.0]])
    person = Person(
        Path("x"), 1, 1, xy, np.full(3, 2), np.ones(3, bool), np.array([0.0, 0, 40, 40]), 100.0, head_size=10.0
    )
    predicted = xy[None] + [[[90.0, 0], [90.0, 0], [0, 0]]]
    figures = pck(predicted, [person], names, 0.5, by_head=True)
    assert figures["value"] == pytest.approx(50) and figures["per_keypoint"]["pelvis"] == 0
    box = replace(person, head_size=4.0)
    assert pck(xy[None] + 1.9, [box], names, 0.5, by_head=True)["value"] == 0  # 2.69 px, limit 2
    assert pck(xy[None] + 1.4, [box], names, 0.5, by_head=True)["value"] == 100  # 1.98 px


def test_the_crop_is_as_wide_as_those_of_other_readers(tmp_path):
    """The box's 200 px x 1.5, extended by 1.25, is their 250 px x 1.5, 375 px, for crops that are square or higher."""
    mat = write_release(tmp_path / "m.mat", [{"name": "1.jpg", "annorect": [rectangle(POINTS, **PLACE)]}])
    (person,) = read(mat).persons
    for size in ((256, 256), (192, 256)):
        center, scale = geometry.box_to_center_scale(person.box_xyxy, size, 1.25)
        assert center.tolist() == [150.5, 223.0] and scale[0] == pytest.approx(375)


class Fixed:
    """Answers the same key points whatever it sees."""

    names = MPII_16

    def __init__(self, keypoints_xy):
        self.keypoints_xy = keypoints_xy

    def __call__(self, image_bgr, boxes_xyxy):
        return np.tile(self.keypoints_xy, (len(boxes_xyxy), 1, 1)), np.ones((len(boxes_xyxy), 16))


def test_pckh_by_hand(tmp_path):
    """Head box of diagonal 50, head size 30, limit 0.5 x 30 = 15 px: 14.9 px is right, 15.1 px wrong."""
    import cv2

    cv2.imwrite(str(tmp_path / "1.png"), np.zeros((400, 320, 3), np.uint8))
    truth, visible = np.full((16, 2), 150.0), np.zeros(16, int)
    visible[[ANKLE, HEAD_TOP, WRIST, 1]] = 2
    truth[1] = (200.0, 260.0)
    mat = write_release(
        tmp_path / "m.mat", [{"name": "1.png", "annorect": [rectangle(mpii_points(truth, visible), **PLACE, **HEAD)]}]
    )
    moved = truth + np.zeros((16, 2))
    moved[HEAD_TOP, 0] += 14.9
    moved[WRIST, 0] += 15.1
    spec = DataSpec.parse(f"mpii:{mat}:{tmp_path}")
    figures, _ = evaluate(Fixed(moved), spec, "pckh")
    assert figures["value"] == pytest.approx(75) and figures["persons"] == 1 and figures["left_out"] == 0
    assert figures["per_keypoint"]["head_top"] == 100 and figures["per_keypoint"]["left_wrist"] == 0
    assert figures["per_keypoint"]["pelvis"] is None
    path = write_list(tmp_path / "v.json", [listed(image="1.png")])
    with pytest.raises(InputError, match="has a head size"):
        evaluate(Fixed(moved), DataSpec.parse(f"mpii:{path}:{tmp_path}"), "pckh")


def test_joined_with_coco_names(tmp_path):
    mat = write_release(tmp_path / "m.mat", [{"name": "1.jpg", "annorect": [rectangle(POINTS)]}])
    (person,) = load_persons(DataSpec.parse(f"mpii:{mat}:images"), COCO_17).persons
    assert person.named.sum() == 12 and not person.named[:5].any()
    assert person.keypoints_xy[COCO_17.index("right_ankle")].tolist() == [100.5, 300.5]


@pytest.mark.parametrize(
    ("write", "options", "message"),
    [
        (lambda p: p.write_bytes(b"no mat at all"), [], "not a readable .mat file"),
        (lambda p: savemat(p, {"other": 1}), [], "has no variable 'RELEASE'"),
        (
            lambda p: savemat(p, {"RELEASE": {"annolist": 1, "img_train": 1, "single_person": EMPTY}}),
            [],
            "the name None",
        ),
        (lambda p: savemat(p, {"RELEASE": {"version": 1}}), [], "not MPII's file"),
        (lambda p: None, [], "no such file"),
        (lambda p: write_release(p, [{"name": "1", "annorect": []}]), ["heads=x.mat"], "head boxes of its own"),
    ],
)
def test_files_that_are_not_mpii(tmp_path, write, options, message):
    write(tmp_path / "m.mat")
    with pytest.raises(InputError, match=message):
        read(tmp_path / "m.mat", *options)


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        ({"images": []}, [], "it must be a list of objects"),
        ([{"center": [1, 2]}], [], "object 0 has no 'image'"),
        ([listed(joints=[[1, 2]])], [], "'joints' must be 16 pairs"),
        ([{"image": "1.jpg"}], [], "'joints' must be 16 pairs"),
        ([listed()], ["single"], "does not say who is single"),
    ],
)
def test_lists_that_are_not_mpii(tmp_path, content, options, message):
    with pytest.raises(InputError, match=message):
        read(write_list(tmp_path / "v.json", content), *options)
