"""What cannot be read: replaced, named once, counted over workers and the whole run, and at most 1 % of the data."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from matlab_files import mpii_of_coco, rectangle, write_joints, write_release
from photographs import write_data_set
from predicting import Oracle

from runtime.errors import InputError
from runtime.skeleton import COCO_17, LSP_14
from tfpose_edge import PRESETS, load_checkpoint
from training.data.augmentation import Augmentation
from training.data.damage import LISTED, Damage
from training.data.dataset import JoinedPeople, PhotographedPeople, RenderedPeople, in_order, watched
from training.data.reading import load_labelled, load_persons
from training.data.spec import DataSpec
from training.engine import loader, prepare_process
from training.evaluate import evaluate
from training.options import Options
from training.run import RunFolder
from training.train import main, train

TINY = PRESETS["tiny"]


def crowd_of(tmp_path, count, bad=(5,)):
    """A data set of `count` persons on two pictures; the persons `bad` are alone on the second, which is damaged."""
    spec = DataSpec.parse(write_data_set(tmp_path / "set", 2))
    content = json.loads(spec.annotations.read_text())
    content["annotations"] = [{**content["annotations"][i in bad], "id": i} for i in range(count)]
    spec.annotations.write_text(json.dumps(content))
    picture = spec.images / "001.png"
    picture.write_bytes(picture.read_bytes()[:5000])
    return spec, f"{spec.annotations}:{spec.images}"


def run_options(tmp_path, data, **changes):
    base = {"train": (data,), "output": tmp_path / "run", "batch_size": 40, "epochs": 2, "workers": 0, "threads": 1}
    return Options(**{**base, **changes})


def test_damage_is_said_once_and_stops_at_one_per_cent():
    said = []
    damage = Damage(200, "set", ["annotation 1: a"], said.append)
    damage.note("annotation 1: a", "annotation 2: b", "annotation 2: b")
    damage.note("annotation 2: b")
    assert said == ["left out: annotation 2: b"]
    assert damage.summary() == "set: 2 of 200 persons could not be used: annotation 1: a; annotation 2: b"
    with pytest.raises(InputError, match=r"set: 3 of 200 persons are unusable \(at most 1% may be\): .*annotation 3"):
        damage.note("annotation 3: c")
    with pytest.raises(InputError, match=f"annotation {LISTED - 1}; and 5 more$"):
        Damage(100, "set", [f"annotation {i}" for i in range(LISTED + 5)])
    assert Damage(3, "set").summary() is None


@pytest.mark.parametrize("workers", [0, 2])
def test_another_person_takes_the_place(tmp_path, workers):
    spec, _ = crowd_of(tmp_path, 12)
    people = PhotographedPeople(load_persons(spec, TINY.keypoint_names).labelled, TINY, Augmentation(), seed=4)
    joined = JoinedPeople([RenderedPeople(3, TINY), people])
    (first,) = list(loader(joined, [[(2, 3), (2, 8)]], workers))
    (again,) = list(loader(joined, [[(2, 3), (2, 8)]], 0))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert first.asked.tolist() == [3, 8] and int(first.place[0]) == 3 and int(first.place[1]) not in (8, 0, 1, 2)
    assert int(joined[2, 8].place) == int(first.place[1])
    others = {int(joined[epoch, 8].place) for epoch in range(20)}
    assert len(others) > 3 and 8 not in others


def test_damaged_items_are_counted_over_workers(tmp_path):
    _, data = crowd_of(tmp_path, 250, bad=(5, 17))
    sets, damage = load_labelled([data], TINY.keypoint_names)
    joined = JoinedPeople([PhotographedPeople(sets[0], TINY)])
    keys = in_order(250, 50)
    for _ in range(2):
        assert sum(len(batch.place) for batch in watched(loader(joined, keys, 2), joined, damage)) == 250
    assert [problem.split(":")[0] for problem in damage.problems] == ["annotation 5", "annotation 17"]
    assert "not a readable picture" in damage.problems[0]


def test_nothing_readable_is_an_error(tmp_path):
    spec, _ = crowd_of(tmp_path, 3, bad=(0, 1, 2))
    people = PhotographedPeople(load_persons(spec, TINY.keypoint_names).labelled, TINY)
    with pytest.raises(InputError, match=r"001\.png: not a readable picture"):
        people[0, 1]


@pytest.mark.parametrize("missing", [False, True])
def test_a_run_goes_on_and_reports(tmp_path, capsys, missing):
    """One person of 101: said once although two epochs ask for it, and again at the end."""
    spec, data = crowd_of(tmp_path, 101)
    reason = "not a readable picture"
    if missing:
        (spec.images / "001.png").unlink()
        reason = "no such picture"
    epochs = 1 if missing else 2
    folder = train(run_options(tmp_path, data, val=data, epochs=epochs))
    lines = [line for line in capsys.readouterr().err.splitlines() if reason in line]
    once = [line for line in lines if "left out: annotation 5: " in line]
    ends = [line for line in lines if "1 of 101 persons could not be used: annotation 5: " in line]
    assert len(once) == len(ends) == 2  # of the training data and of the validation data
    assert len([r for r in RunFolder(folder).read_log() if r["kind"] == "epoch"]) == epochs


def test_a_run_with_damage_resumes_exactly(tmp_path, monkeypatch):
    _, data = crowd_of(tmp_path, 101)
    straight = train(run_options(tmp_path, data, output=tmp_path / "straight", workers=1, epochs=1))
    stops = iter([True])
    with monkeypatch.context() as patch:
        patch.setattr("training.session.Session._must_stop", lambda self: next(stops, True))
        train(run_options(tmp_path, data, epochs=1))
    assert RunFolder(tmp_path / "run").load_state()[0].batch == 1
    broken = train(run_options(tmp_path, data, epochs=1, resume=True))
    one, two = (load_checkpoint(folder / "last.safetensors").state_dict() for folder in (straight, broken))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_more_than_one_per_cent_stops_the_run_with_the_list(tmp_path, capfd):
    _, data = crowd_of(tmp_path, 120, bad=(5, 6))
    prepare_process(1)
    given = ["--train", data, "--output", str(tmp_path / "run"), "--batch-size", "60", "--epochs", "1"]
    assert main([*given, "--workers", "2", "--threads", "1"]) == 4
    (line,) = [line for line in capfd.readouterr().err.splitlines() if "error: " in line]
    assert "2 of 120 persons are unusable (at most 1% may be): " in line
    assert "annotation 5: " in line and "annotation 6: " in line


def test_missing_pictures_count_with_broken_records(tmp_path, capsys):
    """150 persons: one broken record and one missing picture are 2 of 150, more than 1 %."""
    spec, data = crowd_of(tmp_path, 150)
    (spec.images / "001.png").unlink()
    assert load_labelled([data], COCO_17)[1].problems == [f"annotation 5: {spec.images / '001.png'}: no such picture"]
    content = json.loads(spec.annotations.read_text())
    content["annotations"][7]["keypoints"][0] = float("nan")
    spec.annotations.write_text(json.dumps(content))
    assert main(["--train", data, "--output", str(tmp_path / "other"), "--workers", "0"]) == 4
    error = capsys.readouterr().err
    assert "2 of 150 persons are unusable" in error and "annotation 7: 'keypoints' must be 51 finite" in error
    assert not (tmp_path / "other").exists()


def test_a_folder_that_is_not_there_is_said_and_not_each_picture(tmp_path):
    spec, data = crowd_of(tmp_path, 10)
    wrong = data.replace(str(spec.images), str(tmp_path / "gone"))
    with pytest.raises(InputError, match=r": there is no folder .*gone, where its pictures should lie$"):
        load_labelled([wrong], COCO_17)


def test_evaluation_leaves_out_and_names(tmp_path):
    spec = DataSpec.parse(write_data_set(tmp_path / "set", 1))
    content = json.loads(spec.annotations.read_text())
    picture = (spec.images / "000.png").read_bytes()
    content["images"] = [{"id": i, "file_name": f"{i}.png"} for i in range(120)]
    content["annotations"] = [{**content["annotations"][0], "id": i, "image_id": i} for i in range(120)]
    spec.annotations.write_text(json.dumps(content))
    for i in range(120):
        (spec.images / f"{i}.png").write_bytes(picture if i != 9 else picture[:999])
    for metric in ("pck", "oks"):
        figures, results = evaluate(Oracle(spec), spec, metric)
        assert figures["persons"] == len(results) == 119 and figures["value"] == pytest.approx(100)
        assert len(figures["unusable"]) == 1 and "9.png: not a readable picture" in figures["unusable"][0]
    (spec.images / "10.png").unlink()
    with pytest.raises(InputError, match=r"2 of 120 pictures are unusable .*9\.png.*10\.png: no such picture"):
        evaluate(Oracle(spec), spec, "oks")


def test_mpii_lsp_and_coco_in_one_run(tmp_path):
    """Joined by name: two steps on pictures of all three, in the paper's 17 points."""
    data = write_data_set(tmp_path / "coco", 4)
    persons = load_persons(DataSpec.parse(data)).persons
    (tmp_path / "images").mkdir()
    lsp_rows = []
    for number, person in enumerate(persons, start=1):
        for name in (f"im{number:04}.jpg", f"{number}.jpg"):
            (tmp_path / "images" / name).write_bytes(person.image_path.read_bytes())
        xy = [person.keypoints_xy[COCO_17.index(n)] if n in COCO_17 else (60.0, 60.0) for n in LSP_14]
        lsp_rows.append(np.column_stack([np.array(xy) + 0.5, np.zeros(14)]))
    write_joints(tmp_path / "joints.mat", np.array(lsp_rows))
    images = [
        {"name": f"{i}.jpg", "annorect": [rectangle(mpii_of_coco(p.keypoints_xy, p.visible, COCO_17))]}
        for i, p in enumerate(persons, start=1)
    ]
    mat = write_release(tmp_path / "mpii.mat", images)
    options = run_options(tmp_path, data, batch_size=6, epochs=1)
    texts = (data, f"mpii:{mat}:{tmp_path / 'images'}", f"lsp:{tmp_path}")
    folder = train(dataclasses.replace(options, train=texts, val=texts[1]))
    (line,) = [r for r in RunFolder(folder).read_log() if r["kind"] == "epoch"]
    assert line["step"] == 2 and np.isfinite(line["loss"]) and 0 <= line["oks"] <= 100
    sets, _ = load_labelled(texts, COCO_17)
    assert [len(s) for s in sets] == [4, 4, 4]
    wrist = COCO_17.index("left_wrist")
    for coco, mpii, lsp in zip(*sets, strict=True):
        assert not mpii.named[0] and not lsp.named[0] and coco.named.all()
        np.testing.assert_allclose(lsp.keypoints_xy[wrist], coco.keypoints_xy[wrist])
        if mpii.visible[wrist]:
            np.testing.assert_allclose(mpii.keypoints_xy[wrist], coco.keypoints_xy[wrist])
