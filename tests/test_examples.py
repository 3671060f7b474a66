"""The examples and the Python in the runtime's pages run as they stand."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import GUARDED
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
    child = start(workplace, str(ROOT / "examples" / name), *arguments)
    assert child.returncode == 0, child.stderr
    return child.stdout


def start(workplace: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A Python with nothing in its environment but the project and the guard of the network."""
    environment = {"PYTHONPATH": os.pathsep.join([GUARDED[0], str(ROOT)]), "OMP_NUM_THREADS": "1", "PATH": ""}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=workplace, env=environment, capture_output=True, text=True, check=False)


def test_examples_cannot_reach_the_network(workplace):
    child = start(workplace, "-c", "import socket; socket.create_connection(('192.0.2.1', 80), timeout=1)")
    assert "NetworkUsed" in child.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("picture.py", "none.jpg", "drawn.jpg", "poses.json"), "none.jpg: no picture that OpenCV can read"),
        (("picture.py", "photo.jpg", "none/drawn.jpg", "poses.json"), "none/drawn.jpg: cannot be written"),
        (("video.py", "none.mp4", "poses.jsonl"), "error: none.mp4: no such file"),
        (("video.py", "clip.mp4", "none/poses.jsonl"), "error: [Errno 2]"),
        (("people.py", "clip.mp4", "none.onnx", "drawn"), "error: none.onnx: no such file"),
        (("live.py", "none.mp4", "1"), "error: none.mp4: no such file"),
    ],
)
def test_mistakes_are_one_line(workplace, arguments, said):
    child = start(workplace, str(ROOT / "examples" / arguments[0]), *arguments[1:])
    assert child.returncode == 1 and child.stderr.splitlines()[-1].startswith(said) and "Traceback" not in child.stderr


def test_pictures_have_no_ids(workplace):
    assert "persons 1" in run(workplace, "video.py", "photo.jpg", "picture.jsonl")


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


DEMO = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import demo
demo.FRAMES = 12
truth = demo.write_clip(Path("rendered.mp4"))
print(demo.as_table([demo.measure("onnx", Path(sys.argv[2]), Path("rendered.mp4"), truth)]))
demo.write_sheet(Path("onnx.mp4"), Path("sheet.png"))
"""


def test_what_the_demo_does_with_an_artifact(workplace):
    child = start(workplace, "-c", DEMO, str(ROOT / "examples"), str(ROOT / "runtime" / "models" / "edge-s.onnx"))
    assert child.returncode == 0, child.stderr
    header, _, row = child.stdout.strip().splitlines()[-3:]
    measured = dict(zip(header.strip("| ").split(" | "), row.strip("| ").split(" | "), strict=True))
    assert measured["format"] == "onnx" and float(measured["median error on the clip, px"]) < 20
    assert cv2.imread(str(workplace / "sheet.png")).shape == (3 * 240, 4 * 320, 3)


@pytest.mark.parametrize("page", ["runtime.md", "moving.md"])
def test_the_python_of_a_page_runs(workplace, monkeypatch, page, capsys):
    monkeypatch.chdir(workplace)
    run_page(page)
    assert capsys.readouterr().out


def test_moving_copes_with_nobody(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    cv2.imwrite("photo.jpg", np.zeros((240, 320, 3), np.uint8))
    writer = cv2.VideoWriter("clip.mp4", cv2.VideoWriter.fourcc(*"mp4v"), 10, (320, 240))
    for _ in range(2):
        writer.write(np.zeros((240, 320, 3), np.uint8))
    writer.release()
    run_page("moving.md")
    assert capsys.readouterr().out.splitlines() == ["0.0 []", "0.1 []"]
    assert cv2.imread("drawn.jpg").max() < 10


def run_page(page: str) -> None:
    """Run a page's blocks of Python, one after the other and with the same names."""
    names: dict[str, object] = {}
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs" / page).read_text(), re.MULTILINE | re.DOTALL)
    assert blocks
    for number, block in enumerate(blocks):
        exec(compile(block, f"docs/{page}, block {number + 1}", "exec"), names)
