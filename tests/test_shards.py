"""Tar shards: packing, reading by us and by webdataset, foreign shards, and runs on them."""

from __future__ import annotations

import dataclasses
import io
import json
import tarfile

import cv2
import numpy as np
import pytest
import torch
from photographs import write_data_set

from runtime.errors import InputError
from runtime.skeleton import COCO_17, LSP_14
from tfpose_edge import PRESETS, load_checkpoint
from training.data import pack as packing
from training.data.augmentation import Augmentation
from training.data.dataset import PhotographedPeople
from training.data.pack import pack
from training.data.picture import read_image
from training.data.reading import load_persons
from training.data.shards import index_path, read_index, scan, shard_paths
from training.data.spec import DataSpec
from training.engine import loader
from training.options import Options
from training.run import RunFolder
from training.train import train

TINY = PRESETS["tiny"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data_set(tmp_path_factory.mktemp("coco"), 7)


@pytest.fixture
def shards(data, tmp_path):
    pack(DataSpec.parse(data), tmp_path / "shards", persons_per_shard=3)
    return tmp_path / "shards"


def add(archive, name, content):
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


def same(one, two):
    return all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


def test_packed_persons_are_the_same(data, shards):
    assert sorted(p.name for p in shards.glob("*.tar")) == ["000000.tar", "000001.tar", "000002.tar"]
    before, after = load_persons(DataSpec.parse(data)), load_persons(DataSpec.parse(str(shards)))
    assert after.names == before.names and after.image_ids == before.image_ids
    for a, b in zip(before.persons, after.persons, strict=True):
        assert (a.annotation_id, a.image_id, a.crowd) == (b.annotation_id, b.image_id, b.crowd)
        np.testing.assert_array_equal(a.visible, b.visible)
        np.testing.assert_allclose(b.keypoints_xy, a.keypoints_xy, atol=1e-9)
        np.testing.assert_allclose(b.box_xyxy, a.box_xyxy, atol=1e-9)
        assert (b.area, b.head_size) == (pytest.approx(a.area), pytest.approx(a.head_size))
        np.testing.assert_array_equal(read_image(b.image_path), read_image(a.image_path))


def test_webdataset_reads_what_pack_wrote(data, shards):
    import webdataset

    urls = [str(path) for path in shard_paths(shards)]
    samples = list(webdataset.WebDataset(urls, shardshuffle=False).decode("rgb8"))
    persons = load_persons(DataSpec.parse(data)).persons
    assert [sample["__key__"] for sample in samples] == [f"{i:08}" for i in range(7)]
    for sample, person in zip(samples, persons, strict=True):
        np.testing.assert_array_equal(sample["png"][..., ::-1], read_image(person.image_path))
        assert sample["json"]["keypoint_names"] == list(COCO_17) and sample["json"]["id"] == person.annotation_id
        rows = np.reshape(sample["json"]["keypoints"], (17, 3))
        np.testing.assert_allclose(rows[rows[:, 2] > 0, :2] + 0.5, person.keypoints_xy[person.visible > 0])


def test_packing_twice_gives_the_same_bytes(data, shards, tmp_path):
    again = pack(DataSpec.parse(data), tmp_path / "again", persons_per_shard=3)
    for path in again:
        assert path.read_bytes() == (shards / path.name).read_bytes()


def test_a_shard_without_an_index_is_scanned(shards):
    indexed = [read_index(path) for path in shard_paths(shards)]
    for path in shard_paths(shards):
        index_path(path).unlink()
    assert [read_index(path) for path in shard_paths(shards)] == indexed == [scan(p) for p in shard_paths(shards)]


def test_an_index_of_other_bytes_is_refused(shards):
    with (shards / "000001.tar").open("ab") as file:
        file.write(b"\0" * 512)
    with pytest.raises(InputError, match=r"000001\.tar\.json: belongs to other bytes"):
        load_persons(DataSpec.parse(str(shards)))
    index_path(shards / "000001.tar").write_text("[]")
    with pytest.raises(InputError, match="not a shard's index"):
        load_persons(DataSpec.parse(str(shards)))


def test_names_with_braces_and_ranges(shards):
    found = load_persons(DataSpec.parse(f"{shards}/{{000000..000002}}.tar:3-5"))
    assert [p.annotation_id for p in found.persons] == [102, 103, 104]
    assert found.image_ids == [3, 4, 5] and found.other_image_ids == {1, 2, 6, 7}
    assert len(load_persons(DataSpec.parse(f"{shards}/000002.tar")).persons) == 1
    with pytest.raises(InputError, match=r"000003\.tar: no such shard"):
        load_persons(DataSpec.parse(f"{shards}/{{000002..000003}}.tar"))
    with pytest.raises(InputError, match=r"\{9\.\.3\} is not a range"):
        load_persons(DataSpec.parse(f"{shards}/{{9..3}}.tar"))
    with pytest.raises(InputError, match="no samples in 8-9; there are 7"):
        load_persons(DataSpec.parse(f"{shards}:8-9"))


def test_foreign_shards(tmp_path):
    """Made with tar alone: other key points, no ids, folders, members that mean nothing here."""
    picture = cv2.imencode(".jpg", np.full((60, 40, 3), 90, np.uint8))[1].tobytes()
    lsp = {"keypoint_names": ["neck", "left_hip"], "keypoints": [10, 20, 2, 30, 40, 1], "bbox": [5, 5, 30, 50]}
    coco = {"keypoint_names": ["nose"], "keypoints": [1, 2, 2], "bbox": [0, 0, 9, 9], "image_id": 7}
    with tarfile.open(tmp_path / "some.tar", "w") as archive:
        for name, content in [("a/x.y.txt", b"?"), ("a/1.cls", b"4"), ("a/1.jpg", picture), ("a/1.json", lsp),
                              ("b/1.json", coco), ("b/1.jpg", picture)]:  # fmt: skip
            add(archive, name, json.dumps(content).encode() if isinstance(content, dict) else content)
    found = load_persons(DataSpec.parse(f"{tmp_path / 'some.tar'}"))
    assert found.names == ("neck", "left_hip", "nose") and found.image_ids == [8, 7]
    first, second = found.persons
    assert first.keypoints_xy.tolist() == [[10.5, 20.5], [30.5, 40.5], [0, 0]] and first.named.tolist() == [1, 1, 0]
    assert second.visible.tolist() == [0, 0, 2] and second.annotation_id == 1
    assert read_image(first.image_path).shape == (60, 40, 3) and first.image_path.name == "a/1.jpg"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "a sample must be a picture and a JSON object"),
        (b"[1]", "a sample must be a picture and a JSON object"),
        (b'{"keypoint_names": ["nose"], "keypoints": [1, 2], "bbox": [0, 0, 9, 9]}', "must be 3 finite numbers"),
        (b'{"keypoints": [1, 2, 2], "bbox": [0, 0, 9, 9]}', "'keypoint_names' must be a list of names"),
        (b'{"keypoint_names": ["nose"], "keypoints": [1, 2, 2], "bbox": [0, 0, 0, 9]}', "both sizes above 0"),
    ],
)
def test_broken_samples_are_named(tmp_path, content, message):
    with tarfile.open(tmp_path / "some.tar", "w") as archive:
        add(archive, "1.jpg", b"later")
        add(archive, "1.json", b'{"keypoint_names": ["nose"], "keypoints": [1, 2, 2], "bbox": [0, 0, 9, 9]}')
        add(archive, "2.jpg", b"later")
        add(archive, "2.json", content)
    with pytest.raises(InputError, match=f"1 of 2 records are unusable .*annotation .*{message}"):
        load_persons(DataSpec.parse(f"{tmp_path / 'some.tar'}"))


