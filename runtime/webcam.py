"""Show, save and print the pose in pictures, videos and cameras: `python -m runtime.webcam`."""

from __future__ import annotations

import argparse
import contextlib
import logging
import math
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NoReturn

import cv2

from runtime.backends import ENGINES, engine_for
from runtime.camera import RETRY_S
from runtime.detector_families import FAMILIES
from runtime.detectors import device_for
from runtime.draw import SCORE_THRESHOLD
from runtime.errors import PoseError
from runtime.identities import IDENTITIES
from runtime.network_detector import NetworkDetector
from runtime.playing import Player
from runtime.pose import DETECT_EVERY, MODELS_DIR, Pose, packaged_model
from runtime.progress import CLEAR_LINE
from runtime.recording import JsonRecorder, Recorder, Recording, recorder_for, refuse_overwriting
from runtime.sidecar import artifact_files
from runtime.turns import Turns
from runtime.video import Source, open_source
from runtime.window import KEYS_HELP, Window, has_display

EXAMPLES = f"""\
examples:
  python -m runtime.webcam                                     the first camera, in a window
  python -m runtime.webcam --source clip.mp4 --save drawn.mp4 --json poses.jsonl --no-show
  python -m runtime.webcam --source photo.jpg --save drawn.jpg
  python -m runtime.webcam --source photos/ --save drawn/      every picture of a folder, or "photos/*.png"
  python -m runtime.webcam --source rtsp://host/stream --model pose.xml --device gpu
  python -m runtime.webcam --source hall.mp4 --detector yolox.onnx --save drawn.mp4

in the window: {KEYS_HELP}.

Without --detector one person is followed: the whole frame is searched first, then the box follows the last pose. With
it, everybody is. A camera that is lost is opened again; an interrupted run leaves complete files. Without a display, a
picture is written to <name>-pose.jpg in the current folder.

exit codes: 0 ok, 2 usage, 3 model, 4 camera or input, 5 device, 130 interrupted
"""


