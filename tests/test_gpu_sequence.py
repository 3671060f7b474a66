"""The commands that docs/recipe.md gives for one GPU: teacher, then student in pieces, with small networks on a CPU."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from photographs import write_data_set

from tfpose_edge import PRESETS, load_checkpoint, read_provenance
from training.train import main

SMALL = ["--rendered", "4", "--workers", "0", "--threads", "1", "--precision", "fp32"]
SIZES = ["--change", "input_size_wh=64,96", "heatmap_channels=32", "backbone_width=8", "d_model=32", "ffn_dim=32"]


def commands():
    """The sequence, line by line, as lists of arguments."""
    text = (Path(__file__).parent.parent / "docs" / "recipe.md").read_text(encoding="utf-8")
    blocks = text.split("### On one GPU")[1].split("\n## ")[0].split("```")[1::2]
    return [shlex.split(line)[3:] for block in blocks for line in block.strip().splitlines()]


def test_the_sequence_of_commands(tmp_path, monkeypatch):
    """Every option is as it stands there but sizes, epochs and minutes."""
    write_data_set(tmp_path / "DIR" / "lspet", 4)
    monkeypatch.chdir(tmp_path)
    pack, teacher, student, again, smaller = commands()
    assert again == [*student, "--resume"] and all(float(c[c.index("--max-minutes") + 1]) <= 9 for c in commands())
    assert main([*pack, "--batch-size", "4", "--epochs", "2", *SMALL]) == 0
    packed = Path("runs/people.npz").read_bytes()
    for command in (teacher, student, again, smaller):
        given = list(command)
        given[given.index("--batch-size") + 1], given[given.index("--epochs") + 1] = "4", "2"
        if "r50-ne4" in given:
            given[given.index("r50-ne4")] = "tiny"
        if command is student:
            given[given.index("--max-minutes") + 1] = "0.0001"  # stops after its first step
        assert main([*given, *SMALL, *(SIZES if "tiny" not in given else [])]) == 0
        if command is student:
            assert read_provenance("runs/edge-s/last.safetensors")["epochs"] < 2
    assert load_checkpoint("runs/teacher/last.safetensors").config == PRESETS["tiny"]
    provenance = read_provenance("runs/edge-s/last.safetensors")
    assert provenance["epochs"] == 2 and provenance["teacher"] == "last.safetensors"
    assert read_provenance("runs/edge-n/last.safetensors")["initial_weights"] == "last.safetensors"
    assert provenance["data"] == ["the recipe 'packaged'"] and Path("runs/people.npz").read_bytes() == packed


@pytest.mark.parametrize("preset", ["edge-n", "edge-s"])
def test_edge_presets_have_no_dropout_and_an_auxiliary_head(preset):
    assert PRESETS[preset].dropout == 0 and PRESETS[preset].heatmap_head
