"""Tiny artifacts whose true key points are known: the centroid of each colour channel."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from guard import refuse_network
from onnx import TensorProto, helper, numpy_helper

from runtime.sidecar import artifact_files, sha256_of

sys.addaudithook(refuse_network)  # for the whole run: a hook cannot be taken off again
GUARDED = [str(Path(__file__).parent / "child"), *filter(None, [os.getenv("PYTHONPATH")])]
os.environ["PYTHONPATH"] = os.pathsep.join(GUARDED)  # for every Python that a test starts
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # tests that import onnxruntime themselves
os.environ.setdefault("TRITON_INTERPRET", "1")  # read when kernels are defined: they run here, on the CPU, slowly
SIZE_WH = (48, 64)  # crop of the centroid model
NAMES = ["nose", "left_hip", "right_hip"]  # centroid of red, green, blue


@pytest.fixture
def centroid_onnx(tmp_path: Path) -> Path:
    """An ONNX artifact with its sidecar, batch 1, uint8."""
    return write_centroid_onnx(tmp_path / "model" / "pose.onnx")


@pytest.fixture(scope="session")
def centroid_artifacts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same model for every engine that runs here: engine name -> artifact."""
    folder = tmp_path_factory.mktemp("artifacts")
    onnx_path = write_centroid_onnx(folder / "pose.onnx")
    return {
        "onnxruntime": onnx_path,
        "openvino": write_centroid_openvino(onnx_path, folder / "pose.xml"),
        "executorch": write_centroid_executorch(folder / "pose.pte"),
    }


@pytest.fixture
def edit_sidecar() -> Callable[..., None]:
    """Overwrite keys of an artifact's sidecar; the value `...` removes the key."""

    def edit(artifact: Path, **values: Any) -> None:
        path = artifact.with_name(artifact.name + ".json")
        merged = json.loads(path.read_text()) | values
        path.write_text(json.dumps({key: value for key, value in merged.items() if value is not ...}))

    return edit


def dots_image(size_wh: tuple[int, int], dots_xy: np.ndarray, radius: float = 6.0) -> np.ndarray:
    """Black BGR image with a soft red, green and blue dot around three points (3, 2) px, continuous coordinates."""
    rows, columns = np.mgrid[0.5 : size_wh[1], 0.5 : size_wh[0]]
    image = np.zeros((size_wh[1], size_wh[0], 3), dtype=np.uint8)
    for channel, (x, y) in zip((2, 1, 0), dots_xy, strict=True):
        squared = (columns - x) ** 2 + (rows - y) ** 2
        image[:, :, channel] = np.rint(255 * np.exp(-squared / (2 * (radius / 2) ** 2)))
    return image


def write_sidecar(artifact: Path, **values: Any) -> Path:
    """A legal sidecar for the centroid model."""
    sidecar = {
        "format_version": 1,
        "files": {name: sha256_of(artifact.parent / name) for name in artifact_files(artifact)},
        "input_size_wh": list(SIZE_WH),
        "input_dtype": "uint8",
        "batch": 1,
        "keypoint_names": NAMES,
        "skeleton": [[0, 1], [0, 2]],
        "flip_pairs": [[1, 2]],
        "sigmas": [0.026, 0.107, 0.107],
        "padding": 1.25,
        "precision": "fp32",
        "sampler": "gather",
        "rewrites": [],
        "engines": {"onnxruntime": None},
        "parity": None,
        "provenance": {"made_by": "tests"},
    }
    artifact.with_name(artifact.name + ".json").write_text(json.dumps(sidecar | values))
    return artifact


