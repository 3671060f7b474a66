"""The examples and the Python in the runtime's pages run as they stand."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from detector_files import write_detector

from training.data.rendered import render_clip

ROOT = Path(__file__).parent.parent
FRAMES = 6


@pytest.fixture(scope="module")
def workplace(tmp_path_factory) -> Path:
    """A folder with a rendered person as photo.jpg and clip.avi/.mp4, and a detector of red rectangles."""
    folder = tmp_path_factory.mktemp("examples")
    images = [image for image, _ in render_clip(np.random.default_rng(1), FRAMES, (320, 240))]
    cv2.imwrite(str(folder / "photo.jpg"), images[0])
    writer = cv2.VideoWriter(str(folder / "clip.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 10, (320, 240))
    for image in images:
        image[60:200, 40:120] = (0, 0, 255)
        writer.write(image)
    writer.release()
    write_detector(folder / "detector.onnx", "yolox")
    return folder


def run(workplace: Path, name: str, *arguments: str) -> str:
    command = [sys.executable, str(ROOT / "examples" / name), *arguments]
    environment = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PATH": ""}
    child = subprocess.run(command, cwd=workplace, env=environment, capture_output=True, text=True, check=False)
    assert child.returncode == 0, child.stderr
    return child.stdout


def test_picture(workplace):
    lines = run(workplace, "picture.py", "photo.jpg", "drawn.jpg", "poses.json").splitlines()
    assert len(lines) == 17 and lines[0].startswith("nose")
    assert (cv2.imread(str(workplace / "drawn.jpg")) != cv2.imread(str(workplace / "photo.jpg"))).any()
    assert len(json.loads((workplace / "poses.json").read_text())[0]["keypoints"]) == 51


def test_video(workplace):
    run(workplace, "video.py", "clip.mp4", "poses.jsonl")
    lines = [json.loads(line) for line in (workplace / "poses.jsonl").read_text().splitlines()]
    assert [line["index"] for line in lines] == list(range(FRAMES))


def test_live(workplace):
    last = run(workplace, "live.py", "clip.mp4", "5").splitlines()[-1]
    read, answered, dropped = map(int, re.findall(r"\d+", last))
    assert read == FRAMES == answered + dropped


def test_people(workplace):
    text = run(workplace, "people.py", "clip.mp4", "detector.onnx", "drawn")
    assert "taken for yolox" in text and len(list((workplace / "drawn").glob("*.jpg"))) == FRAMES


@pytest.mark.parametrize("page", ["runtime.md", "moving.md"])
def test_the_python_of_a_page_runs(workplace, monkeypatch, page, capsys):
    monkeypatch.chdir(workplace)
    names: dict[str, object] = {}
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs" / page).read_text(), re.MULTILINE | re.DOTALL)
    assert blocks
    for number, block in enumerate(blocks):
        exec(compile(block, f"docs/{page}, block {number + 1}", "exec"), names)
    assert capsys.readouterr().out
