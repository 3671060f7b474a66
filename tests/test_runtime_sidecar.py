"""Sidecars: every key checked, every byte of the artifact accounted for."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest
from conftest import write_sidecar

import runtime
from runtime.errors import ModelFileError
from runtime.sidecar import Sidecar, artifact_files, sidecar_path

KEYS = list(Sidecar.__dataclass_fields__)


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A folder artifact with two files."""
    folder = tmp_path / "pose.mlpackage"
    (folder / "weights").mkdir(parents=True)
    (folder / "Manifest.json").write_text("{}")
    (folder / "weights" / "weight.bin").write_bytes(b"123")
    return write_sidecar(folder)


def test_a_legal_sidecar_reads_and_verifies(centroid_onnx):
    sidecar = Sidecar.read(centroid_onnx)
    sidecar.verify(centroid_onnx)
    assert sidecar.input_size_wh == (48, 64) and sidecar.skeleton == ((0, 1), (0, 2))
    assert hash(sidecar.keypoint_names) and sidecar.parity is None


def test_a_missing_sidecar_is_named(centroid_onnx):
    sidecar_path(centroid_onnx).unlink()
    with pytest.raises(ModelFileError, match=r"pose\.onnx\.json: no sidecar"):
        Sidecar.read(centroid_onnx)


@pytest.mark.parametrize("text", ["{", "[1]", '"a"', "", "\x00", "[" * 100_000])
def test_a_sidecar_that_is_no_object_is_refused(centroid_onnx, text):
    sidecar_path(centroid_onnx).write_text(text)
    with pytest.raises(ModelFileError, match="JSON"):
        Sidecar.read(centroid_onnx)


@pytest.mark.parametrize("key", [key for key in KEYS if key != "presence_score"])
def test_a_missing_key_is_named(centroid_onnx, edit_sidecar, key):
    edit_sidecar(centroid_onnx, **{key: ...})
    with pytest.raises(ModelFileError, match=key):
        Sidecar.read(centroid_onnx)


WRONG = {
    "format_version": [2, "1", None],
    "files": [{}, [], {"pose.onnx": "abc"}, {"pose.onnx": 3}],
    "input_size_wh": [[48], [0, 64], [48.0, 64], "48x64", [True, 64], [48, 10**9]],
    "input_dtype": ["int8", None, 3],
    "batch": [0, 1.0, "1", True, 10**9],
    "keypoint_names": [[], ["a", "a", "b"], [1, 2, 3], "abc", [""]],
    "skeleton": [[[0, 3]], [[0]], [[0, "1"]], None, [[-1, 0]]],
    "flip_pairs": [[[1, 7]], {}],
    "sigmas": [[0.1], [0.1, 0.1, "x"], [0.1, 0.1, 0.0], None],
    "padding": [0, "1.25", None, True, float("nan")],
    "precision": ["fp8", None],
    "sampler": ["", 4],
    "rewrites": ["all", [1]],
    "engines": [[], {"onnxruntime": 1.32}],
    "parity": [0.01, []],
    "provenance": [None, "me"],
    "presence_score": [-0.1, 1.5, "0.5", True, [0.5]],
}


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in WRONG.items() for value in values])
def test_a_wrong_value_is_named(centroid_onnx, edit_sidecar, key, value):
    edit_sidecar(centroid_onnx, **{key: value})
    with pytest.raises(ModelFileError, match=key):
        Sidecar.read(centroid_onnx)


def test_every_key_has_a_wrong_value_above():
    assert sorted(WRONG) == sorted(KEYS)


def test_unknown_keys_are_ignored(centroid_onnx, edit_sidecar):
    edit_sidecar(centroid_onnx, comment="hello")
    Sidecar.read(centroid_onnx)


@pytest.mark.parametrize(
    "name", ["../pose.onnx", "/pose.onnx", "a/../pose.onnx", "a\\pose.onnx", "./pose.onnx", ".", ""]
)
def test_paths_that_leave_the_folder_are_refused(centroid_onnx, edit_sidecar, name):
    edit_sidecar(centroid_onnx, files={name: "0" * 64})
    with pytest.raises(ModelFileError, match="plain relative paths"):
        Sidecar.read(centroid_onnx)


def test_a_changed_byte_is_found(centroid_onnx):
    sidecar = Sidecar.read(centroid_onnx)
    content = bytearray(centroid_onnx.read_bytes())
    content[len(content) // 2] ^= 1
    centroid_onnx.write_bytes(content)
    with pytest.raises(ModelFileError, match="sha256"):
        sidecar.verify(centroid_onnx)


def test_a_folder_is_listed_with_every_file(package):
    assert artifact_files(package) == ["pose.mlpackage/Manifest.json", "pose.mlpackage/weights/weight.bin"]
    Sidecar.read(package).verify(package)


def test_an_extra_file_in_a_folder_is_refused(package):
    (package / "extra.bin").write_bytes(b"")
    with pytest.raises(ModelFileError, match=r"extra\.bin' is not listed"):
        Sidecar.read(package).verify(package)


def test_a_missing_file_of_a_folder_is_refused(package):
    (package / "weights" / "weight.bin").unlink()
    with pytest.raises(ModelFileError, match=r"weight\.bin' is listed but"):
        Sidecar.read(package).verify(package)


def test_a_file_listed_beyond_the_artifact_is_refused(centroid_onnx, edit_sidecar):
    files = json.loads(sidecar_path(centroid_onnx).read_text())["files"]
    edit_sidecar(centroid_onnx, files=files | {"pose.onnx.data": "0" * 64})
    with pytest.raises(ModelFileError, match=r"pose\.onnx\.data' is listed but"):
        Sidecar.read(centroid_onnx).verify(centroid_onnx)


def test_a_link_is_refused(package):
    (package / "Manifest.json").unlink()
    os.symlink("/etc/hostname", package / "Manifest.json")
    with pytest.raises(ModelFileError, match="symbolic link"):
        Sidecar.read(package).verify(package)


def test_ir_without_its_weights_is_refused(tmp_path):
    (tmp_path / "pose.xml").write_text("<net/>")
    with pytest.raises(ModelFileError, match=r"pose\.bin: missing"):
        artifact_files(tmp_path / "pose.xml")


def test_a_file_that_may_not_be_read_is_a_model_file_error(centroid_onnx, monkeypatch):
    sidecar = Sidecar.read(centroid_onnx)

    def closed(*args):
        raise PermissionError(13, "Permission denied")

    for where, name in ((hashlib, "file_digest"), (Path, "read_bytes")):
        with monkeypatch.context() as patch, pytest.raises(ModelFileError, match="cannot be read: Permission denied"):
            patch.setattr(where, name, closed)
            sidecar.verify(centroid_onnx) if where is hashlib else runtime.NetworkDetector(centroid_onnx)
