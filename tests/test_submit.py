"""Files for the servers of COCO and MPII, read back as the servers' own tools read them."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
import torch
from matlab_files import EMPTY, mpii_points, rectangle, struct_array, write_release
from photographs import write_data_set
from predicting import Oracle
from pycocotools.coco import COCO
from scipy.io import loadmat

from runtime.errors import InputError
from runtime.skeleton import COCO_17, MPII_16
from tfpose_edge import PRESETS, TFPose, save_checkpoint
from training.data.reading import load_persons
from training.data.spec import DataSpec
from training.metrics import PCKH_LEFT_OUT
from training.submit import main, read_images, submit_coco, submit_mpii


@pytest.fixture(scope="module")
def annotated(tmp_path_factory):
    """Three rendered persons, one an image, as annotated COCO data."""
    return DataSpec.parse(write_data_set(tmp_path_factory.mktemp("coco"), 3))


@pytest.fixture
def image_info(annotated):
    """The same pictures as COCO publishes its test set: images and 80 categories without key points, nobody on them."""
    content = json.loads(annotated.annotations.read_text())
    path = annotated.annotations.with_name("image_info.json")
    path.write_text(json.dumps({"images": content["images"], "categories": [{"id": 1, "name": "person"}]}))
    return DataSpec(path, annotated.images)


def detections(annotated, category_id=1):
    people = load_persons(annotated).persons
    sizes = [(*p.box_xyxy[:2], *(p.box_xyxy[2:] - p.box_xyxy[:2])) for p in people]
    return [
        {"image_id": p.image_id, "category_id": category_id, "bbox": list(map(float, box)), "score": 0.75}
        for p, box in zip(people, sizes, strict=True)
    ]


def test_coco_results_of_images_without_annotations(annotated, image_info):
    boxes = detections(annotated) + detections(annotated, 62) + detections(annotated)[:1]
    lines = submit_coco(Oracle(annotated), image_info, boxes)
    assert [line["image_id"] for line in lines] == [1, 2, 3], "one line for each person, none for chairs or doubles"
    for line, person in zip(lines, load_persons(annotated).persons, strict=True):
        rows = np.reshape(line["keypoints"], (17, 3))
        np.testing.assert_allclose(rows[:, :2], person.keypoints_xy - 0.5, atol=0.051)
        assert set(rows[:, 2]) == {1} and line["category_id"] == 1 and line["score"] == 0.75 * 0.5
        assert set(line) == {"image_id", "category_id", "keypoints", "score"}
    loaded = COCO(str(annotated.annotations)).loadRes(lines)  # what the server does with it
    assert len(loaded.getAnnIds()) == 3


def test_points_that_a_model_does_not_know(annotated, image_info, capsys):
    oracle = Oracle(annotated)

    class Half:
        names = COCO_17[:5]

        def __call__(self, image_bgr, boxes_xyxy):
            keypoints_xy, scores = oracle(image_bgr, boxes_xyxy)
            return keypoints_xy[:, :5], scores[:, :5]

    (line, *_) = submit_coco(Half(), image_info, detections(annotated), score_mode="box")
    rows = np.reshape(line["keypoints"], (17, 3))
    assert rows[:5, 2].tolist() == [1] * 5 and not rows[5:].any() and line["score"] == 0.75
    assert "does not know left_shoulder, right_shoulder" in capsys.readouterr().err
    Half.names = ("beak",)
    with pytest.raises(InputError, match="has none of the test set's key points"):
        submit_coco(Half(), image_info, detections(annotated))


def test_image_lists_that_are_none(tmp_path, image_info):
    assert read_images(DataSpec(image_info.annotations, image_info.images, 2, 3)).image_ids == [2, 3]
    with pytest.raises(InputError, match="no images in the range; it has 3"):
        read_images(DataSpec(image_info.annotations, image_info.images, 9, 9))
    (tmp_path / "list.json").write_text('{"images": [{"id": "one", "file_name": "1.jpg"}]}')
    with pytest.raises(InputError, match="'images' must be a list of objects"):
        read_images(DataSpec(tmp_path / "list.json", tmp_path))


SIZE_WH = (240, 320)


def place(x, y, scale=1.0):
    return {"objpos": {"x": x, "y": y}, "scale": scale}


class BoxCorners:
    """Answers the box's upper left corner plus (k, 0) for point k: who was asked for shows in the answer."""

    names = tuple(reversed(MPII_16))

    def __call__(self, image_bgr, boxes_xyxy):
        steps = np.stack([[MPII_16.index(name), 0.0] for name in self.names])
        return boxes_xyxy[:, None, :2] + steps, np.ones((len(boxes_xyxy), len(steps)))


