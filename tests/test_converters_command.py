"""The command line: what it refuses, with which exit code, and that a failure leaves nothing behind."""

from __future__ import annotations

import dataclasses
import json
import os

import numpy as np
import pytest
from converting import blob_crops, lively_model

from converters import formats, graph, onnx
from converters.__main__ import main
from converters.errors import ConversionError
from converters.recipe import Recipe
from runtime.sidecar import Sidecar
from tfpose_edge import PRESETS, save_checkpoint
from training.data.calibration import Subjects

CONFIG = dataclasses.replace(PRESETS["tiny"], num_encoder_layers=0, levels=(5,), num_decoder_layers=1)


@pytest.fixture(scope="module")
def lively():
    return lively_model(CONFIG)


@pytest.fixture(scope="module")
def contents(lively, tmp_path_factory):
    """ONNX files: right, with other weights, with its outputs swapped."""

    class Swapped(graph.ExportGraph):
        def forward(self, crops):
            return super().forward(crops)[::-1]

    other = lively_model(CONFIG)
    other.keypoint_heads[0].layers[-1].weight.data *= 1.01
    folder = tmp_path_factory.mktemp("contents")
    made = {"right": graph.ExportGraph(lively, "gather"), "other": graph.ExportGraph(other, "gather")}
    made["swapped"] = Swapped(lively, "gather")
    for name, one in made.items():
        onnx.convert(one, one.example(1, "uint8"), folder / name, Recipe())
    return {name: (folder / name).read_bytes() for name in made}


@pytest.fixture
def checkpoint(lively, tmp_path, monkeypatch):
    """A checkpoint in a folder of its own; conversions compare few crops."""
    monkeypatch.setattr("training.data.calibration.subjects", blobs(blob_crops(CONFIG, 5)))
    monkeypatch.setattr("training.data.calibration.empty_crops", lambda *_: blob_crops(CONFIG, 2))
    (tmp_path / "run").mkdir()
    save_checkpoint(tmp_path / "run" / "best.safetensors", lively)
    return tmp_path / "run" / "best.safetensors"


def blobs(crops):
    """A stand-in for `subjects` that finds these crops, and no others."""
    return lambda *_, **__: (Subjects(crops, np.zeros((len(crops), 2, 3))), None)


@pytest.fixture
def writes(contents, monkeypatch):
    """Let the exporter write one of the ready-made files."""

    def choose(name):
        monkeypatch.setattr(
            "converters.conversion.write_artifact",
            lambda format_name, graph, example, path, recipe: path.write_bytes(contents[name]) and {},
        )

    return choose


def files(folder):
    return sorted(path.name for path in folder.rglob("*"))


def fails(capsys, arguments, exit_code, text):
    """Run, and expect one line on stderr with `text`."""
    assert main([str(argument) for argument in arguments]) == exit_code
    (line,) = [line for line in capsys.readouterr().err.splitlines() if " s  " not in line]
    assert line.startswith("error: ") and text in line


def refused(capsys, arguments, text):
    """Run, and expect a usage error with `text`."""
    with pytest.raises(SystemExit) as error:
        main([str(argument) for argument in arguments])
    assert error.value.code == 2
    assert text in capsys.readouterr().err


def test_artifact_and_sidecar_appear_beside_the_checkpoint(checkpoint, writes, capsys):
    writes("right")
    assert main([str(checkpoint), "--to", "onnx", "onnx", "--rewrites", "none"]) == 0
    assert files(checkpoint.parent) == ["best.safetensors", "pose.onnx", "pose.onnx.json"]
    sidecar = Sidecar.read(checkpoint.parent / "pose.onnx")
    assert sidecar.sampler == "grid_sample" and sidecar.rewrites == ()
    assert sidecar.parity["images"] == 5 and sidecar.parity["max_px"] < 1e-3
    out, err = capsys.readouterr()
    assert out.splitlines()[0].startswith("format") and len(out.splitlines()) == 2
    assert "onnx: exporting" in err and "onnx: comparing 5 crops" in err


def test_other_weights_fail_and_leave_no_artifact(checkpoint, writes, capsys):
    writes("other")
    fails(capsys, [checkpoint, "--to", "onnx"], 3, "onnx: key points differ by up to")
    assert files(checkpoint.parent) == ["best.safetensors"]


