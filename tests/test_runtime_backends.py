"""Every engine gives the centroids; what an engine cannot do is an error that says what it can."""

from __future__ import annotations

import math
import platform
import sys
import threading
from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import SIZE_WH, write_sidecar

from runtime import backends
from runtime.backends import ENGINES, available_cpus, engine_for, open_backend
from runtime.errors import BackendUnavailable, InputError, ModelFileError

RUN_HERE = ["onnxruntime", "openvino", "executorch"]


def crops_with_one_bright_pixel(column: int, row: int, artifact: Path) -> np.ndarray:
    dtype = np.float32 if artifact.suffix == ".pte" else np.uint8
    crops = np.zeros((1, 3, SIZE_WH[1], SIZE_WH[0]), dtype=dtype)
    crops[:, :, row, column] = [255, 102, 51]
    return crops


@pytest.mark.parametrize("engine", RUN_HERE)
def test_engine_finds_the_bright_pixel(centroid_artifacts, engine):
    artifact = centroid_artifacts[engine]
    backend = open_backend(artifact, threads=1)
    keypoints, scores = backend.infer(crops_with_one_bright_pixel(10, 20, artifact))
    first = keypoints.copy()
    backend.infer(crops_with_one_bright_pixel(30, 40, artifact))
    np.testing.assert_array_equal(keypoints, first)  # results do not live in the engine's memory
    assert keypoints.dtype == scores.dtype == np.float32
    np.testing.assert_allclose(keypoints, [[[10.5 / 48, 20.5 / 64]] * 3], atol=1e-6)
    np.testing.assert_allclose(scores, [[1, 0.4, 0.2]], atol=1e-6)
    backend.close()