@pytest.fixture
def mpii(tmp_path):
    """A training image, and three of the test: one separated of two, three of whom one has no place, nobody."""
    seen = rectangle(mpii_points(np.full((16, 2), 50.0), np.full(16, 2)), x1=1, y1=1, x2=9, y2=9, **place(90, 90))
    images = [
        {"name": "a.png", "annorect": [place(100, 120), place(130, 140, 0.5)], "train": 0, "single": [2]},
        {"name": "train.png", "annorect": [seen], "train": 1, "single": [1]},
        {"name": "b.png", "annorect": [place(60, 70), {"scale": 2.0, "objpos": EMPTY}, place(110, 120)], "train": 0,
         "single": [1, 2, 3]},
        {"name": "c.png", "annorect": [], "train": 0},
    ]  # fmt: skip
    for name in ("a", "b", "train"):
        cv2.imwrite(str(tmp_path / f"{name}.png"), np.zeros((*SIZE_WH[::-1], 3), np.uint8))
    return DataSpec.parse(f"mpii:{write_release(tmp_path / 'release.mat', images)}:{tmp_path}")


def as_the_server_reads(path, release, image, person):
    """Points 16 x (x, y) of a person, by id; None where evaluatePCKh.m skips it: not separated, or without objpos."""
    pred = loadmat(path)["pred"]
    training = loadmat(release)["RELEASE"][0, 0]["img_train"].ravel()
    assert pred.shape == (1, (training == 0).sum()), "evaluatePCKh.m asserts length(annolist_test) == length(pred)"
    rectangles = pred[0, image]["annorect"]
    if not rectangles[0, person]["objpos"].size or not rectangles[0, person]["annopoints"].size:
        return None
    points = rectangles[0, person]["annopoints"][0, 0]["point"]
    found = np.full((16, 2), np.nan)
    for point in points[0]:
        found[int(point["id"].item())] = point["x"].item(), point["y"].item()
    return found


def test_mpii_file_as_the_server_reads_it(mpii, tmp_path, capsys):
    """Boxes by hand: 200 px x scale around objpos + (0, 15 px x scale), 1-based coordinates in and out."""
    target = tmp_path / "pred_keypoints_mpii.mat"
    assert submit_mpii(BoxCorners(), mpii, target) == 3
    assert "1 test persons without position or scale are not answered" in capsys.readouterr().err
    read = [as_the_server_reads(target, mpii.annotations, image, who) for image, who in ((0, 1), (1, 0), (1, 2))]
    corners = [(130 - 50, 140 + 7.5 - 50), (60 - 100, 70 + 15 - 100), (110 - 100, 120 + 15 - 100)]
    for points, corner in zip(read, corners, strict=True):
        np.testing.assert_allclose(points, np.array(corner) + np.stack([np.arange(16), np.zeros(16)], -1))
    assert as_the_server_reads(target, mpii.annotations, 0, 0) is None
    assert as_the_server_reads(target, mpii.annotations, 1, 1) is None
    pred = loadmat(target)["pred"]
    assert [str(pred[0, i]["image"][0, 0]["name"].item()) for i in range(3)] == ["a.png", "b.png", "c.png"]
    assert float(pred[0, 0]["annorect"][0, 1]["scale"].item()) == 0.5


def test_mpii_without_points_that_do_not_count(mpii, tmp_path, capsys):
    class Fourteen(BoxCorners):
        names = tuple(name for name in MPII_16 if name not in PCKH_LEFT_OUT)

    submit_mpii(Fourteen(), mpii, tmp_path / "p.mat")
    points = as_the_server_reads(tmp_path / "p.mat", mpii.annotations, 0, 1)
    assert np.flatnonzero(np.isnan(points[:, 0])).tolist() == [MPII_16.index("pelvis"), MPII_16.index("thorax")]
    assert "does not know pelvis, thorax" in capsys.readouterr().err