def write_centroid_onnx(path: Path, batch: int = 1, **values: Any) -> Path:
    """Key points (N, 3, 2) = centroid of each channel, scores (N, 3) = brightest pixel / 255."""
    width, height = SIZE_WH
    constants = {
        "xs": (np.arange(width, dtype=np.float32) + 0.5).reshape(1, 1, 1, width) / width,
        "ys": (np.arange(height, dtype=np.float32) + 0.5).reshape(1, 1, height, 1) / height,
        "tiny": np.float32(1e-6),
        "full": np.float32(255),
        "plane": np.array([2, 3], dtype=np.int64),
        "last": np.array([-1], dtype=np.int64),
    }
    nodes = [
        helper.make_node("Cast", ["crops"], ["light"], to=TensorProto.FLOAT),
        helper.make_node("ReduceSum", ["light", "plane"], ["sum"], keepdims=0),
        helper.make_node("Add", ["sum", "tiny"], ["mass"]),
        helper.make_node("ReduceMax", ["light", "plane"], ["peak"], keepdims=0),
        helper.make_node("Div", ["peak", "full"], ["scores"]),
    ]
    for axis in ("x", "y"):
        nodes += [
            helper.make_node("Mul", ["light", f"{axis}s"], [f"{axis}_light"]),
            helper.make_node("ReduceSum", [f"{axis}_light", "plane"], [f"{axis}_sum"], keepdims=0),
            helper.make_node("Div", [f"{axis}_sum", "mass"], [f"{axis}_mean"]),
            helper.make_node("Unsqueeze", [f"{axis}_mean", "last"], [f"{axis}_column"]),
        ]
    nodes.append(helper.make_node("Concat", ["x_column", "y_column"], ["keypoints"], axis=-1))
    graph = helper.make_graph(
        nodes,
        "centroid",
        [helper.make_tensor_value_info("crops", TensorProto.UINT8, [batch, 3, height, width])],
        [
            helper.make_tensor_value_info("keypoints", TensorProto.FLOAT, [batch, 3, 2]),
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, [batch, 3]),
        ],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    path.parent.mkdir(exist_ok=True)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9), path)
    return write_sidecar(path, batch=batch, **values)


def write_centroid_openvino(onnx_path: Path, path: Path) -> Path:
    """The ONNX model as OpenVINO IR."""
    import openvino

    openvino.save_model(openvino.convert_model(onnx_path), path, compress_to_fp16=False)
    return write_sidecar(path)


def write_centroid_executorch(path: Path) -> Path:
    """The same computation as an ExecuTorch program; its input is float32."""
    import torch
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    class Centroid(torch.nn.Module):
        def forward(self, crops: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            height, width = crops.shape[2:]
            mass = crops.sum((2, 3)) + 1e-6
            x = (crops.sum(2) * (torch.arange(width) + 0.5) / width).sum(2) / mass
            y = (crops.sum(3) * (torch.arange(height) + 0.5) / height).sum(2) / mass
            return torch.stack([x, y], dim=-1), crops.amax((2, 3)) / 255

    crops = torch.rand(1, 3, SIZE_WH[1], SIZE_WH[0]) * 255
    exported = torch.export.export(Centroid().eval(), (crops,))
    lowered = to_edge_transform_and_lower(exported, partitioner=[XnnpackPartitioner()]).to_executorch()
    path.write_bytes(lowered.buffer)
    return write_sidecar(path, input_dtype="float32")


@pytest.fixture
def moving_dots(tmp_path: Path) -> tuple[Path, np.ndarray]:
    """A clip of 12 frames at 10 per second, 320 x 240, and the true key points (12, 3, 2)."""
    start = np.array([[60.0, 80], [40, 150], [90, 160]])
    truth = start + np.arange(12).reshape(-1, 1, 1) * np.array([8.0, 1])
    path = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (320, 240))
    for dots in truth:
        writer.write(dots_image((320, 240), dots, radius=12))
    writer.release()
    return path, truth


@pytest.fixture
def interrupt_after():
    """A function that brings Ctrl-C, once, after so many seconds; main thread only."""

    def interrupt(*_):
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGALRM, interrupt)
    yield lambda seconds: signal.setitimer(signal.ITIMER_REAL, seconds)
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, previous)
