"""One trained network in every format, and pictures to run it on."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from converters.__main__ import main as convert

ROOT = Path(__file__).parent.parent.parent
CHECKPOINT = ROOT / "models" / "tiny.safetensors"
EXTENSIONS = {"onnxruntime": ".onnx", "openvino": ".xml", "executorch": ".pte", "coreml": ".mlpackage"}
FORMATS = {"onnxruntime": "onnx", "openvino": "openvino", "executorch": "executorch", "coreml": "coreml"}


def artifacts(folder: Path, engines: list[str]) -> dict[str, Path]:
    """Engine -> the packaged network's artifact; converted where it is not there yet."""
    paths = {engine: folder / f"pose{EXTENSIONS[engine]}" for engine in engines}
    missing = [FORMATS[engine] for engine, path in paths.items() if not path.exists()]
    if missing and convert([str(CHECKPOINT), "--to", *missing, "--output", str(folder)]) != 0:
        raise SystemExit("the packaged network cannot be converted")
    return paths


def pictures(count: int, seed: int = 0, size_wh: tuple[int, int] = (320, 240)) -> list[np.ndarray]:
    """Smooth coloured patterns (H, W, 3) uint8, all different: enough for key points to move."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[0 : size_wh[1], 0 : size_wh[0]]
    images = []
    for _ in range(count):
        channels = []
        for _ in range(3):
            x, y, phase = [*random.uniform(0.005, 0.08, 2).tolist(), random.uniform(0, 6)]
            channels.append(127 + 127 * np.sin(x * columns + y * rows + phase) * np.cos(y * columns - x * rows))
        images.append(np.stack(channels, axis=-1).astype(np.uint8))
    return images