def main(argv: list[str] | None = None) -> int:
    """Parse the command line, run, and turn errors into one line and an exit code."""
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.detector_family and args.detector in (None, "hog"):
        parser.error("--detector-family says what a --detector FILE is")
    if not args.debug:
        silence_opencv()
    log_warnings()
    try:
        models = [packaged_model(name) for name in args.model] if args.model else default_models()
        refuse_missing(models)
        people = {
            "detector": detector_of(args),
            "detect_every": args.detect_every,
            "tracker": args.tracker,
            "smoothing": args.smoothing == "on",
        }
        openers = [partial(Pose, path, args.device, args.threads, **people) for path in models]
        with termination_as_interrupt(), open_source(args.source, args.retry) as source:
            run(source, openers, args.save, args.json, args.threshold, not args.no_show)
    except PoseError as error:
        if args.debug:
            raise
        print("error:", " ".join(str(error).split()), file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    return 0


def build_parser() -> argparse.ArgumentParser:
    """The options of `python -m runtime.webcam`."""
    devices = "; ".join(f"{engine.extension}: {', '.join(engine.devices)}" for engine in ENGINES)
    parser = argparse.ArgumentParser(
        "python -m runtime.webcam", description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawTextHelpFormatter
    )
    add = parser.add_argument
    add(
        "--model",
        nargs="+",
        metavar="ARTIFACT",
        help="converted models, or names of packaged ones; the\nfirst is used, a key goes on to the next\n"
        "(default: all packaged ones)",
    )
    add("--source", default="0", help="camera number, video, picture, folder, glob or URL (default: 0)")
    add("--device", default="cpu", help=f"where to run (default: cpu)\n{devices}")
    add("--threads", type=count, metavar="N", help="CPU threads of the engine (default: all it may use)")
    add("--detector", metavar="FILE", help="follow several people: a detector's .onnx or .xml,\nor hog (OpenCV 4 only)")
    families = [family.name for family in FAMILIES]
    add("--detector-family", choices=families, metavar="NAME", help="if its outputs mislead:\n" + ", ".join(families))
    add(
        "--detect-every",
        type=count,
        default=DETECT_EVERY,
        metavar="N",
        help=f"frames between two detections (default: {DETECT_EVERY})",
    )
    add("--tracker", choices=IDENTITIES, default=IDENTITIES[0], help=f"who gives the ids (default: {IDENTITIES[0]})")
    add("--smoothing", choices=("on", "off"), default="on", help="steady key points in videos (default: on)")
    add("--save", type=Path, metavar="FILE", help="write the drawn video, picture or folder")
    add("--json", type=Path, metavar="FILE", help="write one line of JSON per frame; - = standard output")
    add("--threshold", type=share, default=SCORE_THRESHOLD, metavar="X", help="score under which points fade (0.3)")
    add(
        "--retry",
        type=seconds,
        default=RETRY_S,
        metavar="S",
        help=f"seconds that a lost camera is looked for (default: {RETRY_S:.0f})",
    )
    add("--no-show", action="store_true", help="open no window")
    add("--debug", action="store_true", help="show tracebacks and OpenCV's own messages")
    return parser


def count(text: str) -> int:
    """An integer from 1 on; argparse turns the error into a usage error."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not legal, legal are integers from 1 on")
    return int(text)


def share(text: str) -> float:
    """A number in 0..1, for argparse."""
    return _number(text, 0, 1)


def seconds(text: str) -> float:
    """A number of seconds from 0 on, for argparse."""
    return _number(text, 0, math.inf)


def _number(text: str, low: float, high: float) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (low <= value <= high and math.isfinite(value)):
        legal = f"numbers in {low:g}..{high:g}" if math.isfinite(high) else f"numbers from {low:g} on"
        raise argparse.ArgumentTypeError(f"'{text}' is not legal, legal are {legal}")
    return value


def refuse_missing(models: Sequence[Path]) -> None:
    """ModelFileError for a model that a key would ask for in vain, before work starts."""
    for path in models:
        engine_for(path)
        artifact_files(path)


def run(
    source: Source,
    openers: list[partial[Pose]],
    save: Path | None,
    json_path: Path | None,
    threshold: float,
    show: bool,
) -> None:
    """Open everything, so that mistakes show before work starts; then go through the frames."""
    show = show and has_display()
    if not show:
        save = save or fallback_target(source, json_path)
    targets = [path for path in (save, json_path) if path is not None and str(path) != "-"]
    refuse_overwriting(source, targets)
    recorders: list[Recorder] = [recorder_for(source, save)] if save else []
    if json_path:
        recorders.append(JsonRecorder(json_path))
    with Turns(list(openers), source) as turns, Recording(recorders) as recording:
        if isinstance(turns.pose.detect, NetworkDetector):
            print(f"detector {turns.pose.detect}", file=sys.stderr)
        try:
            Player(source, turns, recording, threshold, Window() if show else None).play()
        finally:
            report(source)
    for recorder in recorders:
        if recorder.is_written:  # nothing is, of no frame
            print(f"written: {recorder.path}", file=sys.stderr)


def detector_of(args: argparse.Namespace) -> str | NetworkDetector | None:
    """What `Pose` takes as its detector; of a family that is named, one for all models."""
    if args.detector_family is None:
        return args.detector  # type: ignore[no-any-return]
    device = device_for(Path(args.detector), args.device)
    return NetworkDetector(args.detector, device, args.threads, family=args.detector_family)


def default_models() -> list[Path]:
    """The default model, then the other packaged ones."""
    default = packaged_model()
    return [default, *(path for path in sorted(MODELS_DIR.glob("*.onnx")) if path != default)]


def fallback_target(source: Source, json_path: Path | None) -> Path | None:
    """Where drawings go when no window can be opened and no --save is given: only a picture has an obvious place."""
    if json_path:
        return None
    if source.kind == "image":
        return Path(f"{Path(source.name).stem}-pose.jpg")
    raise PoseError("there is no window (no display, or --no-show): add --save FILE or --json FILE")


def report(source: Source) -> None:
    """Say what went wrong with the source on the way."""
    if source.faults:
        print(f"{source.name}: " + ", ".join(f"{what}: {n}" for what, n in source.faults.items()), file=sys.stderr)


@contextlib.contextmanager
def termination_as_interrupt() -> Iterator[None]:
    """SIGTERM ends a run as Ctrl-C does, with complete files."""

    def interrupt(*_: object) -> NoReturn:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def log_warnings() -> None:
    """What goes wrong on the way, one line each on stderr, in place of a progress bar that may be there."""
    clear = CLEAR_LINE if sys.stderr.isatty() else ""
    logging.basicConfig(level=logging.WARNING, format=f"{clear}warning: %(message)s")


def silence_opencv() -> None:
    """Keep OpenCV's and FFmpeg's own lines off stderr: what matters comes back as an error of ours."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    os.environ.setdefault("QT_LOGGING_RULES", "*=false")
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


if __name__ == "__main__":
    sys.exit(main())
