"""What this machine can run: engines, versions, devices, threads, cameras and packaged models, each one tried.

`python -m runtime.doctor` or `python -m runtime doctor`. Engines and cameras run in child processes, which may crash or
hang. Exit code 0 when at least one engine works, 5 otherwise, 4 when --json cannot be written.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import json
import platform
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np

from runtime.backends import ENGINES, Engine, available_cpus
from runtime.disk import check_target
from runtime.errors import PoseError
from runtime.pose import MODELS_DIR
from runtime.progress import CLEAR_LINE
from runtime.trial import CAMERA_TIMEOUT_S, TIMEOUT_S, run_child, try_artifact, try_camera

MODULES = {"executorch": "executorch.runtime", "coreml": "coremltools"}  # engine -> what is imported; else its name
PACKAGES = {"coreml": "coremltools"}  # engine -> what pip installs; else its name
Thing = TypeVar("Thing", Engine, Path)
MAX_CAMERAS = 4  # that are looked for where the system has no list of them


def main(argv: list[str] | None = None) -> int:
    """Print the report; 0 when at least one engine works."""
    parser = argparse.ArgumentParser(
        "python -m runtime.doctor", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "models", nargs="*", type=Path, metavar="ARTIFACT", help="artifacts to try besides the packaged"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report as JSON too")
    parser.add_argument(
        "--timeout",
        type=float,
        default=TIMEOUT_S,
        metavar="S",
        help="seconds that a trial may take, cameras 20 at most",
    )
    parser.add_argument("--try", dest="engine", choices=[e.name for e in ENGINES], help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.engine:
        return print_engine(args.engine)
    if not args.timeout > 0:
        parser.error(f"--timeout {args.timeout:g}: legal are seconds above 0")
    try:
        if args.json:
            check_target(args.json)
    except PoseError as error:
        print("error:", error, file=sys.stderr)
        return error.exit_code
    report = examine([*packaged_models(), *args.models], args.timeout)
    print("\n".join(lines_of(report)))
    if args.json:
        args.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return 0 if any(not engine["problem"] for engine in report["engines"].values()) else 5


def examine(models: list[Path], timeout_s: float) -> dict[str, Any]:
    """Everything, as plain values; a `problem` is "" where something works."""
    engines = {engine.name: examine_engine(engine, timeout_s) for engine in announced(ENGINES)}
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "numpy": np.__version__,
        "opencv": cv2.__version__,
        "threads": available_cpus(),
        "engines": engines,
        "models": {
            str(path): examine_model(path, accelerators_for(path, engines), timeout_s) for path in announced(models)
        },
        "cameras": {str(number): examine_camera(number, timeout_s) for number in camera_numbers()},
    }


def announced(things: Sequence[Thing]) -> Iterator[Thing]:
    """The things, each one's name on the terminal while it is tried."""
    for thing in things:
        if sys.stderr.isatty():
            print(f"{CLEAR_LINE}trying {thing.name} ...", end="", file=sys.stderr, flush=True)
        yield thing
    if sys.stderr.isatty():
        print(CLEAR_LINE, end="", file=sys.stderr, flush=True)


def packaged_models() -> list[Path]:
    """The artifacts in the package, sorted by name."""
    extensions = {engine.extension for engine in ENGINES}
    return sorted(path for path in MODELS_DIR.glob("*") if path.suffix in extensions)


def examine_engine(engine: Engine, timeout_s: float) -> dict[str, Any]:
    """Its version, what it reads and the devices that it finds here; imported in a child process."""
    found, problem = run_child(["--try", engine.name], timeout_s, module="runtime.doctor")
    devices = found.get("devices", [])
    return {"version": version_of(engine), "extension": engine.extension, "devices": devices, "problem": problem}


def version_of(engine: Engine) -> str | None:
    """The version that pip knows, None when it is not installed."""
    try:
        return importlib.metadata.version(PACKAGES.get(engine.name, engine.name))
    except importlib.metadata.PackageNotFoundError:
        return None


