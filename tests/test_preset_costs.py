"""The benchmark of presets: every artifact has a size and, where an engine runs it, times, load time and memory."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))  # benchmarks is a folder of the checkout, not an installed package

from benchmarks import presets  # noqa: E402


def test_it_measures_and_takes_what_is_there(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(presets, "BASE", ("tiny naive", "onnx"))  # r50-ne4 takes a minute to convert
    kept = ["--presets", "tiny", "--artifacts", str(tmp_path / "kept"), "--formats", "onnx", "coreml"]
    assert presets.main([*kept, "--rounds", "3", "--threads", "1", "--json", str(tmp_path / "rows.json")]) == 0
    rows = json.loads((tmp_path / "rows.json").read_text())["rows"]
    assert [(row["preset"], row["format"]) for row in rows] == [
        ("tiny naive", "onnx"), ("tiny", "onnx"), ("tiny", "coreml"),
    ]  # fmt: skip
    assert all(2 < row["megabytes"] < 12 for row in rows)
    naive, fast, coreml = rows
    assert naive["ratio"] == {"1": 1.0} and min(fast["milliseconds"]["1"], fast["load_s"], fast["peak_mb"]) > 0
    assert fast["ratio"]["1"] == pytest.approx(fast["milliseconds"]["1"] / naive["milliseconds"]["1"])
    assert coreml["milliseconds"] == {} and coreml["load_s"] is None  # nothing here runs it
    assert "ratio" in capsys.readouterr().out
    monkeypatch.setattr(presets, "convert_checkpoint", None)  # would fail
    assert presets.main([*kept, "--rounds", "1", "--threads", "1"]) == 0
