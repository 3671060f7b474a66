"""Packed people: the same crops from a small file, and the recipe that trains on it."""

from __future__ import annotations

import json
import shutil
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from photographs import write_data_set

from runtime.errors import InputError
from runtime.skeleton import COCO_17
from tfpose_edge import PRESETS, read_provenance
from training.data.damage import Damage
from training.data.dataset import PhotographedPeople
from training.data.packed import FORMAT, read_people, shrink, shrunk, write_people
from training.data.persons import Person
from training.data.recipe import SOURCES, packed_people, times_per_epoch
from training.data.rendered import render_person
from training.options import Options, with_defaults
from training.people import training_people
from training.train import main

TINY = PRESETS["tiny"]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_data_set(folder / "fashion_train", 5, seed=1)
    write_data_set(folder / "lspet", 4, seed=2)
    return folder


def persons_of(folder, count=4):
    found = []
    for i in range(count):
        person = render_person(np.random.default_rng([5, i]), (320, 400))
        path = folder / f"{i}.png"
        cv2.imwrite(str(path), person.image)
        named = np.ones(17, bool)
        found.append(Person(path, i, i, person.keypoints_xy, person.visible, named, person.box_xyxy, person.area))
    return found


def small(persons, **sizes):
    return shrunk(persons, Damage(len(persons), "persons"), **sizes)


def test_crops_of_packed_people_are_those_of_the_pictures(tmp_path):
    """Up to the small picture's whole px, a third of a px of the crop, its blur and the JPEG's loss."""
    persons = persons_of(tmp_path)
    plain, packed = PhotographedPeople(persons, TINY), PhotographedPeople(small(persons, quality=95), TINY)
    for i in range(len(persons)):
        expected, found = plain[0, i], packed[0, i]
        labelled = expected.labelled
        torch.testing.assert_close(found.keypoints[labelled], expected.keypoints[labelled], atol=3e-3, rtol=0)
        assert torch.equal(found.labelled, labelled)
        assert found.area_px.item() == pytest.approx(expected.area_px.item(), rel=0.02)
        difference = (found.crops.float() - expected.crops.float()).abs().mean()
        moved = (found.crops.float() - expected.crops.float().roll(2, -1)).abs().mean()
        assert difference < 4 and difference < 0.6 * moved  # a shift by 2 px would be seen


def test_pictures_are_never_enlarged_and_keep_their_region(tmp_path):
    (person,) = persons_of(tmp_path, 1)
    image = cv2.imread(str(person.image_path))
    for height_px in (64, 4096):
        small = shrink(person, image, "a", height_px, 90)
        height, width = cv2.imdecode(np.frombuffer(small.image_path.read_bytes(), np.uint8), 1).shape[:2]
        assert height <= min(height_px, image.shape[0]) and width <= image.shape[1]
        scale = np.sqrt(small.area / person.area)
        sides, wanted = (np.ptp(p.box_xyxy.reshape(2, 2), axis=0) for p in (small, person))
        assert np.allclose(sides, scale * wanted, rtol=0.03)


def test_round_trip_of_the_file(tmp_path):
    sources = {"a": small(persons_of(tmp_path, 2)), "b": [], "c": small(persons_of(tmp_path, 1))}
    write_people(tmp_path / "people.npz", sources, COCO_17, {"a": "hash"})
    again, origins = read_people(tmp_path / "people.npz", COCO_17)
    assert origins == {"a": "hash"}
    assert {name: len(found) for name, found in again.items()} == {"a": 2, "b": 0, "c": 1}
    for person, wanted in zip(again["a"] + again["c"], sources["a"] + sources["c"], strict=True):
        assert person.image_path.read_bytes() == wanted.image_path.read_bytes()
        assert np.allclose(person.keypoints_xy, wanted.keypoints_xy, atol=1e-4)
        assert np.array_equal(person.visible, wanted.visible) and np.array_equal(person.named, wanted.named)
        assert np.array_equal(person.box_xyxy, wanted.box_xyxy) and person.area == wanted.area
        assert np.array_equal(person.beside_xyxy, wanted.beside_xyxy)


def test_others_in_the_picture_are_remembered(root, tmp_path):
    """So that no crop shows them as an empty place; where they are unknown, no place is empty."""
    first, alone = persons_of(tmp_path, 2)
    second = replace(first, annotation_id=7, box_xyxy=first.box_xyxy + 30)
    both = small([first, second, alone])
    assert [len(person.beside_xyxy) for person in both] == [1, 1, 0]
    sides = np.ptp(both[0].box_xyxy.reshape(2, 2), axis=0) / np.ptp(first.box_xyxy.reshape(2, 2), axis=0)
    assert np.allclose(both[0].beside_xyxy[0] - both[0].box_xyxy, 30 * np.tile(sides, 2))
    write_people(tmp_path / "people.npz", {"a": both}, COCO_17, {})
    again = PhotographedPeople(read_people(tmp_path / "people.npz", COCO_17)[0]["a"], TINY)
    assert [again._boxes_beside(person).shape for person in again.persons] == [(1, 4), (1, 4), (0, 4)]
    (rendered,) = packed_people(root, tmp_path / "r.npz", tuple(COCO_17), print, 1)["rendered"]
    x1, y1, x2, y2 = rendered.beside_xyxy[0]
    height, width = cv2.imdecode(np.frombuffer(rendered.image_path.read_bytes(), np.uint8), 1).shape[:2]
    assert x1 <= 0 and y1 <= 0 and x2 >= width - 1 and y2 >= height - 1


