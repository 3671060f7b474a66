"""The packaged models equal their checkpoints, and the default finds people that it has not seen."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import runtime
from converters.parity import LIMITS
from runtime.pose import MODELS_DIR, PACKAGED_MODELS
from runtime.sidecar import sha256_of
from runtime.skeleton import COCO_17
from tfpose_edge import load_checkpoint, read_provenance
from training.data.calibration import calibration_crops
from training.data.rendered import render_clip, render_person
from training.data.spec import DataSpec
from training.evaluate import evaluate, open_predictor

ROOT = Path(__file__).parent.parent
PEOPLE = ROOT.parent / "shared" / "data" / "lsp_train"
MODELS = [name for name in PACKAGED_MODELS if (MODELS_DIR / name).is_file()]


def photographs():
    """DATA of photographs that no packaged model was trained on, where a folder of them lies beside the project."""
    return f"{PEOPLE / 'annotations.json'}:{PEOPLE / 'images'}:901-1000" if PEOPLE.is_dir() else None


def test_small_files_and_a_small_tree():
    files = [path for folder in (MODELS_DIR, ROOT / "models") for path in folder.iterdir()]
    assert tuple(MODELS) == PACKAGED_MODELS and all(path.stat().st_size <= 12e6 for path in files)
    assert all((MODELS_DIR / name).stat().st_size <= 10e6 for name in MODELS)
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    tracked = [ROOT / name for name in listed.stdout.split("\0") if name] if listed.returncode == 0 else files
    assert sum(path.stat().st_size for path in tracked if path.is_file()) <= 30e6


@pytest.mark.parametrize("name", MODELS)
def test_equals_its_checkpoint(name):
    """On photographs where there are some, on rendered people otherwise; as closely as its precision promises."""
    model = load_checkpoint(ROOT / "models" / f"{Path(name).stem}.safetensors")
    crops = calibration_crops(model.config.input_size_wh, model.config.padding, photographs())
    with torch.inference_mode():
        expected = model(torch.from_numpy(crops).float()).keypoints.numpy()
    with runtime.Pose(MODELS_DIR / name, threads=1) as pose:
        found = np.concatenate([pose.backend.infer(crop[None])[0] for crop in crops])
        limits = LIMITS[json.loads((MODELS_DIR / f"{name}.json").read_text())["precision"]]
    distance_px = np.linalg.norm((found - expected) * model.config.input_size_wh, axis=-1)
    assert len(crops) == 64 and distance_px.max() <= limits.max_px
    assert (distance_px <= 1).mean() >= limits.within_1px and (distance_px <= 4).mean() >= limits.within_4px
    moved_px = np.linalg.norm((expected - expected.mean(0)) * model.config.input_size_wh, axis=-1)
    assert moved_px.max() > 10  # a network that never moves would agree with anything


@pytest.mark.parametrize("name", MODELS)
def test_says_where_it_comes_from(name):
    """Its sidecar names the data and the time; the checkpoint says the same."""
    sidecar = json.loads((MODELS_DIR / f"{name}.json").read_text())
    provenance = read_provenance(ROOT / "models" / f"{Path(name).stem}.safetensors")
    assert sidecar["provenance"]["training"]["data"] == provenance["data"] and provenance["minutes"] > 0
    checkpoint = ROOT / "models" / f"{Path(name).stem}.safetensors"
    assert sidecar["provenance"]["checkpoint_sha256"] == sha256_of(checkpoint)


def test_the_default_is_the_best_on_photographs():
    """PCK@0.2 of people that no packaged model has seen: the first of the list is better than every other."""
    data = photographs()
    if data is None:
        pytest.skip("no photographs here, and rendered people say nothing about them")
    values = {}
    for name in MODELS:
        predictor = open_predictor(MODELS_DIR / name)
        values[name] = evaluate(predictor, DataSpec.parse(data), "pck")[0]["value"]
    assert runtime.Pose().path.name == MODELS[0] == max(values, key=values.__getitem__), values
    assert values["edge-s.onnx"] > 78 and values["edge-n.onnx"] > 68 and values["tiny.onnx"] > 29, values


def test_finds_rendered_people_better_than_the_mean_pose():
    """Median distance over labelled points, in parts of the person's size, against a fixed pose in the same box."""
    found, fixed, shapes = [], [], []
    with runtime.Pose(threads=1) as pose:
        people = [render_person(np.random.default_rng([987, i])) for i in range(60)]
        results = [pose(p.image, p.box_xyxy[None]).keypoints_xy[0] for p in people]
    for person, keypoints_xy in zip(people, results, strict=True):
        corner, size = person.box_xyxy[:2], person.box_xyxy[2:] - person.box_xyxy[:2]
        shapes.append((person.keypoints_xy - corner) / size)
        seen = person.visible > 0
        found.append(np.linalg.norm(keypoints_xy - person.keypoints_xy, axis=1)[seen] / np.sqrt(person.area))
    mean_shape = np.mean(shapes, axis=0)
    for person in people:
        corner, size = person.box_xyxy[:2], person.box_xyxy[2:] - person.box_xyxy[:2]
        guess = corner + mean_shape * size
        seen = person.visible > 0
        fixed.append(np.linalg.norm(guess - person.keypoints_xy, axis=1)[seen] / np.sqrt(person.area))
    assert np.median(np.concatenate(found)) < 0.7 * np.median(np.concatenate(fixed))


def test_follows_a_rendered_person_through_a_clip(tmp_path):
    """The middle of the pose stays with the person while that person walks across the picture."""
    frames, truth = zip(*render_clip(np.random.default_rng(7), 60), strict=True)
    clip = tmp_path / "clip.mp4"
    writer = cv2.VideoWriter(str(clip), cv2.VideoWriter.fourcc(*"mp4v"), 25, (640, 480))
    for frame in frames:
        writer.write(frame)
    writer.release()
    with runtime.Pose(threads=1) as pose:
        found = np.stack([frame.result.keypoints_xy[0] for frame in pose.video(clip)])
    truth = np.stack(truth)
    hips = [COCO_17.index("left_hip"), COCO_17.index("right_hip")]
    distance = np.linalg.norm(found[:, hips].mean(1) - truth[:, hips].mean(1), axis=1)
    height = np.ptp(truth[..., 1], axis=1)
    assert np.median(distance / height) < 0.15
    assert np.corrcoef(found[:, hips, 0].mean(1), truth[:, hips, 0].mean(1))[0, 1] > 0.8
