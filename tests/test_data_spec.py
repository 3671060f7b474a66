"""DATA as the command lines write it, and COCO's own folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from photographs import write_data_set
from predicting import Oracle

from runtime.errors import InputError
from tfpose_edge import PRESETS, TFPose, save_checkpoint
from training import evaluate as evaluation
from training import train
from training.data import pack
from training.data.reading import load_persons
from training.data.spec import FORMS, MPII_OPTIONS, DataSpec, teach
from training.evaluate import evaluate
from training.people import data_name


@pytest.fixture(scope="module")
def coco_folder(tmp_path_factory):
    """COCO 2017's layout with a few rendered people in val2017."""
    folder = tmp_path_factory.mktemp("coco2017")
    spec = DataSpec.parse(write_data_set(folder / "flat", 4))
    (folder / "annotations").mkdir()
    shutil.move(spec.annotations, folder / "annotations" / "person_keypoints_val2017.json")
    shutil.move(spec.images, folder / "val2017")
    return folder


@pytest.mark.parametrize(
    ("text", "kind", "annotations", "images", "options"),
    [
        ("a/b.json:c", "coco", "a/b.json", "c", ()),
        ("coco:d:val2017", "coco", "d/annotations/person_keypoints_val2017.json", "d/val2017", ()),
        ("mpii:a.mat:i", "mpii", "a.mat", "i", ()),
        ("mpii,single,keypoint-boxes:a.mat:i/j", "mpii", "a.mat", "i/j", ("single", "keypoint-boxes")),
        ("mpii,heads=g.mat,zero-based:v.json:i", "mpii", "v.json", "i", ("heads=g.mat", "zero-based")),
        ("lsp:d", "lsp", "d/joints.mat", "d/images", ()),
        ("lspet:d/e", "lspet", "d/e/joints.mat", "d/e/images", ()),
        ("s/x-{0000..0063}.tar", "shards", "s/x-{0000..0063}.tar", "s", ()),
    ],
)
def test_every_form_with_and_without_a_range(text, kind, annotations, images, options):
    for more, first, last in [("", 1, None), (":7-9", 7, 9)]:
        spec = DataSpec.parse(text + more)
        assert spec == DataSpec(Path(annotations), Path(images), first, last, kind, options)


def test_a_folder_is_a_folder_of_shards(tmp_path):
    spec = DataSpec.parse(f"{tmp_path}:2-3")
    assert (spec.kind, spec.annotations, spec.first) == ("shards", tmp_path, 2)
    with pytest.raises(InputError, match=r"has no \.tar shards"):
        load_persons(spec)


@pytest.mark.parametrize(
    "text", ["nothing", "coco:dir", "mpii:a.txt:i", "mpii:a.mat", "lsp", "lsp:", "a.json", "a.txt:b", ""]
)
def test_what_is_none_of_the_forms_is_answered_with_all(text):
    with pytest.raises(InputError) as caught:
        DataSpec.parse(text)
    assert all(form in str(caught.value) for form in FORMS)


@pytest.mark.parametrize("option", ["double", "heads", "heads=", "single=yes"])
def test_unknown_options_are_answered_with_the_legal_ones(option):
    with pytest.raises(InputError, match="unknown option") as caught:
        DataSpec.parse(f"mpii,{option}:a.mat:i")
    assert all(legal in str(caught.value) for legal in MPII_OPTIONS)


def test_ranges_start_at_one():
    for text in ("lsp:d:0-3", "coco:d:p:5-4", "s.tar:0-0"):
        with pytest.raises(InputError, match="is not a range; the first image is 1"):
            DataSpec.parse(text)


@pytest.mark.parametrize("main", [train.main, evaluation.main, pack.main])
def test_help_teaches_every_form(main, capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    shown = "".join(capsys.readouterr().out.split())
    assert all("".join(line.split()) in shown for line in teach().splitlines())
    assert all(form in teach() for form in FORMS) and all(len(line) <= 120 for line in teach().splitlines())


def test_names_of_data_have_no_folders_of_this_machine():
    assert data_name("coco:/data/coco:val2017") == "annotations/person_keypoints_val2017.json"
    assert data_name("lsp:/data/lsp:1-900") == "lsp/joints.mat:1-900"
    assert data_name("mpii,heads=/x/g.mat:/data/mpii/v.json:/data/i") == "mpii/v.json"
    assert data_name("/data/shards/{0..9}.tar") == "shards/{0..9}.tar"


def test_coco_folder(coco_folder):
    found = load_persons(DataSpec.parse(f"coco:{coco_folder}:val2017:2-3"))
    assert found.image_ids == [2, 3] and all(path.is_file() for path in found.image_paths.values())
    with pytest.raises(InputError, match=r"person_keypoints_train2017\.json: cannot read .* that are there: val2017$"):
        load_persons(DataSpec.parse(f"coco:{coco_folder}:train2017"))


def test_detector_boxes_with_the_coco_folder(coco_folder, tmp_path, capsys):
    """COCO's own detection files: other categories and images of other parts are not there, boxes are x, y, w, h."""
    spec = DataSpec.parse(f"coco:{coco_folder}:val2017")
    boxes = [
        {"image_id": p.image_id, "category_id": 1, "score": 0.9,
         "bbox": [*p.box_xyxy[:2].tolist(), *(p.box_xyxy[2:] - p.box_xyxy[:2]).tolist()]}
        for p in load_persons(spec).labelled
    ]  # fmt: skip
    boxes.append({"image_id": 1, "category_id": 1, "score": 0.1, "bbox": [0, 0, 20, 30]})
    path = tmp_path / "detections.json"
    path.write_text(json.dumps(boxes))
    figures, results = evaluate(Oracle(spec), spec, "oks", boxes=json.loads(path.read_text()))
    assert figures["persons"] == 4 and len(results) == 5 and figures["value"] == pytest.approx(100)
    save_checkpoint(tmp_path / "m.safetensors", TFPose(PRESETS["tiny"]))
    given = [tmp_path / "m.safetensors", "--data", f"coco:{coco_folder}:val2017", "--metric", "oks", "--boxes", path]
    assert evaluation.main([str(word) for word in given]) == 0
    assert "4 persons" in capsys.readouterr().out
