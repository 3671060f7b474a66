"""The main job, end to end: train a tiny network, convert it to four formats, run each, and compare.

    python examples/demo.py --output demo

Leaves a trained checkpoint, four artifacts with sidecars, a rendered clip with drawn poses (pose.mp4), a contact sheet
of its frames (contact_sheet.png) and a table (table.md). Every step is a command that you could have typed.

The tests run what follows the conversion, on a packaged network: the four conversions alone take two minutes on a core,
however short the training, and have tests of their own.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np

from training.data.rendered import render_clip
from training.data.show import contact_sheet

FRAMES, FPS = 120, 25
FORMATS = {"onnx": "pose.onnx", "openvino": "pose.xml", "coreml": "pose.mlpackage", "executorch": "pose.pte"}


def main() -> None:
    """Run all steps."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("demo"))
    parser.add_argument(
        "--epochs", type=int, default=8, help="of 4096 rendered people each, about a minute (default 8)"
    )
    parser.add_argument("--rendered", type=int, default=4096, help="people per epoch (default 4096)")
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    run = args.output / "run"
    trained = ["--epochs", str(args.epochs), "--rendered", str(args.rendered), "--output", str(run)]
    step(
        "training.train", "--preset", "tiny", *trained, *(["--resume"] if (run / "state" / "state.pt").exists() else [])
    )
    artifacts = args.output / "artifacts"
    to = ["--to", *FORMATS, "--output", str(artifacts), "--json", str(args.output / "conversion.json")]
    step("converters", str(run / "best.safetensors"), *to)
    clip = args.output / "clip.mp4"
    truth = write_clip(clip)
    rows = [measure(name, artifacts / file, clip, truth) for name, file in FORMATS.items()]
    (args.output / "pose.mp4").write_bytes((args.output / "onnx.mp4").read_bytes())
    write_sheet(args.output / "pose.mp4", args.output / "contact_sheet.png")
    table = as_table(rows)
    (args.output / "table.md").write_text(table)
    print(f"\n{table}\nLook at {args.output / 'pose.mp4'} and {args.output / 'contact_sheet.png'}.")


def step(*command: str) -> None:
    """Run a module's command line and show it; end here if it fails."""
    print("\n$ python -m " + " ".join(command), flush=True)
    started = time.perf_counter()
    result = subprocess.run([sys.executable, "-m", *command], check=False)
    if result.returncode:
        raise SystemExit(result.returncode)
    print(f"  ({time.perf_counter() - started:.0f} s)", flush=True)


def write_clip(path: Path) -> np.ndarray:
    """Render the clip; returns its true key points (FRAMES, 17, 2) px."""
    size_wh = (640, 480)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), FPS, size_wh)
    truth = []
    for image, keypoints_xy in render_clip(np.random.default_rng(7), FRAMES, size_wh):
        writer.write(image)
        truth.append(keypoints_xy)
    writer.release()
    return np.stack(truth)


def measure(name: str, artifact: Path, clip: Path, truth: np.ndarray) -> dict[str, str]:
    """Run an artifact on the clip through the runtime; a row of the table."""
    parity = json.loads(artifact.with_name(artifact.name + ".json").read_text())["parity"]
    files = [f for f in artifact.rglob("*") if f.is_file()] if artifact.is_dir() else [artifact]
    files += [artifact.with_suffix(".bin")] if artifact.suffix == ".xml" else []
    row = {
        "format": name,
        "size, MB": f"{sum(f.stat().st_size for f in files) / 1e6:.2f}",
        "parity with the checkpoint, max px": f"{parity['max_px']:.5f}",
    }
    if name == "coreml" and platform.system() != "Darwin":
        return {**row, "latency, ms": "runs on macOS only", "median error on the clip, px": "-"}
    folder = clip.parent
    outputs = ["--save", str(folder / f"{name}.mp4"), "--json", str(folder / f"{name}.jsonl")]
    step("runtime.webcam", "--model", str(artifact), "--source", str(clip), *outputs, "--no-show", "--threads", "1")
    lines = [json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()]
    nobody = np.full_like(truth[0], np.nan)
    found = np.array([line["persons"][0]["keypoints_xy"] if line["persons"] else nobody for line in lines])
    latency = np.median([line["timing_ms"]["inference"] for line in lines])
    error = np.nanmedian(np.linalg.norm(found - truth[: len(found)], axis=-1))
    return {**row, "latency, ms": f"{latency:.2f}", "median error on the clip, px": f"{error:.1f}"}


def write_sheet(video: Path, path: Path, count: int = 12) -> None:
    """A contact sheet of `count` frames of a video."""
    capture, frames = cv2.VideoCapture(str(video)), []
    while True:
        good, image = capture.read()
        if not good:
            break
        frames.append(cv2.resize(image, (320, 240), interpolation=cv2.INTER_AREA))
    chosen = np.linspace(0, len(frames) - 1, count).astype(int)
    cv2.imwrite(str(path), contact_sheet([frames[i] for i in chosen], 4))


def as_table(rows: list[dict[str, str]]) -> str:
    """Rows as a Markdown table."""
    columns = list(rows[0])
    lines = [columns, ["---"] * len(columns), *([row[c] for c in columns] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


if __name__ == "__main__":
    main()