def test_damaged_pictures_are_left_out_and_said(tmp_path):
    persons, said = persons_of(tmp_path, 4), []
    persons[1].image_path.write_bytes(b"no picture")
    damage = Damage(400, "persons", warn=said.append)
    assert [person.annotation_id for person in shrunk(persons, damage)] == [0, 2, 3]
    assert len(damage.problems) == len(said) == 1 and "annotation 1" in said[0]
    with pytest.raises(InputError, match="at most 1% may be"):
        small(persons)


def test_files_that_are_something_else_are_refused(tmp_path):
    path = tmp_path / "people.npz"
    path.write_bytes(b"no people")
    with pytest.raises(InputError, match="not a file of packed people"):
        read_people(path, COCO_17)
    write_people(path, {"a": small(persons_of(tmp_path, 1))}, COCO_17, {})
    with pytest.raises(InputError, match="holds other key points"):
        read_people(path, COCO_17[:3])
    np.savez(path, head=np.frombuffer(json.dumps({"format": FORMAT}).encode(), np.uint8))
    with pytest.raises(InputError, match="not a file of packed people"):
        read_people(path, COCO_17)


def test_the_recipe_packs_what_is_there_and_says_what_is_not(root, tmp_path):
    said = []
    found = packed_people(root, tmp_path / "people.npz", tuple(COCO_17), said.append, 3)
    assert {name: len(persons) for name, persons in found.items()} == {"lspet": 4, "fashion_train": 5, "rendered": 3}
    assert sum("goes without it" in line for line in said) == len(SOURCES) - 2 and "12 people packed" in said[-1]
    for wanted, message in ((5, "has 3 rendered people, --rendered is 5"), (3, None)):
        with pytest.raises(InputError, match=message) if message else nullcontext():
            packed_people(None, tmp_path / "people.npz", tuple(COCO_17), said.append, wanted)
    shutil.copytree(root / "lspet", tmp_path / "more" / "coco_train")
    with pytest.raises(InputError, match=r"people\.npz: has not coco_train; remove it"):
        packed_people(tmp_path / "more", tmp_path / "people.npz", tuple(COCO_17), said.append, 3)
    shutil.copytree(root, tmp_path / "changed")
    write_data_set(tmp_path / "other", 5)
    (tmp_path / "other" / "annotations.json").replace(tmp_path / "changed" / "lspet" / "annotations.json")
    with pytest.raises(InputError, match=r"people\.npz: was made of other data \(lspet\); remove it"):
        packed_people(tmp_path / "changed", tmp_path / "people.npz", tuple(COCO_17), said.append, 3)
    with pytest.raises(InputError, match="has none of lsp_train, lspet"):
        packed_people(tmp_path, tmp_path / "others.npz", tuple(COCO_17), said.append, 0)


def test_development_pictures_are_never_trained_on():
    assert {source.folder: source.images for source in SOURCES if source.images} == {
        "lsp_train": "1-900", "coco_train": "1-80"
    }  # fmt: skip


def test_sources_are_shown_as_often_as_the_recipe_says(root, tmp_path):
    options = Options(
        recipe="packaged", data_root=root, packed=tmp_path / "people.npz", rendered=2, output=tmp_path / "run"
    )
    data, _ = training_people(with_defaults(options), TINY, lambda text: None)
    assert len(data) == 4 * times_per_epoch("lspet") + 5 * times_per_epoch("fashion_train") + 2
    assert times_per_epoch("lsp_train") > times_per_epoch("lspet") == 1


def test_the_recipe_trains_and_needs_its_data_once(root, tmp_path, capsys):
    shared = ["--recipe", "packaged", "--rendered", "3", "--epochs", "1", "--batch-size", "4", "--workers", "0"]
    assert main([*shared, "--data-root", str(root), "--output", str(tmp_path / "first")]) == 0
    assert Path(tmp_path / "people.npz").is_file()
    assert main([*shared, "--output", str(tmp_path / "second")]) == 0
    first, second = (read_provenance(tmp_path / name / "last.safetensors") for name in ("first", "second"))
    assert first == {**second, "minutes": first["minutes"]}
    assert first["data"] == ["the recipe 'packaged'"]
    assert main([*shared, "--packed", str(tmp_path / "none.npz"), "--output", str(tmp_path / "third")]) == 4
    assert "--data-root is needed" in capsys.readouterr().err


def test_usage_errors(tmp_path):
    with pytest.raises(ValueError, match="brings its own people"):
        with_defaults(Options(recipe="packaged", train=("a.json:b",)))
    with pytest.raises(ValueError, match="belong to --recipe packaged"):
        with_defaults(Options(packed=tmp_path / "people.npz"))
