"""AP against pycocotools on the files themselves, OKS-NMS, score modes, and the columns of the paper's table 7."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from photographs import write_data_set
from predicting import Oracle
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from runtime.skeleton import COCO_17, MPII_16
from training import metrics
from training.answers import asked_by_detector
from training.data.persons import AREA_OF_BOX, Person
from training.data.reading import load_persons
from training.data.spec import DataSpec
from training.evaluate import evaluate, main
from training.suppression import similarity, suppress

NAMES = ("value", "ap50", "ap75", "apm", "apl", "ar")


def random_annotation(rng, identity, image_id):
    """Somebody of 40 to 400 px, a tenth of them a crowd, a tenth without points, all with gaps."""
    width, height = rng.uniform(20, 200), rng.uniform(40, 400)
    x, y = rng.uniform(0, 300, 2)
    visible = np.where(rng.random(17) < 0.7, rng.integers(1, 3, 17), 0) * (rng.random() < 0.9)
    rows = np.column_stack([x + width * rng.random(17), y + height * rng.random(17), visible])
    rows[visible == 0] = 0
    return {
        "id": identity, "image_id": image_id, "category_id": 1, "iscrowd": int(rng.random() < 0.1),
        "keypoints": np.round(rows, 2).ravel().tolist(), "num_keypoints": int((visible > 0).sum()),
        "bbox": [x, y, width, height], "area": float(width * height * rng.uniform(0.3, 0.8)),
    }  # fmt: skip


def random_answers(rng, annotation):
    """Nought to three answers per person, good ones and bad ones, with scores that tell little."""
    rows = np.reshape(annotation["keypoints"], (17, 3))
    scale = np.sqrt(annotation["area"])
    for _ in range(rng.integers(0, 4)):
        moved = rows[:, :2] + rng.normal(0, scale * rng.choice([0.01, 0.05, 0.2]), (17, 2))
        values = np.column_stack([moved, np.ones(17)]).ravel().tolist()
        yield {
            "image_id": annotation["image_id"], "category_id": 1, "keypoints": values, "score": float(rng.random())
        }  # fmt: skip


@pytest.fixture(scope="module")
def random_set(tmp_path_factory):
    """60 images with 0 to 12 persons each; the last has 40 answers, more than COCO's 20 count."""
    rng = np.random.default_rng(0)
    images = [{"id": 10 * i, "file_name": f"{i}.jpg", "width": 640, "height": 480} for i in range(60)]
    people = [image["id"] for image in images for _ in range(rng.integers(0, 13))]
    annotations = [random_annotation(rng, 100 + i, image_id) for i, image_id in enumerate(people)]
    answers = [line for annotation in annotations for line in random_answers(rng, annotation)]
    answers += [{**answers[0], "image_id": images[-1]["id"], "score": float(rng.random())} for _ in range(40)]
    categories = [{"id": 1, "name": "person", "keypoints": list(COCO_17), "skeleton": []}]
    path = tmp_path_factory.mktemp("random") / "ann.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return path, answers


def test_average_precision_equals_pycocotools(random_set):
    """The file as pycocotools reads it, not as we rebuild it: indices, areas, crowds and empty persons as given."""
    path, answers = random_set
    figures, _ = evaluate(answers, DataSpec(path, Path("images")), "oks")
    ground = COCO(str(path))
    official = COCOeval(ground, ground.loadRes([dict(line) for line in answers]), "keypoints")
    official.evaluate()
    official.accumulate()
    official.summarize()
    ours = [figures[name] for name in NAMES]
    np.testing.assert_allclose(ours, 100 * official.stats[:6], atol=1e-6, rtol=0)
    assert all(5 < value < 95 for value in ours) and figures["score_mode"] == "as given"


def test_similarity_by_hand():
    """A nose and a hip 3 and 4 px away at a scale of 200 square px."""
    alike = similarity(np.zeros((2, 2)), np.array([[[0.0, 3], [4, 0]]]), np.array([200.0]), ("nose", "left_hip"))
    terms = [np.exp(-9 / (2 * 200 * (2 * 0.026) ** 2)), np.exp(-16 / (2 * 200 * (2 * 0.107) ** 2))]
    assert alike == pytest.approx([sum(terms) / 2])


def test_of_doubles_the_best_stays():
    """Three of one person, the middle one best, and one of somebody else."""
    rng = np.random.default_rng(1)
    one = rng.uniform(0, 100, (17, 2))
    keypoints_xy = np.stack([one, one + 0.3, one + 0.6, one + 60])
    boxes = np.tile([0.0, 0, 100, 100], (4, 1))
    assert suppress(keypoints_xy, np.array([0.5, 0.9, 0.4, 0.2]), boxes, COCO_17, 0.9) == [1, 3]
    assert suppress(keypoints_xy, np.array([0.5, 0.9, 0.4, 0.2]), boxes, COCO_17, 1.0) == [1, 0, 2, 3]
    assert suppress(keypoints_xy[:0], np.zeros(0), boxes[:0], COCO_17, 0.9) == []
    small = boxes * 0.02
    alike = similarity(one, keypoints_xy[1:2], np.array([AREA_OF_BOX * 4.0]), COCO_17)
    assert alike < 0.9 and suppress(keypoints_xy[:2], np.array([0.5, 0.9]), small, COCO_17, 0.9) == [1, 0]