def print_engine(name: str) -> int:
    """The child: import an engine and list its devices, as one line of JSON."""
    engine = next(engine for engine in ENGINES if engine.name == name)
    try:
        print(json.dumps({"devices": devices_of(engine)}))
    except ImportError as error:
        print(json.dumps({"problem": f"cannot be imported ({error}): {engine.install}"}))
    except PoseError as error:
        print(json.dumps({"problem": str(error)}))
    return 0


def devices_of(engine: Engine) -> list[str]:
    """Those legal devices of the engine that exist on this machine."""
    if engine.name == "coreml" and platform.system() != "Darwin":
        raise PoseError("Core ML predicts on macOS only")
    if engine.name == "onnxruntime":
        from runtime.backends.onnxruntime import PROVIDERS, import_engine

        present = import_engine().get_available_providers()
        return [device for device in engine.devices if PROVIDERS[device] in present]
    if engine.name == "openvino":
        from runtime.backends import openvino

        present = {name.split(".")[0].lower() for name in openvino.import_engine().Core().available_devices}
        return [device for device in engine.devices if device in present]
    importlib.import_module(MODULES.get(engine.name, engine.name))
    return list(engine.devices)


def accelerators_for(path: Path, engines: dict[str, dict[str, Any]]) -> list[str]:
    """The devices beside the CPU that this artifact's engine finds here."""
    found = [engine for engine in engines.values() if engine["extension"] == path.suffix]
    return [device for engine in found for device in engine["devices"] if device != "cpu"]


def examine_model(path: Path, accelerators: Sequence[str], timeout_s: float) -> dict[str, Any]:
    """Whether it can be opened and run on one thread, how long a call takes, and the same of each accelerator."""
    found = try_model(path, "cpu", timeout_s)
    return {**found, "accelerators": {device: try_model(path, device, timeout_s) for device in accelerators}}


def try_model(path: Path, device: str, timeout_s: float) -> dict[str, Any]:
    """Milliseconds of a call on a device, or what is wrong."""
    try:
        return {"milliseconds": try_artifact(path, device, threads=1, timeout_s=timeout_s), "problem": ""}
    except PoseError as error:
        return {"milliseconds": None, "problem": str(error).removeprefix(f"{path}: ")}


def camera_numbers() -> list[int]:
    """The cameras that may be there: by the list of the system, or the first few numbers."""
    if sys.platform.startswith("linux"):
        return sorted(int(path.name[5:]) for path in Path("/dev").glob("video*") if path.name[5:].isdecimal())
    return list(range(MAX_CAMERAS))


def examine_camera(number: int, timeout_s: float = CAMERA_TIMEOUT_S) -> dict[str, str]:
    """Size and rate, or why there are none."""
    works, problem = try_camera(number, min(timeout_s, CAMERA_TIMEOUT_S))
    return {"works": works, "problem": problem}


def lines_of(report: dict[str, Any]) -> list[str]:
    """The report for people."""
    lines = [f"python {report['python']} on {report['system']}"]
    lines.append(f"numpy {report['numpy']}, opencv {report['opencv']}, threads {report['threads']}")
    for name, engine in report["engines"].items():
        outcome = f"fails: {engine['problem']}" if engine["problem"] else f"finds {', '.join(engine['devices'])}"
        lines.append(f"engine {name} {engine['version'] or 'not installed'} ({engine['extension']}): {outcome}")
    for path, model in report["models"].items():
        for where, tried in (("", model), *((f" on {name}", one) for name, one in model["accelerators"].items())):
            works = tried["milliseconds"] is not None
            outcome = f"works, {tried['milliseconds']:.1f} ms a call" if works else f"fails: {tried['problem']}"
            lines.append(f"model {Path(path).name}{where}: {outcome}")
    for number, camera in report["cameras"].items():
        lines.append(f"camera {number}: {camera['works'] or 'fails: ' + camera['problem']}")
    return lines if report["cameras"] else [*lines, "no cameras"]


if __name__ == "__main__":
    sys.exit(main())
