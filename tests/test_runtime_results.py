"""Results: what other programs get from them is what they hold."""

from __future__ import annotations

import json
import sys
import types
from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest

import runtime
from runtime.skeleton import COCO_17, limbs

RNG = np.random.default_rng(0)


@pytest.fixture
def result():
    """Two people with COCO's key points."""
    points = np.float32(RNG.uniform(20, 200, (2, 17, 2)))
    scores, boxes = np.float32(RNG.uniform(0, 1, (2, 17))), np.float32([[10, 20, 110, 220], [0.5, 1.5, 90, 95.25]])
    timing_ms = {"crop": 0.1, "inference": 4.0, "decode": 0.1}
    ids = np.array([3, 7])
    return runtime.PoseResult(points, scores, boxes, COCO_17, tuple(limbs(COCO_17)), (320, 240), timing_ms, ids)


def test_results_and_frames_cannot_be_changed(result):
    frame = runtime.Frame(0, 0.0, "a", np.zeros((240, 320, 3), np.uint8), result)
    for thing, name in ((result, "scores"), (frame, "index"), (runtime.Style(), "width"), (runtime.Smoothing(), "x")):
        with pytest.raises((FrozenInstanceError, AttributeError)):
            setattr(thing, name, None)


def test_json_has_ids_when_people_are_followed(result):
    read = json.loads(result.to_json())
    assert [person["id"] for person in read["persons"]] == [3, 7]
    assert set(read) == {"image_size_wh", "names", "persons", "timing_ms"}
    single = json.loads(replace(result, ids=None).to_json())
    assert set(single["persons"][0]) == {"box_xyxy", "keypoints_xy", "scores"}
    np.testing.assert_array_equal(np.float32(read["persons"][1]["keypoints_xy"]), result.keypoints_xy[1])


def test_coco_results_are_scored_as_perfect_against_themselves(result, capsys):
    """pycocotools reads them, and finds the people exactly where an annotation in its convention says they are."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    entries = json.loads(json.dumps(result.to_coco(image_id=5)))
    truth = COCO()
    annotations = []
    for number, (points, box) in enumerate(zip(result.keypoints_xy, result.boxes_xyxy, strict=True)):
        indices = np.column_stack([points - 0.5, np.full(17, 2)])  # pixel indices, visible
        x1, y1, x2, y2 = box.tolist()
        person = {"id": number + 1, "image_id": 5, "category_id": 1, "iscrowd": 0, "num_keypoints": 17}
        person |= {"bbox": [x1, y1, x2 - x1, y2 - y1], "area": 2.0}  # so small that a half pixel would cost
        annotations.append(person | {"keypoints": indices.ravel().tolist()})
    categories = [{"id": 1, "name": "person", "keypoints": list(COCO_17)}]
    truth.dataset = {
        "images": [{"id": 5, "width": 320, "height": 240}],
        "annotations": annotations,
        "categories": categories,
    }
    truth.createIndex()
    evaluation = COCOeval(truth, truth.loadRes(entries), "keypoints")
    evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
    evaluation.evaluate()
    oks = evaluation.computeOks(5, 1)
    np.testing.assert_allclose(np.sort(oks.max(axis=1)), 1, atol=1e-3)
    assert [entry["score"] for entry in entries] == pytest.approx(result.scores.mean(axis=1).tolist())
    np.testing.assert_allclose(entries[1]["bbox"], [0.5, 1.5, 89.5, 93.75])
    np.testing.assert_allclose(np.reshape(entries[0]["keypoints"], (17, 3))[:, 2], result.scores[0])


def test_no_people_give_no_entries(result):
    empty = replace(
        result,
        keypoints_xy=result.keypoints_xy[:0],
        scores=result.scores[:0],
        boxes_xyxy=result.boxes_xyxy[:0],
        ids=result.ids[:0],
    )
    assert empty.to_coco() == [] and json.loads(empty.to_json())["persons"] == [] and len(empty) == 0


def test_supervision_gets_copies_of_everything(result, monkeypatch):
    class KeyPoints(types.SimpleNamespace):
        """Takes what supervision.KeyPoints takes."""

        def __init__(self, xy, class_id=None, keypoint_confidence=None, detection_confidence=None, data=None):
            super().__init__(
                xy=xy, class_id=class_id, scores=keypoint_confidence, confidence=detection_confidence, data=data
            )

    monkeypatch.setitem(sys.modules, "supervision", types.SimpleNamespace(KeyPoints=KeyPoints))
    made = result.to_supervision()
    np.testing.assert_array_equal(made.xy, result.keypoints_xy)
    np.testing.assert_array_equal(made.scores, result.scores)
    np.testing.assert_allclose(made.confidence, result.scores.mean(axis=1))
    np.testing.assert_array_equal(made.data["tracker_id"], [3, 7])
    np.testing.assert_array_equal(made.data["xyxy"], result.boxes_xyxy)
    made.xy[:] = 0
    assert result.keypoints_xy.all() and made.class_id.tolist() == [0, 0]
    assert "tracker_id" not in replace(result, ids=None).to_supervision().data


def test_supervision_that_is_not_installed_is_an_error(result, monkeypatch):
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(runtime.BackendUnavailable, match='pip install "supervision>=') as caught:
        result.to_supervision()
    assert caught.value.exit_code == 5


def test_results_are_drawn_in_the_style_that_is_asked_for(result):
    image = np.full((240, 320, 3), 90, np.uint8)
    plain = result.draw(image)
    np.testing.assert_array_equal(result.draw(image, 0.3), plain)
    assert (result.draw(image, style=runtime.Style(by_person=True)) != plain).any()
    frame = runtime.Frame(0, 0.0, "a", image, result)
    np.testing.assert_array_equal(frame.draw(), plain)
    assert (image == 90).all()


def test_the_real_supervision_takes_it(result):
    made = result.to_supervision()
    assert type(made).__module__.startswith("supervision.")
    np.testing.assert_array_equal(made.xy, result.keypoints_xy)
    np.testing.assert_array_equal(made.keypoint_confidence, result.scores)
    np.testing.assert_array_equal(made.data["tracker_id"], [3, 7])