def test_damaged_shards(shards):
    for path in shard_paths(shards):
        index_path(path).unlink()
    whole = (shards / "000000.tar").read_bytes()
    with tarfile.open(shards / "000000.tar") as archive:
        third = archive.getmembers()[4].offset  # between two samples
    for damaged in (whole[: len(whole) // 2], whole[:third], b"no tar" * 1000, b""):
        (shards / "000000.tar").write_bytes(damaged)
        with pytest.raises(InputError, match=r"000000\.tar: not a readable tar shard"):
            load_persons(DataSpec.parse(str(shards)))


@pytest.mark.parametrize("workers", [0, 2])
def test_items_are_bit_identical_to_those_of_the_pictures(data, shards, workers):
    found = [load_persons(DataSpec.parse(text), TINY.keypoint_names).labelled for text in (data, str(shards))]
    sets = [PhotographedPeople(persons, TINY, Augmentation(), 3) for persons in found]
    keys = [[(1, 4), (1, 0)], [(2, 6), (2, 5)]]
    plain, packed = (list(loader(people, keys, count)) for people, count in zip(sets, (0, workers), strict=True))
    assert all(same(a, b) for a, b in zip(plain, packed, strict=True))


def test_a_run_on_shards_resumes_within_an_epoch(data, shards, tmp_path, monkeypatch):
    """Equal to the run on the pictures themselves, and to itself without the stop, bit by bit."""

    def options(output, text):
        return Options(train=(text,), output=tmp_path / output, batch_size=2, epochs=2, workers=0, threads=1)

    plain, straight = train(options("plain", data)), train(options("straight", str(shards)))
    stops = iter([False, False, False, False, False, True])
    with monkeypatch.context() as patch:
        patch.setattr("training.session.Session._must_stop", lambda self: next(stops, True))
        train(options("broken", str(shards)))
    progress, _ = RunFolder(tmp_path / "broken").load_state()
    assert (progress.epoch, progress.batch) == (1, 1)
    broken = train(dataclasses.replace(options("broken", str(shards)), resume=True))
    weights = [load_checkpoint(folder / "last.safetensors").state_dict() for folder in (plain, straight, broken)]
    assert all(torch.equal(weights[0][k], w[k]) for k in weights[0] for w in weights[1:])
    losses = [[r["loss"] for r in RunFolder(f).read_log() if r["kind"] == "epoch"] for f in (plain, straight, broken)]
    assert losses[0] == losses[1] == losses[2] and len(losses[0]) == 2


def test_pack_command(data, tmp_path, capsys):
    output = tmp_path / "new" / "shards"
    assert packing.main([data, "--output", str(output), "--persons-per-shard", "5"]) == 0
    assert "2 shards in" in capsys.readouterr().out
    assert {p.name for p in output.iterdir()} == {f"00000{i}.tar{end}" for i in (0, 1) for end in ("", ".json")}
    for more, message in [
        (["--output", str(output)], "holds shards already"),
        (["--output", str(tmp_path / "x"), "--persons-per-shard", "0"], "must be at least 1"),
    ]:
        assert packing.main([data, *more]) == 4
        assert message in capsys.readouterr().err
    assert packing.main(["nothing", "--output", str(tmp_path / "x")]) == 4
    assert not (tmp_path / "x").exists()


def test_ignored_persons_are_packed_when_asked_for(tmp_path):
    spec = DataSpec.parse(write_data_set(tmp_path / "set", 3, LSP_14))
    content = json.loads(spec.annotations.read_text())
    content["annotations"][0]["keypoints"] = [0] * 42
    content["annotations"][1]["iscrowd"] = 1
    spec.annotations.write_text(json.dumps(content))
    for ignored, count in [(False, 1), (True, 3)]:
        pack(spec, tmp_path / str(ignored), ignored=ignored)
        found = load_persons(DataSpec.parse(str(tmp_path / str(ignored))))
        assert len(found.persons) == count and len(found.labelled) == 1


def test_pictures_that_cannot_be_read_are_not_packed(tmp_path, capsys):
    spec = DataSpec.parse(write_data_set(tmp_path / "set", 2))
    content = json.loads(spec.annotations.read_text())
    content["annotations"] = [{**content["annotations"][i == 7], "id": i} for i in range(120)]
    spec.annotations.write_text(json.dumps(content))
    (spec.images / "001.png").write_bytes(b"no picture")
    assert len(load_persons(DataSpec.parse(str(pack(spec, tmp_path / "shards")[0]))).persons) == 119
    assert "1 of 120 persons could not be used: annotation 7: " in capsys.readouterr().err
