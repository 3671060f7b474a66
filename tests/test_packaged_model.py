"""The packaged model finds people that it has not seen: rendered ones, one by one and in a clip."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch

import runtime
from runtime.skeleton import COCO_17
from tfpose_edge import load_checkpoint
from training.data.calibration import calibration_crops
from training.data.rendered import render_clip, render_person


def test_size():
    assert runtime.Pose().path.stat().st_size <= 3e6


def test_equals_its_checkpoint_on_photographs():
    """On photographs where a folder of them lies beside the project, on rendered people otherwise."""
    root = Path(__file__).parent.parent
    people = root.parent / "shared" / "data" / "lsp_train"
    data = f"{people / 'annotations.json'}:{people / 'images'}:901-1000" if people.is_dir() else None
    model = load_checkpoint(root / "models" / "tiny.safetensors")
    crops = calibration_crops(model.config.input_size_wh, model.config.padding, data)
    with torch.inference_mode():
        expected = model(torch.from_numpy(crops).float()).keypoints.numpy()
    with runtime.Pose(threads=1) as pose:
        found = np.concatenate([pose.backend.infer(crop[None])[0] for crop in crops])
    distance_px = np.linalg.norm((found - expected) * model.config.input_size_wh, axis=-1)
    assert len(crops) == 64 and distance_px.max() <= 0.05
    moved_px = np.linalg.norm((expected - expected.mean(0)) * model.config.input_size_wh, axis=-1)
    assert moved_px.max() > 10  # a network that never moves would agree with anything


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
