"""The built wheel: what it holds, and that its runtime works where nothing else is installed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import GUARDED

from training.data.rendered import render_person

ROOT = Path(__file__).parent.parent
BLOCKED = {"torch", "coremltools", "executorch", "openvino", "onnx", "accelerate", "matplotlib"}
BLOCKER = f"""
import runpy, sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {BLOCKED}:
            raise ModuleNotFoundError("No module named " + repr(name), name=name)

sys.meta_path.insert(0, Blocker())
runpy.run_path({GUARDED[0] + "/sitecustomize.py"!r})  # of two such files only the first is read
"""


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory):
    """The wheel's files in a folder of their own, beside a blocker that hides what it must not need, and the guard."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"  # a copy: what an earlier build left behind would end up in the wheel
    ignored = shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "runs", "demo", "__pycache__")
    shutil.copytree(ROOT, source, ignore=ignored)
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(source)]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout[-2000:] + built.stderr[-2000:]
    [wheel] = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    (folder / "site" / "sitecustomize.py").write_text(BLOCKER)
    return folder / "site"


def test_contents(unpacked):
    names = {str(p.relative_to(unpacked)) for p in unpacked.rglob("*") if p.is_file()}
    assert {
        "tfpose_edge/py.typed",
        "runtime/py.typed",
        "runtime/models/tiny.onnx",
        "runtime/models/tiny.onnx.json",
    } <= names
    assert {"training/train.py", "training/data/posture_prior.npz", "converters/__main__.py"} <= names
    assert not any(name.startswith(("tests/", "examples/", "docs/")) for name in names)
    packages = {name.split("/")[0] for name in names if name.endswith(".py")} - {"sitecustomize.py"}
    assert packages == {"tfpose_edge", "training", "converters", "runtime"}


@pytest.fixture
def python(unpacked, tmp_path):
    """Run Python in an empty folder, with the wheel's files and without a display."""
    environment = {k: v for k, v in os.environ.items() if k not in ("DISPLAY", "WAYLAND_DISPLAY")}
    options = {"cwd": tmp_path, "env": environment | {"PYTHONPATH": str(unpacked)}, "check": False}
    return lambda *arguments: subprocess.run([sys.executable, *arguments], capture_output=True, text=True, **options)


def test_the_webcam_runs_in_an_empty_environment(python, tmp_path):
    person = render_person(np.random.default_rng(3))
    cv2.imwrite(str(tmp_path / "picture.jpg"), person.image)
    ran = python("-m", "runtime.webcam", "--source", "picture.jpg", "--json", "pose.jsonl")
    assert ran.returncode == 0, ran.stderr
    [line] = (tmp_path / "pose.jsonl").read_text().splitlines()
    keypoints_xy = np.array(json.loads(line)["persons"][0]["keypoints_xy"])
    assert keypoints_xy.shape == (17, 2) and np.isfinite(keypoints_xy).all()


def test_that_environment_is_the_wheel_without_torch_and_without_a_network(python, unpacked):
    assert python("-c", "import runtime; print(runtime.__file__)").stdout.startswith(str(unpacked))
    assert "No module named 'torch'" in python("-c", "import torch").stderr
    reach = "import socket; socket.create_connection(('192.0.2.1', 80), timeout=1)"
    assert "NetworkUsed" in python("-c", reach).stderr