@pytest.mark.parametrize("engine", RUN_HERE)
def test_threads_do_not_mix_up_results(centroid_artifacts, engine):
    artifact = centroid_artifacts[engine]
    backend = open_backend(artifact, threads=1)
    wrong: list[object] = []

    def work(column: int) -> None:
        crops = crops_with_one_bright_pixel(column, column, artifact)
        expected = [(column + 0.5) / 48, (column + 0.5) / 64]
        for _ in range(100):
            keypoints, _ = backend.infer(crops)
            if np.abs(keypoints - expected).max() > 1e-6:
                wrong.append((column, keypoints))

    workers = [threading.Thread(target=work, args=(5 * i,)) for i in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong
    backend.close()


def test_executorch_programs_follow_the_last_one_s_number_of_threads(centroid_artifacts):
    """A method keeps the address of the thread pool it was loaded with, and resizing frees that pool."""
    artifact = centroid_artifacts["executorch"]
    crops = crops_with_one_bright_pixel(10, 20, artifact)
    first = open_backend(artifact, threads=2)
    loaded, expected = first.method, first.infer(crops)
    same, other = open_backend(artifact, threads=2), open_backend(artifact, threads=1)
    for backend in (first, same, other):
        for found, wanted in zip(backend.infer(crops), expected, strict=True):
            np.testing.assert_array_equal(found, wanted)
    assert first.method is not loaded and first.pool == same.pool == other.pool
    loaded = first.method
    first.infer(crops)
    assert first.method is loaded  # loaded again once


def test_executorch_s_threads_are_not_replaced_during_a_run(centroid_artifacts):
    artifact = centroid_artifacts["executorch"]
    crops = crops_with_one_bright_pixel(10, 20, artifact)
    backend, started, go_on = open_backend(artifact, threads=1), threading.Event(), threading.Event()
    method = backend.method

    def slow(inputs):
        started.set()
        assert go_on.wait(10)
        return method(inputs)

    backend.method = slow
    run = threading.Thread(target=backend.infer, args=[crops])
    resizing = threading.Thread(target=open_backend, args=[artifact], kwargs={"threads": 2})
    run.start()
    assert started.wait(10)
    resizing.start()
    resizing.join(0.5)
    waits = resizing.is_alive()
    go_on.set()
    run.join(10)
    resizing.join(10)
    assert waits and not run.is_alive() and not resizing.is_alive()


@pytest.mark.parametrize("engine", [e.name for e in ENGINES])
def test_an_unknown_device_is_answered_with_the_legal_ones(engine):
    row = next(e for e in ENGINES if e.name == engine)
    with pytest.raises(BackendUnavailable, match=f"'tpu', legal are {', '.join(row.devices)}"):
        open_backend(Path(f"pose{row.extension}"), device="tpu")


@pytest.mark.parametrize(
    ("engine", "device"), [("onnxruntime", "cuda"), ("onnxruntime", "coreml"), ("openvino", "npu")]
)
def test_an_absent_device_is_an_error_not_a_fall_back(centroid_artifacts, engine, device, monkeypatch):
    import onnxruntime
    import openvino

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    monkeypatch.setattr(openvino.Core, "available_devices", property(lambda self: ["CPU"]))
    with pytest.raises(BackendUnavailable, match=rf"{device}.*cpu"):
        open_backend(centroid_artifacts[engine], device=device)


@pytest.mark.parametrize("engine", ENGINES, ids=lambda e: e.name)
def test_a_missing_engine_is_answered_with_its_install_line(monkeypatch, engine):
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    module = {"coreml": "coremltools", "executorch": "executorch.runtime"}.get(engine.name, engine.name)
    monkeypatch.setitem(sys.modules, module, None)  # makes `import module` fail
    with pytest.raises(BackendUnavailable) as caught:
        open_backend(Path(f"pose{engine.extension}"))
    assert engine.install in str(caught.value) and isinstance(caught.value.__cause__, ImportError)


@pytest.mark.skipif(platform.system() == "Darwin", reason="Core ML predicts here")
def test_core_ml_elsewhere_says_where_it_predicts():
    with pytest.raises(BackendUnavailable, match="macOS only"):
        open_backend(Path("pose.mlpackage"))


@pytest.mark.parametrize("extension", [".onnx", ".xml", ".pte"])
def test_a_file_that_the_engine_cannot_load_keeps_the_cause(tmp_path, extension):
    (tmp_path / "pose.bin").write_bytes(b"")
    path = tmp_path / f"pose{extension}"
    path.write_bytes(b"this is no model" * 10)
    with pytest.raises(ModelFileError, match="cannot load it") as caught:
        open_backend(path)
    assert caught.value.__cause__ is not None


@pytest.mark.parametrize("inside", [True, False], ids=["beside", "in working folder"])
def test_onnx_with_weights_in_another_file_is_refused(centroid_onnx, tmp_path, monkeypatch, inside):
    import onnxruntime

    monkeypatch.chdir(centroid_onnx.parent if inside else tmp_path)
    model = onnx.load(centroid_onnx)
    onnx.save(model, centroid_onnx, save_as_external_data=True, location="weights.data", size_threshold=100)
    onnxruntime.InferenceSession(str(centroid_onnx))  # the engine itself would follow
    if not inside:
        (centroid_onnx.parent / "weights.data").rename(tmp_path / "weights.data")
    write_sidecar(centroid_onnx)
    with pytest.raises(ModelFileError, match=r"[Ee]xternal"):
        open_backend(centroid_onnx)


@pytest.mark.parametrize("name", ["pose.txt", "pose", "pose.onnx.json", "pose.ONNX"])
def test_another_extension_is_answered_with_the_legal_ones(name):
    with pytest.raises(ModelFileError, match=r"legal are \.onnx, \.xml, \.pte, \.mlpackage"):
        engine_for(Path(name))


@pytest.mark.parametrize("threads", [0, -1, 1.5, True, "2"])
def test_bad_thread_counts_are_refused(centroid_onnx, threads):
    with pytest.raises(InputError, match="threads"):
        open_backend(centroid_onnx, threads=threads)


def test_threads_default_to_the_cpus_that_may_be_used():
    assert 1 <= available_cpus() <= 4096


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({"cpu.max": "150000 100000\n"}, 1.5),
        ({"cpu.max": "max 100000\n"}, math.inf),
        ({"cpu/cpu.cfs_quota_us": "50000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 0.5),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, math.inf),
        ({"cpu.max": "nonsense"}, math.inf),
        ({}, math.inf),
    ],
)
def test_threads_keep_to_the_quota_of_a_container(tmp_path, monkeypatch, files, quota):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(backends, "CGROUP", tmp_path)
    monkeypatch.setattr(backends.os, "sched_getaffinity", lambda pid: {0, 1, 2, 3}, raising=False)
    assert backends.cpu_quota() == quota
    assert backends.available_cpus() == min(4, max(math.ceil(min(quota, 4)), 1))
