"""The long counts of docs/reliability.md: `make soak`, or python -m benchmarks.soak [PART ...].

threads     one Pose used by 8 threads x 500 calls, on every engine
frames      20,000 answers of Pose.video, of Pose.live, and with a detector: memory, handles, threads
mutations   1,000 changed artifacts per format: refused before an engine sees them
mutants     500 of them per format with the check off: an error or an answer, never a hang or another exception
arguments   10,000 calls of Pose with any arguments: the right answer, or a ValueError that names the argument

`--share 0.05` runs a twentieth, as `make test` does. Exit code 1 when a figure is not what it must be.
"""

from __future__ import annotations

import argparse
import platform
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
ENGINES = ["onnxruntime", "openvino", "executorch"]
MAX_MIB_PER_10K = 1.0
Finding = tuple[str, bool]  # a line of the log, and whether it is as it must be


def main(argv: list[str] | None = None) -> int:
    """Run the parts and write the log."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks.soak", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)} (default: all)")
    parser.add_argument("--share", type=float, default=1.0, metavar="X", help="of the full counts (default: 1)")
    parser.add_argument("--artifacts", type=Path, default=Path("build/soak"), metavar="DIR", help="default: build/soak")
    parser.add_argument("--output", type=Path, metavar="FILE", help="append the log to a file too")
    args = parser.parse_args(argv)
    wrong = [part for part in args.parts if part not in PARTS]
    if wrong:
        parser.error(f"'{wrong[0]}' is no part, legal are {', '.join(PARTS)}")
    args.artifacts.mkdir(parents=True, exist_ok=True)
    log(f"{processor()}, python {platform.python_version()}, share {args.share:g}", args.output)
    all_well = True
    for part in args.parts or PARTS:
        started_s = time.monotonic()
        for line, well in PARTS[part](args.artifacts, args.share):
            log(f"{part:9} {line}{'' if well else '   NOT AS IT MUST BE'}", args.output)
            all_well &= well
        log(f"{part:9} took {time.monotonic() - started_s:.0f} s", args.output)
    return 0 if all_well else 1


def run_threads(folder: Path, share: float) -> Iterator[Finding]:
    """Part of its name."""
    from benchmarks.soak.artifacts import artifacts
    from benchmarks.soak.threads import hammer

    for engine, path in artifacts(folder, ENGINES).items():
        outcome = hammer(path, calls=round(500 * share))
        found = f"{len(outcome.errors)} errors, {outcome.different} results that differ from one thread's"
        yield f"{engine}: 8 threads, {outcome.calls} calls, {found}", not outcome.errors and not outcome.different


def run_frames(folder: Path, share: float) -> Iterator[Finding]:
    """Part of its name."""
    from benchmarks.soak.artifacts import artifacts
    from benchmarks.soak.frames import MODES, run_frames

    for engine, path in artifacts(folder, ENGINES).items():
        for mode in MODES:
            growth = run_frames(path, round(20_000 * share), mode)
            steady = growth.handles[0] == growth.handles[1] and growth.threads[0] == growth.threads[1]
            counts = (
                f"{growth.handles[0]}..{growth.handles[1]} handles, {growth.threads[0]}..{growth.threads[1]} threads"
            )
            line = f"{engine}, {mode}: {growth.frames} frames, {growth.mib_per_10k:+.2f} MiB per 10,000, {counts}"
            yield line, steady and growth.mib_per_10k < MAX_MIB_PER_10K


def run_mutations(folder: Path, share: float) -> Iterator[Finding]:
    """Part of its name."""
    from benchmarks.soak.artifacts import artifacts
    from benchmarks.soak.mutations import count_refused

    for engine, path in artifacts(folder, [*ENGINES, "coreml"]).items():
        count = round(1000 * share)
        refused = count_refused(path, count)
        yield f"{engine}: {refused} of {count} changed artifacts refused before the engine", refused == count


def run_mutants(folder: Path, share: float) -> Iterator[Finding]:
    """Part of its name."""
    from benchmarks.soak.artifacts import artifacts
    from benchmarks.soak.mutations import try_unchecked

    for engine, path in artifacts(folder, ENGINES).items():
        outcomes = try_unchecked(path, round(500 * share))
        well = all(what in ("works", "ModelFileError") or is_caught(what, engine) for what in outcomes)
        yield f"{engine}: {', '.join(f'{what} {n}' for what, n in sorted(outcomes.items()))}", well


def is_caught(what: str, engine: str) -> bool:
    """A file can kill ExecuTorch's loader; tried in a child process, as by `runtime.trial`, it is a ModelFileError."""
    return engine == "executorch" and what.startswith("crashed")


def run_arguments(folder: Path, share: float) -> Iterator[Finding]:
    """Part of its name."""
    import runtime
    from benchmarks.soak.arguments import check_arguments

    sys.path.append(str(ROOT / "tests"))  # for the network whose answer can be computed by hand
    from conftest import write_centroid_onnx

    cases = round(10_000 * share)
    with runtime.Pose(write_centroid_onnx(folder / "centroids" / "pose.onnx"), threads=1) as pose:
        check_arguments(pose, cases)
    yield f"{cases} calls: each the right answer, or a ValueError that names the argument", True


def processor() -> str:
    """The CPU's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def log(line: str, output: Path | None) -> None:
    """Print a line, and append it to the log file."""
    print(line, flush=True)
    if output is not None:
        with output.open("a", encoding="utf-8") as file:
            file.write(line + "\n")


PARTS: dict[str, Callable[[Path, float], Iterator[Finding]]] = {
    "threads": run_threads,
    "frames": run_frames,
    "mutations": run_mutations,
    "mutants": run_mutants,
    "arguments": run_arguments,
}

if __name__ == "__main__":
    sys.exit(main())