@pytest.mark.parametrize("images", [[], [{"name": "1.jpg", "annorect": [], "train": 1}]])
def test_files_without_test_persons(tmp_path, images):
    path = tmp_path / "m.mat"
    write_release(path, images) if images else path.write_bytes(b"nothing")
    with pytest.raises(InputError, match="has no test persons" if images else "not MPII's .mat file"):
        submit_mpii(BoxCorners(), DataSpec(path, tmp_path, kind="mpii"), tmp_path / "p.mat")
    assert not (tmp_path / "p.mat").exists()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("c") / "model.safetensors"
    save_checkpoint(path, TFPose(PRESETS["tiny"]))
    return path


def test_command_line(annotated, image_info, checkpoint, mpii, tmp_path, capsys):
    (tmp_path / "boxes.json").write_text(json.dumps(detections(annotated)))
    coco = ["--data", f"{image_info.annotations}:{image_info.images}", "--boxes", str(tmp_path / "boxes.json")]
    assert main([str(checkpoint), *coco, "--flip-test", "--output", str(tmp_path / "r.json")]) == 0
    assert len(json.loads((tmp_path / "r.json").read_text())) == 3
    data = f"mpii:{mpii.annotations}:{mpii.images}"
    assert main([str(checkpoint), "--data", data, "--output", str(tmp_path / "p.mat")]) == 0
    out = capsys.readouterr().out
    assert "r.json: 3 persons on 3 images, score mode box*keypoint" in out and "p.mat: 3 persons" in out


@pytest.mark.parametrize(
    ("data", "more", "message"),
    [
        ("a.json:images", ["--output", "r.json"], "give a detector's with --boxes"),
        ("a.json:images", ["--output", "r.mat", "--boxes", "b.json"], "this server wants a .json file"),
        ("mpii:a.mat:images", ["--output", "p.json"], "this server wants a .mat file"),
        ("mpii:a.mat:images", ["--output", "p.mat", "--boxes", "b.json"], "--boxes: of COCO"),
        ("mpii:valid.json:images", ["--output", "p.mat"], "servers answer COCO's ANN.json:IMAGES and MPII's"),
        ("lsp:folder", ["--output", "p.mat"], "servers answer"),
        ("a.json:images", ["--output", "none/r.json", "--boxes", "b.json"], "there is no folder none"),
    ],
)
def test_usage_errors(tmp_path, monkeypatch, data, more, message, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["m.safetensors", "--data", data, *more]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and message in line


def test_errors(image_info, checkpoint, tmp_path, capsys):
    (tmp_path / "boxes.json").write_text('[{"image_id": 77, "bbox": [1, 2, 3, 4], "score": 1}]')
    given = ["--data", f"{image_info.annotations}:{image_info.images}", "--output", str(tmp_path / "r.json")]
    assert main([str(checkpoint), *given, "--boxes", str(tmp_path / "boxes.json")]) == 4
    assert "boxes[0]: 'image_id' is 77, which is no image of the data" in capsys.readouterr().err
    assert main([str(tmp_path / "no.safetensors"), *given, "--boxes", str(tmp_path / "boxes.json")]) == 3
    with pytest.raises(SystemExit):
        main([str(checkpoint), *given, "--oks-nms", "1.5"])
    assert "'1.5' is not a number above 0, at most 1" in capsys.readouterr().err
    assert not (tmp_path / "r.json").exists()


def test_struct_arrays_keep_other_fields():
    """Fields of the release that nobody here knows are written as they were."""
    from training.mpii_submission import _with_field

    extended = _with_field(struct_array([{"scale": 1.0, "odd": "text"}, {"scale": 2.0}]), "annopoints")
    assert extended.dtype.names == ("scale", "odd", "annopoints") and extended[0, 0]["odd"] == "text"
    again = _with_field(extended, "annopoints")
    assert again.dtype.names == extended.dtype.names and again[0, 1]["scale"] == 2.0
