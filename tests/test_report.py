"""The report: one table of formats and precisions, and cells that fail without stopping the rest."""

from __future__ import annotations

import dataclasses
import json

import cv2
import pytest
from converting import lively_model
from photographs import write_data_set

from converters import cells, report
from converters.errors import ConversionError
from converters.report_page import markdown, table
from runtime import weigh
from runtime.errors import PoseError
from tfpose_edge import PRESETS, save_checkpoint

CONFIG = dataclasses.replace(PRESETS["tiny"], num_encoder_layers=0, levels=(5,), num_decoder_layers=1)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The folder of a report on four people in ONNX and, in what it cannot be, ExecuTorch; one cell breaks."""
    folder = tmp_path_factory.mktemp("report")
    save_checkpoint(folder / "best.safetensors", lively_model(CONFIG))
    data = write_data_set(folder / "coco", 6)
    convert_one = cells.convert_one

    def breaks_in_half(source, name, place, options, progress):
        if options.precision == "fp16":
            raise ConversionError("onnx: the export failed: no half here")
        return convert_one(source, name, place, options, progress)

    arguments = ["--data", data, "--crops", "4", "--formats", "onnx", "executorch", "--precisions", "fp32", "fp16"]
    arguments += ["--threads", "1", "--rounds", "3", "--output", str(folder / "out"), "--keep", str(folder / "kept")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cells, "convert_one", breaks_in_half)
        patch.setattr(report, "cells_of", lambda *_: list(cells.cells_of(["onnx"], ["fp32", "fp16"], False))
                      + list(cells.cells_of(["executorch"], ["fp16"], False)))  # fmt: skip
        assert report.main([str(folder / "best.safetensors"), *arguments]) == 0
    return folder


@pytest.fixture(scope="module")
def values(made):
    return json.loads((made / "out" / "report.json").read_text())


def test_a_cell_has_everything(made, values):
    cell = values["cells"][0]
    assert (cell["format"], cell["precision"], cell["mix"], cell["error"]) == ("onnx", "fp32", None, None)
    assert cell["bytes"] == (made / "kept" / "onnx-fp32" / "pose.onnx").stat().st_size
    assert cell["parity"]["images"] == 4 and cell["parity"]["max_px"] < 0.01
    assert cell["parity"]["accuracy"] == cell["parity"]["checkpoint_accuracy"] == values["accuracy"]
    assert cell["export"]["operations"] > 50
    assert 0 < cell["weight"]["load_s"] < cell["weight"]["start_s"] and 20 < cell["weight"]["peak_mb"] < 1000
    latency = cell["latency"]["1"]
    assert 0 < latency["p50_ms"] <= latency["p95_ms"] and latency["cpu_ms"] > 0


def test_cells_that_fail_say_why(values):
    _, broken, impossible = values["cells"]
    assert broken["error"] == "onnx: the export failed: no half here" and broken["latency"] == {}
    assert impossible["error"].startswith("not written; executorch has fp32")


def test_the_page_shows_all_and_the_picture_opens(made, values):
    page = (made / "out" / "report.md").read_text()
    assert page == markdown(values)
    lines = [line for line in page.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in lines}) == 1 and len(lines) == 2 + 3
    assert "* onnx fp16: onnx: the export failed: no half here." in page
    assert str(made) not in page and "4 persons of annotations.json" in page
    assert cv2.imread(str(made / "out" / "report.png")).shape[1] > 500


def test_every_mix_or_the_best():
    names = [cell.name for cell in cells.cells_of(["onnx"], ["fp32", "int8"], True)]
    assert names == ["onnx fp32", "onnx int8 convolutions", "onnx int8 all"]
    assert [cell.name for cell in cells.cells_of(["onnx"], ["int8"], False)] == ["onnx int8 convolutions"]


def test_weighing_what_is_damaged_says_so(made, tmp_path, capsys):
    for name in ("pose.onnx", "pose.onnx.json"):
        (tmp_path / name).write_bytes((made / "kept" / "onnx-fp32" / name).read_bytes())
    (tmp_path / "pose.onnx").write_bytes(b"nothing")
    with pytest.raises(PoseError, match=r"^pose.onnx: its sha256 is not the one in the sidecar"):
        cells.weigh(tmp_path / "pose.onnx")
    assert weigh.main([str(tmp_path / "pose.onnx")]) == 3
    assert capsys.readouterr().err.startswith("error: ")


def test_dashes_stand_for_what_is_not_there():
    empty = report.as_json(cells.Cell("coreml", "fp32", None, error="no"))
    row = table({"threads": [1], "cells": [empty]})[2]
    assert row.startswith("| coreml fp32 | - | - | - | - |")


def test_usage_and_unreadable_data(made, tmp_path, capsys):
    with pytest.raises(SystemExit) as error:
        report.main([str(made / "best.safetensors"), "--data", "a:b", "--formats", "tflite"])
    assert error.value.code == 2 and "executorch" in capsys.readouterr().err
    assert report.main([str(made / "best.safetensors"), "--data", "none.json:none", "--output", str(tmp_path)]) == 4
    assert "none.json" in capsys.readouterr().err
    nowhere = tmp_path / "nowhere" / "best.safetensors"
    assert report.main([str(nowhere), "--data", "none.json:none"]) == 3
    assert not nowhere.parent.exists()
