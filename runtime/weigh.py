"""What opening an artifact costs in this process: seconds, and memory at its peak.

    python -m runtime.weigh pose.onnx --threads 1        # one line of JSON

A process of its own for each artifact: memory that an engine once took is rarely given back, and a second engine would
add to the first one's.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np

from runtime.backends import open_backend
from runtime.errors import PoseError
from runtime.sidecar import Sidecar


def weigh(path: Path, threads: int = 1) -> dict[str, float]:
    """Open an artifact, run it once, and open it again.

    Returns:
        `start_s`, the first opening with its engine's import and one inference; `load_s`, the second opening alone;
        `peak_mb`, the most memory that this process has held until the first inference was done (10^6 bytes).
    Raises:
        PoseError: the artifact cannot be opened or run.
    """
    sidecar = Sidecar.read(path)
    sidecar.verify(path)
    width, height = sidecar.input_size_wh
    crops = np.full((sidecar.batch, 3, height, width), 128, dtype=sidecar.input_dtype)
    started = time.perf_counter()
    backend = open_backend(path, threads=threads)
    backend.infer(crops)
    start_s, peak_mb = time.perf_counter() - started, peak_megabytes()
    backend.close()
    started = time.perf_counter()
    open_backend(path, threads=threads).close()
    return {"start_s": start_s, "load_s": time.perf_counter() - started, "peak_mb": peak_mb}


def peak_megabytes() -> float:
    """The most memory that this process has held, in 10^6 bytes; NaN where the system does not tell."""
    status = Path("/proc/self/status")
    if status.is_file():  # what getrusage says there is also of the program that started this one
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
        return int(lines["VmHWM"].split()[0]) * 1024 / 1e6
    try:
        import resource
    except ImportError:  # Windows
        return float("nan")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6  # bytes there, KiB elsewhere


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m runtime.weigh", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("artifact", type=Path)
    parser.add_argument("--threads", type=int, default=1, help="of the engine (default 1)")
    args = parser.parse_args(argv)
    try:
        print(json.dumps(weigh(args.artifact, args.threads)))
    except PoseError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
