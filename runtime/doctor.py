"""What this machine can run: engines, versions, devices, threads and packaged models: `python -m runtime.doctor`."""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import platform
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np

from runtime.backends import ENGINES, Engine, available_cpus
from runtime.errors import PoseError
from runtime.pose import MODELS_DIR, Pose

TRIAL_TIMEOUT_S = 120
TIMED_CALLS = 10


def main(argv: list[str] | None = None) -> int:
    """Print the report; 0 when at least one engine works."""
    parser = argparse.ArgumentParser("python -m runtime.doctor", description=__doc__)
    parser.add_argument(
        "--try", dest="trial", metavar="ENGINE", choices=[e.name for e in ENGINES], help="test one engine"
    )
    trial = parser.parse_args(argv).trial
    if trial is None:
        return print_report()
    try:
        print(try_engine(next(engine for engine in ENGINES if engine.name == trial)))
    except PoseError as error:
        print(" ".join(str(error).split()))
        return error.exit_code
    return 0


def print_report() -> int:
    """The whole report, each engine tested in a child process of its own, which may crash."""
    print(f"python {platform.python_version()} on {platform.system()} {platform.machine()}")
    print(f"numpy {np.__version__}, opencv {cv2.__version__}, threads {available_cpus()}")
    models = packaged_models()
    print(f"packaged models: {', '.join(path.name for path in models) or 'none'}")
    outcomes = [report_engine(engine) for engine in ENGINES]
    return 0 if any(outcomes) else 5


def packaged_models() -> list[Path]:
    """The artifacts in the package, sorted by name."""
    extensions = {engine.extension for engine in ENGINES}
    return sorted(path for path in MODELS_DIR.glob("*") if path.suffix in extensions)


def report_engine(engine: Engine) -> bool:
    """Two lines about an engine; whether it works."""
    print(f"{engine.name} {installed_version(engine)}, {engine.extension}, devices {', '.join(engine.devices)}")
    command = [sys.executable, "-m", "runtime.doctor", "--try", engine.name]
    try:
        child = subprocess.run(command, capture_output=True, text=True, timeout=TRIAL_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        print(f"  fails: no answer within {TRIAL_TIMEOUT_S} s")
        return False
    last_line = (child.stdout.strip() or child.stderr.strip() or f"exit code {child.returncode}").splitlines()[-1]
    print(f"  {'works' if child.returncode == 0 else 'fails'}: {last_line}")
    return child.returncode == 0


def installed_version(engine: Engine) -> str:
    """The version that pip knows, or how to install it."""
    package = "coremltools" if engine.name == "coreml" else engine.name
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return f"not installed ({engine.install})"


def try_engine(engine: Engine) -> str:
    """Run the engine's packaged models on a black picture; where there is none, load the engine's modules at least."""
    models = [path for path in packaged_models() if path.suffix == engine.extension]
    if not models:
        return try_import(engine)
    return ", ".join(f"{path.name} {milliseconds_per_call(path):.1f} ms" for path in models)


def try_import(engine: Engine) -> str:
    """Import what the back end imports; an ImportError ends the child with its text."""
    if engine.name == "coreml" and platform.system() != "Darwin":
        raise PoseError("Core ML predicts on macOS only")
    importlib.import_module({"coreml": "coremltools", "executorch": "executorch.runtime"}.get(engine.name, engine.name))
    return "imported; no packaged model has this format"


def milliseconds_per_call(path: Path) -> float:
    """Median wall time of a call with one box on a 640 x 480 picture."""
    image = np.zeros((480, 640, 3), dtype=np.uint8)
    durations = []
    with Pose(path) as pose:
        for _ in range(TIMED_CALLS):
            started = time.perf_counter()
            pose(image)
            durations.append((time.perf_counter() - started) * 1000)
    return float(np.median(durations))


if __name__ == "__main__":
    sys.exit(main())
