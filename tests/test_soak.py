"""A twentieth of `make soak`: threads, long runs, changed artifacts, any arguments. The whole: docs/reliability.md."""

from __future__ import annotations

import sys
import tracemalloc

import numpy as np
import pytest
from conftest import write_sidecar

import runtime
from benchmarks.soak.__main__ import MAX_MIB_PER_10K, is_caught, main
from benchmarks.soak.arguments import check_arguments
from benchmarks.soak.frames import MODES, run_frames
from benchmarks.soak.mutations import count_refused, mutate, try_unchecked
from benchmarks.soak.threads import hammer
from runtime.sidecar import Sidecar

SHARE = 1 / 20
PICTURE_MIB = 320 * 240 * 3 / 2**20
ENGINES = ["onnxruntime", "openvino", "executorch"]


@pytest.mark.parametrize("engine", ENGINES)
def test_threads_share_one_pose(centroid_artifacts, engine):
    outcome = hammer(centroid_artifacts[engine], threads=8, calls=round(500 * SHARE))
    assert outcome.calls == 200 and not outcome.errors and not outcome.different


def test_two_engine_threads_change_nothing(centroid_artifacts):
    outcome = hammer(centroid_artifacts["onnxruntime"], threads=4, calls=25, engine_threads=2)
    assert not outcome.errors and not outcome.different


reads_proc = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")


@reads_proc
@pytest.mark.parametrize("mode", MODES)
def test_a_long_run_keeps_its_memory_handles_and_threads(centroid_artifacts, mode):
    """Over 1,000 frames memory is noise and may jump once; a leak grows in every part of the run."""
    growth = run_frames(centroid_artifacts["onnxruntime"], round(20_000 * SHARE), mode)
    assert growth.handles[0] == growth.handles[1] and growth.threads[0] == growth.threads[1]
    assert growth.steady_mib_per_10k < 10_000 * 0.05 * PICTURE_MIB


@pytest.fixture
def exactly(monkeypatch):
    """Memory is what Python and NumPy hold, to the byte, instead of what the system gave the program."""
    monkeypatch.setattr("benchmarks.soak.frames.memory_mib", lambda: tracemalloc.get_traced_memory()[0] / 2**20)
    tracemalloc.start()
    yield
    tracemalloc.stop()


@reads_proc
@pytest.mark.parametrize("mode", ["video", "several people"])
def test_a_long_run_keeps_what_python_holds(exactly, centroid_onnx, mode):
    assert abs(run_frames(centroid_onnx, 400, mode).mib_per_10k) < MAX_MIB_PER_10K


@reads_proc
def test_that_finds_the_smallest_leak(exactly, centroid_onnx, monkeypatch):
    """One result per frame is kept, without its picture."""
    kept = []
    draw = runtime.Frame.draw
    monkeypatch.setattr(runtime.Frame, "draw", lambda frame: kept.append(frame.result) or draw(frame))
    assert run_frames(centroid_onnx, 400).mib_per_10k > 3 * MAX_MIB_PER_10K


@reads_proc
def test_the_check_of_memory_finds_a_leak(centroid_onnx, monkeypatch):
    """Every fifth drawn picture is kept."""
    kept = []
    draw = runtime.Frame.draw

    def keep(frame):
        drawn = draw(frame)
        kept.extend([drawn.copy()] if frame.index % 5 == 0 else [])
        return drawn

    monkeypatch.setattr(runtime.Frame, "draw", keep)
    growth = run_frames(centroid_onnx, round(20_000 * SHARE))
    assert growth.steady_mib_per_10k == pytest.approx(10_000 * 0.2 * PICTURE_MIB, rel=0.3)


@pytest.fixture(scope="module")
def sealed_artifacts(centroid_artifacts, tmp_path_factory):
    """Engine -> artifact; of Core ML a folder with a package's files, which no engine is to see."""
    package = tmp_path_factory.mktemp("coreml") / "pose.mlpackage"
    for name in ("Manifest.json", "Data/com.apple.CoreML/model.mlmodel", "Data/com.apple.CoreML/weights/weight.bin"):
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_bytes(np.random.default_rng(len(name)).bytes(5000))
    return centroid_artifacts | {"coreml": write_sidecar(package)}


@pytest.mark.parametrize("engine", [*ENGINES, "coreml"])
def test_changed_artifacts_are_refused_before_the_engine_sees_them(sealed_artifacts, engine):
    count, path = round(1000 * SHARE), sealed_artifacts[engine]
    Sidecar.read(path).verify(path)  # unchanged, it is not refused
    assert count_refused(path, count) == count


@pytest.mark.parametrize("engine", ENGINES)
def test_unchecked_mutants_end_in_an_error_or_an_answer(centroid_artifacts, engine):
    outcomes = try_unchecked(centroid_artifacts[engine], round(500 * SHARE))
    assert sum(outcomes.values()) == 25
    assert all(what in ("works", "ModelFileError") or is_caught(what, engine) for what in outcomes), outcomes


def test_a_mutation_changes_something():
    random = np.random.default_rng(0)
    for content in (b"a", b"aaaaaaaaaaaaaaaa", random.bytes(500)):
        assert all(mutate(content, random) != content for _ in range(200))


def test_any_arguments_end_in_the_right_answer_or_a_value_error(centroid_onnx):
    with runtime.Pose(centroid_onnx, threads=1) as pose:
        check_arguments(pose, round(10_000 * SHARE))


class WrongPose:
    """Answers a little wrong: what `check_arguments` must find."""

    def __init__(self, pose, fault):
        self.pose, self.sidecar, self.fault = pose, pose.sidecar, fault

    def __call__(self, image, boxes):
        if self.fault == "takes what it must refuse" and isinstance(image, str):
            return self.pose(np.zeros((4, 4), np.uint8))
        if self.fault == "refuses with another exception" and isinstance(boxes, dict):
            raise TypeError("unhashable")
        result = self.pose(image, boxes)
        keypoints_xy = result.keypoints_xy
        if self.fault == "answers for another box":
            result.boxes_xyxy[:] += 1
        elif self.fault == "scores another key point":
            result.scores[:] = result.scores[:, ::-1].copy()
        elif self.fault == "swaps red and blue":
            keypoints_xy[:] = keypoints_xy[:, ::-1].copy()
        elif self.fault == "is a crop's pixel off":
            boxes_wh = result.boxes_xyxy[:, 2:] - result.boxes_xyxy[:, :2]
            width = np.maximum(boxes_wh[:, 0], boxes_wh[:, 1] * 48 / 64) * self.sidecar.padding
            keypoints_xy += width[:, None, None] / 48
        return result


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ("takes what it must refuse", AssertionError),
        ("refuses with another exception", TypeError),
        ("swaps red and blue", AssertionError),
        ("is a crop's pixel off", AssertionError),
        ("answers for another box", AssertionError),
        ("scores another key point", AssertionError),
    ],
)
def test_the_check_of_arguments_finds_faults(centroid_onnx, fault, error):
    with runtime.Pose(centroid_onnx, threads=1) as pose, pytest.raises((error, ExceptionGroup)) as caught:
        check_arguments(WrongPose(pose, fault), 400, shrink=False)
    errors = caught.value.exceptions if isinstance(caught.value, ExceptionGroup) else [caught.value]
    assert all(isinstance(one, error) for one in errors)


def test_an_unknown_part_is_a_usage_error(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["thread"])
    assert (
        caught.value.code == 2 and "legal are threads, frames, mutations, mutants, arguments" in capsys.readouterr().err
    )
