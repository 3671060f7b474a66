"""Steady key points on rendered clips with known truth; the runtime's benchmark; what a frame costs."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))  # benchmarks is a folder of the checkout, not an installed package

import runtime  # noqa: E402
from benchmarks import modes  # noqa: E402
from benchmarks.steadiness import FPS, WARM_UP, jitter, lag, measure, smoothed  # noqa: E402
from runtime.smoothing import Smoothing, person_size_px  # noqa: E402
from training.data.rendered import render_clip  # noqa: E402

FRAMES = 75


@pytest.fixture(scope="module")
def walk() -> np.ndarray:
    """Key points (T, 17, 2) of a rendered person who walks and moves the limbs."""
    return np.stack([points for _, points in render_clip(np.random.default_rng(5), FRAMES, (160, 120))]) * 4


@pytest.mark.parametrize("noise", [0.002, 0.004])
def test_trembling_at_rest_is_at_least_three_times_smaller(walk, noise):
    """Noise as a share of the person's size: the packaged model's is 0.0015 to 0.006 with an indoor camera."""
    size_px = person_size_px(walk[0])
    resting = walk[:1] + np.random.default_rng(0).normal(0, noise * size_px, (120, 17, 2))
    assert jitter(resting) > 3 * jitter(smoothed(resting, Smoothing()))


def test_motion_lags_less_than_a_frame_behind_the_truth(walk):
    speed = np.linalg.norm(np.diff(walk, axis=0), axis=2).mean() * FPS / person_size_px(walk[0])
    assert 0.15 < speed < 1.5  # moderate: between a slow turn and a quick gesture
    noisy = walk + np.random.default_rng(0).normal(0, 0.003 * person_size_px(walk[0]), walk.shape)
    assert abs(lag(noisy, walk)) < 0.05 and lag(smoothed(noisy, Smoothing()), walk) < 1
    late = smoothed(noisy, Smoothing(speed_gain=0.0))  # a plain low-pass filter, as steady at rest
    assert lag(late, walk) > 2


def test_the_lag_that_is_measured_is_the_lag_that_was_made(walk):
    for frames in (0, 1, 3):
        delayed = np.concatenate([np.repeat(walk[:1], frames, axis=0), walk])[: len(walk)]
        assert lag(delayed + 7.0, walk) == pytest.approx(frames, abs=0.05)


def test_jitter_is_the_root_mean_square_distance():
    rng = np.random.default_rng(1)
    noise = rng.normal(0, [3.0, 4.0], (WARM_UP + 4000, 5, 2))
    assert jitter(noise) == pytest.approx(5.0, rel=0.03)


def test_the_packaged_model_is_steadier_on_a_rendered_clip():
    one = measure(None, Smoothing(), seed=0, frames=60, size_wh=(480, 360))
    assert one.times_steadier > 3 and one.added_lag_frames < 1


def test_the_benchmark_prints_what_it_writes(tmp_path):
    command = [sys.executable, str(ROOT / "benchmarks" / "runtime.py"), "--rounds", "3", "--starts", "1"]
    child = subprocess.run([*command, "--json", "f.json"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert child.returncode == 0, child.stderr
    figures = json.loads((tmp_path / "f.json").read_text())
    rows = figures["calls"]
    several = {f"{how}, {n}" for how in ("together", "one by one", "followed") for n in (1, 2, 5)}
    assert set(rows) == several | {"watched, 1"}
    for name, row in rows.items():
        assert name in child.stdout and row["outside_ms"] > 0 and row["engine_ms"] > 0
    assert rows["together, 5"]["engine_ms"] > 2 * rows["together, 1"]["engine_ms"]  # its batch is 1
    assert figures["import_s"] > 0 and "target 0.8" in child.stdout
    assert figures["watched_runs"] == 1  # a person is there, is followed, and nothing else is timed
    for name in ("outside_one_ms", "followed_one_ms", "watched_one_ms"):
        assert re.search(rf"^{name} .* target 1\.0: ", child.stdout, re.MULTILINE)


def test_the_benchmark_says_what_cannot_be_opened(tmp_path):
    command = [sys.executable, str(ROOT / "benchmarks" / "runtime.py"), "--starts", "0", "--model", "gone.onnx"]
    child = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert child.returncode == 3 and child.stderr.startswith("error: ") and "gone.onnx" in child.stderr


def test_the_modes_are_told_apart(tmp_path, centroid_onnx, moving_dots, capsys):
    clip, truth = moving_dots
    arguments = [str(clip), "--model", str(centroid_onnx), "--pace", "50", "--json", str(tmp_path / "f.json")]
    assert modes.main(arguments) == 0
    figures = json.loads((tmp_path / "f.json").read_text())
    assert list(figures) == ["calls", "video, smoothed", "video, as the network says", "live at 50"]
    assert all(row["frames"] == 12 for row in figures.values())
    assert [line[:28].rstrip() for line in capsys.readouterr().out.splitlines()] == list(figures)
    steps = np.linalg.norm(np.diff(truth, axis=0), axis=2)[1:]
    assert figures["video, as the network says"]["px_per_frame"] == pytest.approx(np.median(steps), abs=0.5)
    assert figures["live at 50"]["answered"] + figures["live at 50"]["dropped"] == 12


def test_trembling_is_what_steady_motion_has_not():
    def seen(points, identity=1):
        ones, ids = np.ones((1, 4), np.float32), np.array([identity])
        return runtime.PoseResult(np.float32(points)[None], ones, ones, (), (), (1, 1), {}, ids)

    start = np.arange(8.0).reshape(4, 2)
    steady = [seen(start + np.array([3, 4]) * step) for step in range(5)]
    assert modes.trembling(steady) == {"px_per_frame": 5.0, "second_difference_px": 0.0}
    shaken = [seen(start + np.array([0, step % 2])) for step in range(5)]
    assert modes.trembling(shaken) == {"px_per_frame": 1.0, "second_difference_px": 2.0}
    assert modes.trembling([seen(start, identity) for identity in (1, 1, 2, 2, 1, 1)]) == {}