@pytest.fixture(scope="module")
def spec(tmp_path_factory):
    return DataSpec.parse(write_data_set(tmp_path_factory.mktemp("coco"), 3))


def boxes_of(spec, **changes):
    people = load_persons(spec).persons
    return [
        {"image_id": p.image_id, "bbox": [*p.box_xyxy[:2], *(p.box_xyxy[2:] - p.box_xyxy[:2])], "score": 0.8, **changes}
        for p in people
    ]


def test_doubles_of_a_detector_go(spec):
    """The first person's box twice: without NMS its worse answer is a false positive that ranks before true ones."""
    boxes = boxes_of(spec) + boxes_of(spec, score=0.9)[:1]
    figures, results = evaluate(Oracle(spec), spec, "oks", boxes=boxes, score_mode="box")
    assert figures["oks_nms"] == 0.9 and figures["value"] == pytest.approx(100)
    assert [line["score"] for line in results] == [0.9, 0.8, 0.8]
    figures, results = evaluate(Oracle(spec), spec, "oks", boxes=boxes, score_mode="box", oks_nms=1.0)
    assert figures["value"] < 100 and len(results) == 4
    assert evaluate(Oracle(spec), spec, "oks")[0]["oks_nms"] is None


def test_boxes_of_other_things_are_left_out(spec):
    people = load_persons(spec)
    boxes = boxes_of(spec, category_id=1)[:1] + boxes_of(spec, category_id=18)
    assert len(asked_by_detector(boxes, people)) == 1


@pytest.mark.parametrize("mode", ["keypoint", "box", "box*keypoint"])
def test_score_modes_are_named_in_the_output(tmp_path, spec, mode, capsys, monkeypatch):
    monkeypatch.setattr("training.evaluate.open_predictor", lambda *_: Oracle(spec))
    (tmp_path / "boxes.json").write_text(json.dumps(boxes_of(spec)))
    data = ["--data", f"{spec.annotations}:{spec.images}", "--metric", "oks", "--json", str(tmp_path / "f.json")]
    boxes = ["--boxes", str(tmp_path / "boxes.json"), "--score-mode", mode, "--oks-nms", "0.7"]
    saved = ["--save-predictions", str(tmp_path / "p.json")]
    assert main(["m.safetensors", *data, *boxes, *saved]) == 0
    figures, results = (json.loads((tmp_path / name).read_text()) for name in ("f.json", "p.json"))
    assert figures["score_mode"] == mode and figures["oks_nms"] == 0.7
    assert f"score mode {mode}, OKS-NMS 0.7" in capsys.readouterr().out
    expected = {"keypoint": 0.5, "box": 0.8, "box*keypoint": 0.4}[mode]
    assert [line["score"] for line in results] == pytest.approx([expected] * 3)


def test_nms_needs_boxes(spec, capsys):
    with pytest.raises(SystemExit) as usage:
        main(["m.safetensors", "--data", f"{spec.annotations}:x", "--metric", "oks", "--oks-nms", "0.9"])
    assert usage.value.code == 2 and "it needs --boxes" in capsys.readouterr().err


def person(keypoints_xy, visible, head_size):
    box = np.array([0.0, 0, 9, 9])
    return Person(Path("x"), 1, 1, keypoints_xy, visible, np.ones(len(visible), bool), box, 9.0, head_size=head_size)


def test_table_7_by_hand():
    """Two persons with head sizes 10 and 20, limits 5 and 10 px; the second has no left elbow."""
    truth = np.zeros((16, 2))
    visible = np.full((2, 16), 2)
    visible[1, MPII_16.index("left_elbow")] = 0
    base = {
        "image_path": Path("x"),
        "image_id": 1,
        "annotation_id": 1,
        "box_xyxy": np.array([0.0, 0, 9, 9]),
        "area": 9.0,
    }
    people = [
        Person(keypoints_xy=truth, visible=visible[i], named=np.ones(16, bool), head_size=size, **base)
        for i, size in enumerate((10.0, 20.0))
    ]
    predicted = np.zeros((2, 16, 2))
    for who, name, px in [
        (0, "head_top", 5.0), (1, "head_top", 10.5), (0, "upper_neck", 5.5), (0, "left_elbow", 6), (0, "pelvis", 90),
        (0, "left_wrist", 5.01), (1, "left_wrist", 9.99), (0, "right_ankle", 99), (1, "right_ankle", 99),
    ]:  # fmt: skip
        predicted[who, MPII_16.index(name), 0] = px
    figures = metrics.pck(predicted, people, MPII_16, 0.5, by_head=True)
    assert figures["groups"] == pytest.approx(
        {
            "head": 50, "shoulder": 100, "elbow": 50, "wrist": 75, "hip": 100, "knee": 100, "ankle": 50,
            "total": 100 * (27 - 6) / 27,
        }
    )  # fmt: skip
    assert figures["value"] == figures["groups"]["total"]
    truth[MPII_16.index("left_shoulder")] += 50  # or there is no torso
    assert "groups" not in metrics.pck(predicted, people, MPII_16, 0.5)


def test_table_7_of_other_skeletons():
    """COCO's points have no head, and unlabelled columns are None."""
    somebody = person(np.zeros((17, 2)), np.full(17, 2), head_size=9.0)
    groups = metrics.pck(np.zeros((1, 17, 2)), [somebody], COCO_17, 0.5, by_head=True)["groups"]
    assert groups["head"] is None and groups["knee"] == groups["total"] == 100
