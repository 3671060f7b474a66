"""Show, save and print the pose in pictures, videos and cameras: `python -m runtime.webcam`."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import cv2

from runtime.backends import ENGINES
from runtime.draw import SCORE_THRESHOLD, draw_text
from runtime.errors import PoseError
from runtime.geometry import Image
from runtime.pose import Pose
from runtime.recording import JsonRecorder, Recorder, Recording, recorder_for
from runtime.results import Frame
from runtime.video import Source, open_source

EXAMPLES = """\
examples:
  python -m runtime.webcam                                     the first camera, in a window (q quits, space pauses)
  python -m runtime.webcam --source clip.mp4 --save drawn.mp4 --json poses.jsonl --no-show
  python -m runtime.webcam --source photo.jpg --save drawn.jpg
  python -m runtime.webcam --source photos/ --save drawn/      every picture of a folder, or "photos/*.png"
  python -m runtime.webcam --source rtsp://host/stream --model pose.xml --device gpu

One person is followed: the whole frame is searched first, then the box follows the last pose. Without a display, a
picture is written to <name>-pose.jpg in the current folder.

exit codes: 0 ok, 2 usage, 3 model, 4 camera or input, 5 device, 130 interrupted
"""
WINDOW = "tfpose-edge"
PROBE = "import cv2; cv2.namedWindow('probe'); cv2.destroyAllWindows()"
PROBE_TIMEOUT_S = 20
PROGRESS_EVERY_S = 0.5
QUIT_KEYS, PAUSE_KEY = (ord("q"), 27), ord(" ")


def main(argv: list[str] | None = None) -> int:
    """Parse the command line, run, and turn errors into one line and an exit code."""
    args = build_parser().parse_args(argv)
    if not args.debug:
        silence_opencv()
    try:
        run(args.source, args.model, args.device, args.threads, args.save, args.json, args.threshold, not args.no_show)
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
    parser.add_argument("--model", metavar="ARTIFACT", help="a converted model (default: the packaged one)")
    parser.add_argument("--source", default="0", help="camera number, video, picture, folder, glob or URL (default: 0)")
    parser.add_argument("--device", default="cpu", help=f"where to run (default: cpu)\n{devices}")
    parser.add_argument(
        "--threads", type=thread_count, metavar="N", help="CPU threads of the engine (default: all it may use)"
    )
    parser.add_argument("--save", type=Path, metavar="FILE", help="write the drawn video, picture or folder")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="write one line of JSON per frame; - = standard output"
    )
    parser.add_argument(
        "--threshold", type=float, default=SCORE_THRESHOLD, metavar="X", help="score under which points fade (0.3)"
    )
    parser.add_argument("--no-show", action="store_true", help="open no window")
    parser.add_argument("--debug", action="store_true", help="show tracebacks and OpenCV's own messages")
    return parser


def thread_count(text: str) -> int:
    """An integer from 1 on; argparse turns the error into a usage error."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is no number of threads, legal are integers from 1 on")
    return int(text)


def run(
    source_name: str,
    model: str | None,
    device: str,
    threads: int | None,
    save: Path | None,
    json_path: Path | None,
    threshold: float,
    show: bool,
) -> None:
    """Open everything, so that mistakes show before work starts; then go through the frames."""
    with open_source(source_name) as source:
        show = show and has_display()
        if not show:
            save = save or fallback_target(source, json_path)
        recorders: list[Recorder] = [recorder_for(source, save)] if save else []
        if json_path:
            recorders.append(JsonRecorder(json_path))
        with Pose(model, device, threads) as pose, Recording(recorders) as recording:
            play(with_progress(pose.video(source), source), recording, threshold, show, source)
        report(source, save, json_path)


def play(frames: Iterator[Frame], recording: Recording, threshold: float, show: bool, source: Source) -> None:
    """Draw every frame, hand it on, show it until somebody presses q."""
    previous = time.perf_counter()
    try:
        for frame in frames:
            drawn = frame.draw(threshold)
            recording.write(frame, drawn)
            now = time.perf_counter()
            if show and not show_frame(drawn, frame, now - previous, wait_for_key=not source.is_continuous):
                return
            previous = now
    finally:
        if show:
            cv2.destroyAllWindows()


def show_frame(drawn: Image, frame: Frame, seconds: float, wait_for_key: bool) -> bool:
    """Put a frame into the window; False when the user wants to quit."""
    latency_ms = sum(frame.result.timing_ms.values())
    draw_text(drawn, f"{1 / max(seconds, 1e-6):.0f} fps  {latency_ms:.1f} ms")
    cv2.imshow(WINDOW, drawn)
    key = wait_key(0 if wait_for_key else 1)
    if key == PAUSE_KEY:
        key = wait_key(0)
    return key not in QUIT_KEYS


def wait_key(delay_ms: int) -> int:
    """The key pressed within `delay_ms` (0 = wait for one, or for the window to be closed); -1 for none."""
    if delay_ms:
        return cv2.waitKey(delay_ms) & 0xFF
    while cv2.getWindowProperty(WINDOW, cv2.WND_PROP_VISIBLE) >= 1:
        key = cv2.waitKey(50)
        if key != -1:
            return key & 0xFF
    return QUIT_KEYS[0]


def has_display() -> bool:
    """Whether a window can open. Tried in a child process, because some builds of OpenCV abort without a display."""
    if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return False
    try:
        probe = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, timeout=PROBE_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        return False
    return probe.returncode == 0


def fallback_target(source: Source, json_path: Path | None) -> Path | None:
    """Where drawings go when no window can be opened and no --save is given: only a picture has an obvious place."""
    if json_path:
        return None
    if source.kind == "image":
        return Path(f"{Path(source.name).stem}-pose.jpg")
    raise PoseError("there is no window (no display, or --no-show): add --save FILE or --json FILE")


def with_progress(frames: Iterator[Frame], source: Source) -> Iterator[Frame]:
    """The same frames, with one line on stderr that counts them, for sources that end."""
    started = printed = time.perf_counter()
    number = 0
    is_terminal = sys.stderr.isatty()
    for number, frame in enumerate(frames, start=1):
        yield frame
        now = time.perf_counter()
        if is_terminal and source.count and now - printed >= PROGRESS_EVERY_S:
            print(f"\r{progress_text(number, source, now - started)}", end="", file=sys.stderr, flush=True)
            printed = now
    if source.count != 1:
        text = progress_text(number, source, time.perf_counter() - started)
        print(f"\r{text}" if is_terminal else text, file=sys.stderr)


def progress_text(number: int, source: Source, seconds: float) -> str:
    """ "frame 120/600, 34.0 frames/s"."""
    total = f"/{source.count}" if source.count else ""
    return f"frame {number}{total}, {number / max(seconds, 1e-6):.1f} frames/s"


def report(source: Source, save: Path | None, json_path: Path | None) -> None:
    """Say what was left where."""
    if source.faults:
        print(f"{source.name}: " + ", ".join(f"{what}: {n}" for what, n in source.faults.items()), file=sys.stderr)
    for path in (save, json_path):
        if path is not None and str(path) != "-":
            print(f"written: {path}", file=sys.stderr)


def silence_opencv() -> None:
    """Keep OpenCV's and FFmpeg's own lines off stderr: what matters comes back as an error of ours."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


if __name__ == "__main__":
    sys.exit(main())