def test_a_failure_leaves_older_artifacts(checkpoint, writes, capsys):
    writes("right")
    assert main([str(checkpoint), "--to", "onnx"]) == 0
    before = {path.name: path.read_bytes() for path in checkpoint.parent.iterdir()}
    writes("other")
    assert main([str(checkpoint), "--to", "onnx"]) == 3
    assert {path.name: path.read_bytes() for path in checkpoint.parent.iterdir()} == before


def test_accept_writes_it_and_says_so(checkpoint, writes, capsys):
    writes("other")
    assert main([str(checkpoint), "--to", "onnx", "--accept"]) == 0
    parity = Sidecar.read(checkpoint.parent / "pose.onnx").parity
    assert parity["accepted"] and parity["max_px"] > 0.05
    assert "over the limit" in capsys.readouterr().out


def test_swapped_outputs_are_found(checkpoint, writes, capsys):
    writes("swapped")
    fails(capsys, [checkpoint, "--to", "onnx", "--accept"], 3, "have shapes [(1, 17), (1, 17, 2)]")
    assert files(checkpoint.parent) == ["best.safetensors"]


def test_a_later_format_that_fails_leaves_nothing_of_the_earlier(checkpoint, contents, monkeypatch, capsys, tmp_path):
    def write(name, graph, example, path, recipe):
        path.write_bytes(contents["right"][: None if name == "onnx" else 100])
        if name != "onnx":
            raise RuntimeError("no space\nor so")

    monkeypatch.setattr("converters.conversion.write_artifact", write)
    arguments = [checkpoint, "--to", "onnx", "openvino", "--output", tmp_path / "new" / "out"]
    fails(capsys, arguments, 3, "openvino: the export failed: no space (--debug shows all)")
    assert not (tmp_path / "new" / "out").exists()
    with pytest.raises(ConversionError):
        main([str(argument) for argument in [*arguments, "--debug"]])


