"""The loader's benchmark: every stage takes time, training runs, and errors are one line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from photographs import write_data_set

SCRIPT = Path(__file__).parent.parent / "benchmarks" / "loader.py"


def run(*arguments):
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=SCRIPT.parent.parent, check=False)


@pytest.fixture(scope="module")
def figures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("set")
    data, file = write_data_set(folder / "people", 5), folder / "figures.json"
    done = run(
        "--data", data, "--preset", "tiny", "--augment", "strong,paste=1,erase=1", "--count", 12, "--batch-size", 4,
        "--train-steps", 2, "--threads", 1, "--json", file,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(file.read_text())[0], done.stdout


def test_every_stage_takes_time(figures):
    found, text = figures
    assert list(found["stages_ms"]) == ["decode", "warp", "colour", "occlusion", "collate", "other"]
    assert all(0 < ms < 1000 for ms in found["stages_ms"].values())
    assert found["crops_per_s"] == found["crops_per_s_per_core"] > 0
    assert "crops/s" in text and "colour" in text


def test_training_with_loading(figures):
    found, text = figures
    training = found["training"]
    assert training["pictures_per_s"] == pytest.approx(4000 / training["ms_per_step"])
    assert 0 <= training["waiting_share"] < 1 and "waiting for data" in text


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--data", "nothing"], 4, "nothing"),
        (["--data", "nothing", "--count", "0"], 2, "--count is 0; it must be at least 1"),
    ],
)
def test_errors(arguments, code, message):
    done = run(*arguments)
    assert done.returncode == code and message in done.stderr and len(done.stderr.splitlines()) == 1