def test_interruption(checkpoint, monkeypatch, capsys):
    def write(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("converters.conversion.write_artifact", write)
    fails(capsys, [checkpoint, "--to", "onnx"], 130, "interrupted")
    assert files(checkpoint.parent) == ["best.safetensors"]


def test_a_damaged_artifact_does_not_pass(checkpoint, monkeypatch, capsys):
    monkeypatch.setattr("converters.conversion.write_artifact", lambda *a: a[3].write_bytes(b"nothing") and {})
    fails(capsys, [checkpoint, "--to", "onnx"], 3, "onnxruntime cannot load it")
    assert files(checkpoint.parent) == ["best.safetensors"]


def test_a_model_that_does_not_move_is_reported(checkpoint, writes, contents, lively, monkeypatch, capsys):
    still = np.repeat(blob_crops(CONFIG, 1), 3, axis=0)
    monkeypatch.setattr("training.data.calibration.subjects", blobs(still))
    writes("right")
    assert main([str(checkpoint), "--to", "onnx"]) == 0
    assert "parity is not meaningful" in capsys.readouterr().err
    assert Sidecar.read(checkpoint.parent / "pose.onnx").parity["meaningful"] is False


def test_json(checkpoint, writes, tmp_path):
    writes("right")
    assert main([str(checkpoint), "--to", "onnx", "--json", str(tmp_path / "a.json")]) == 0
    (row,) = json.loads((tmp_path / "a.json").read_text())
    assert row["format"] == "onnx" and row["file"] == str(checkpoint.parent / "pose.onnx")
    assert row["bytes"] == os.path.getsize(row["file"]) and row["parity"]["within_1px"] == 1


def test_json_where_none_can_be_written_is_refused_before_any_work(checkpoint, tmp_path, capsys, monkeypatch):
    def no_work(*_):
        raise AssertionError("work before the target was checked")

    monkeypatch.setattr("converters.__main__.convert_checkpoint", no_work)
    refused(capsys, [checkpoint, "--to", "onnx", "--json", tmp_path / "none" / "a.json"], "there is no folder")
    refused(capsys, [checkpoint, "--to", "onnx", "--json", tmp_path], "it is a folder")


def test_json_in_the_folder_that_the_conversion_makes(checkpoint, writes, tmp_path):
    writes("right")
    out = tmp_path / "out"
    assert main([str(checkpoint), "--to", "onnx", "--output", str(out), "--json", str(out / "a.json")]) == 0
    assert files(out) == ["a.json", "pose.onnx", "pose.onnx.json"]


def test_the_sidecar_names_files_without_their_folders(lively, checkpoint, writes):
    training = {
        "data": ["/home/me/coco/ann.json:/home/me/images:1-900", r"C:\me\ann.json:D:\me\images"],
        "weights": {"file": "/w/resnet.pth", "url": "https://a.org/b/c.pth", "relative": "runs/x", "n": 3},
        "words": "8 persons / image",
    }
    save_checkpoint(checkpoint, lively, training)
    writes("right")
    arguments = [str(checkpoint), "--to", "onnx", "--calibration", "/home/me/val.json:/home/me/images"]
    assert main(arguments) == 0
    provenance = Sidecar.read(checkpoint.parent / "pose.onnx").provenance
    assert provenance["parity_crops"] == "persons of val.json"
    assert provenance["training"] == {
        "data": ["ann.json:images:1-900", "ann.json:images"],
        "weights": {"file": "resnet.pth", "url": "https://a.org/b/c.pth", "relative": "runs/x", "n": 3},
        "words": "8 persons / image",
    }


@pytest.mark.parametrize(
    ("content", "text"),
    [(None, "no such checkpoint"), (b"", "not a readable .safetensors"), (b"x" * 100, "not a readable .safetensors")],
)
def test_what_is_not_a_checkpoint(tmp_path, content, text, capsys):
    path = tmp_path / "a.safetensors"
    if content is not None:
        path.write_bytes(content)
    before = files(tmp_path)
    fails(capsys, [path, "--to", "onnx"], 3, text)
    assert files(tmp_path) == before


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--to", "tflite"], "executorch"),
        (["--to", "onnx", "--sampler", "nearest"], "grid_sample"),
        (["--to", "openvino", "onnx", "--sampler", "bag"], "onnx cannot hold the sampler 'bag'; legal are auto"),
        (["--to", "executorch", "--sampler", "bag"], "legal are auto, float_gather, gather, tent"),
        (["--to", "onnx", "--rewrites", "fold_everything"], "legal are all, none, fold_normalisation"),
        (["--to", "onnx", "--batch", "0"], "not an integer in 1..1024"),
        (["--to", "onnx", "--delegate", "coreml"], "--delegate coreml is for executorch, which --to does not name"),
        (["--to", "executorch", "--delegate", "metal"], "xnnpack"),
        (["--to", "executorch", "--precision", "fp16"], "executorch is not written in fp16; legal are fp32"),
        (["--to", "onnx", "--precision", "int8", "--mix", "palette"], "legal are auto, convolutions, all"),
        (["--to", "onnx", "--mix", "all"], "onnx has no mix 'all' of fp32; legal are auto"),
        (["--to", "coreml", "onnx", "--image-input"], "--image-input is Core ML's, one image at a time"),
        (["--to", "coreml", "--batch", "2", "--image-input"], "--to coreml --batch 1"),
        (["--to", "onnx", "--crops", "0"], "not an integer in 1..1024"),
        (["--to", "onnx", "--precision", "fp8"], "int8"),
        ([], "--to"),
    ],
)
def test_usage_errors_list_what_is_legal(arguments, text, capsys):
    refused(capsys, ["a.safetensors", *arguments], text)


def test_a_missing_package_is_answered_with_the_install_line(checkpoint, monkeypatch, capsys):
    row = formats.FORMATS["onnx"]._replace(packages=("no_such_package",))
    monkeypatch.setitem(formats.FORMATS, "onnx", row)
    text = "onnx needs no_such_package, not installed here: pip install tfpose-edge[convert]"
    fails(capsys, [checkpoint, "--to", "onnx"], 5, text)


def test_unreadable_calibration_data(lively, tmp_path, capsys):
    save_checkpoint(tmp_path / "best.safetensors", lively)
    fails(capsys, [tmp_path / "best.safetensors", "--to", "onnx", "--calibration", "none.json:none"], 4, "none.json")


def test_an_output_that_is_a_file(checkpoint, writes, tmp_path, capsys):
    writes("right")
    (tmp_path / "out").write_text("a file")
    fails(capsys, [checkpoint, "--to", "onnx", "--output", tmp_path / "out"], 3, "cannot write")
    assert (tmp_path / "out").read_text() == "a file"


@pytest.mark.parametrize("name", ["best.safetensors", "pose.onnx", "pose.onnx.json"])
def test_the_table_takes_nobody_s_place(tmp_path, capsys, name):
    (tmp_path / name).write_bytes(b"mine")
    with pytest.raises(SystemExit) as error:
        main([str(tmp_path / "best.safetensors"), "--to", "onnx", "--json", str(tmp_path / name)])
    assert error.value.code == 2 and "the table needs its own name" in capsys.readouterr().err
    assert (tmp_path / name).read_bytes() == b"mine"
