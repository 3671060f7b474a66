"""What is left behind: drawn pictures, videos and JSON lines, under a temporary name until they are complete."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Protocol

import cv2

from runtime.disk import LineFile, check_room, check_target, is_same, partial_path, trial_path
from runtime.errors import InputError
from runtime.geometry import Image
from runtime.results import Frame
from runtime.video import IMAGE_EXTENSIONS, Source

VIDEO_CODECS = {".mp4": "mp4v", ".m4v": "mp4v", ".mov": "mp4v", ".avi": "MJPG", ".mkv": "mp4v"}
LIVE_FPS = 30.0  # of a camera's film at most, however fast the camera is
LONGEST_HOLD_S = 2.0  # for which a film shows one frame of a camera
CHECK_ROOM_EVERY = 10  # frames of a video


class Recorder(Protocol):
    """Takes every frame with its drawing; opens its file with the first one."""

    path: Path
    is_written: bool  # whether something lies there, complete

    def write(self, frame: Frame, drawn: Image) -> None:
        """Add a frame."""

    def close(self) -> None:
        """Finish what was written."""


class Recording:
    """Several recorders as one `with`: all finish together. Frames may come from another thread.

    What was written stays, whatever ended it. While files are completed, Ctrl-C has no effect.
    """

    def __init__(self, recorders: list[Recorder]) -> None:
        self.recorders = recorders
        self._lock = threading.Lock()
        self._closed = False

    def write(self, frame: Frame, drawn: Image) -> None:
        """Hand a frame to every recorder; nothing happens after the end."""
        with self._lock:
            for recorder in [] if self._closed else self.recorders:
                try:
                    recorder.write(frame, drawn)
                except OSError as error:
                    raise InputError(f"{recorder.path}: cannot be written: {error.strerror}") from error

    def add(self, recorder: Recorder) -> None:
        """From the next frame on, one recorder more."""
        with self._lock:
            self.recorders.append(recorder)

    def end(self, recorder: Recorder) -> None:
        """Complete one of the recorders; the others go on. InputError when it cannot be completed."""
        with undisturbed(), self._lock:
            self.recorders.remove(recorder)
            failure = close_recorder(recorder)
        if failure:
            raise failure

    def __enter__(self) -> Recording:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with undisturbed(), self._lock:
            self._closed = True
            failures = [failure for recorder in self.recorders if (failure := close_recorder(recorder))]
        if failures and error is None:
            raise failures[0]


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Ctrl-C and SIGTERM have no effect meanwhile; elsewhere than in the main thread they come to nobody anyway."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    former = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, reaction in former.items():
            signal.signal(number, reaction)


def close_recorder(recorder: Recorder) -> InputError | None:
    """Close it; what goes wrong is returned, so that the others are closed as well."""
    try:
        recorder.close()
    except OSError as error:
        return InputError(f"{recorder.path}: cannot be completed: {error.strerror}")
    except InputError as error:
        return error
    return None


class PictureRecorder:
    """The one drawn picture of an image source."""

    def __init__(self, path: Path) -> None:
        check_target(path, IMAGE_EXTENSIONS)
        self.path, self.is_written = path, False

    def write(self, frame: Frame, drawn: Image) -> None:
        """Write the picture."""
        write_image(self.path, drawn)
        self.is_written = True

    def close(self) -> None:
        """Nothing is open."""


class FolderRecorder:
    """Drawn pictures under the names of the originals, in a folder that is made with the first one."""

    def __init__(self, folder: Path) -> None:
        if folder.suffix.lower() in (*IMAGE_EXTENSIONS, *VIDEO_CODECS):
            raise InputError(f"{folder}: is the name of a file; the drawn pictures of a folder need a folder")
        if folder.exists() and not folder.is_dir():
            raise InputError(f"{folder}: is a file; the drawn pictures of a folder need a folder")
        check_target(folder / "picture" if folder.is_dir() else folder)
        self.path, self.is_written = folder, False
        self.names: set[str] = set()

    def write(self, frame: Frame, drawn: Image) -> None:
        """Write one picture; of two with the same name, the second gets its number in front."""
        name = frame.name
        while name in self.names:
            name = f"{frame.index}-{name}"
        self.names.add(name)
        self.path.mkdir(exist_ok=True)
        write_image(self.path / name, drawn)
        self.is_written = True

    def close(self) -> None:
        """Nothing is open."""


class VideoRecorder:
    """A video in the size of its first frame; frames of another size are scaled to it.

    OpenCV does not say when a disk is full, so room for the video's index is kept free, and the end is checked.

    Args:
        path: .mp4 and others of VIDEO_CODECS.
        fps: frames per second of the video.
        by_time: keep to the frames' own time: one stays until the next one's moment has come, and gaps of more than
            LONGEST_HOLD_S are left out. For cameras, which drop frames and go away. Otherwise each frame is there once.
    """

    def __init__(self, path: Path, fps: float, by_time: bool = False) -> None:
        check_target(path, tuple(VIDEO_CODECS))
        check_room(path.parent, path)
        self.path, self.by_time, self.is_written = path, by_time, False
        self.fps = min(fps, LIVE_FPS) if by_time else fps
        self.partial = partial_path(path)
        self.writer: cv2.VideoWriter | None = None
        self.size_wh = (0, 0)
        self.num_frames = 0
        self._first_s = 0.0  # of the film's clock, moved on by what is left out
        self._last: tuple[float, Image] | None = None  # when it was taken, and its drawing

    def write(self, frame: Frame, drawn: Image) -> None:
        """Add a drawn frame; InputError, before the file is harmed, when the disk is nearly full."""
        if self.writer is None:
            self.size_wh, self._first_s = (drawn.shape[1], drawn.shape[0]), frame.time_s
            self.writer = self._open()
        if (drawn.shape[1], drawn.shape[0]) != self.size_wh:
            drawn = cv2.resize(drawn, self.size_wh, interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
        for picture in self._due(frame.time_s, drawn) if self.by_time else [drawn]:
            self._add(self.writer, picture)

    def _due(self, time_s: float, drawn: Image) -> list[Image]:
        """What the film needs until now: the last drawing as often as it stays, then this one, if it is time."""
        last_s, last = self._last or (time_s, drawn)
        self._first_s += max(time_s - last_s - LONGEST_HOLD_S, 0.0)
        self._last = time_s, drawn
        place = round((time_s - self._first_s) * self.fps)
        return [last] * (place - self.num_frames) + [drawn] * (place >= self.num_frames)

    def _add(self, writer: cv2.VideoWriter, drawn: Image) -> None:
        if self.num_frames % CHECK_ROOM_EVERY == 0:
            check_room(self.path.parent, self.path, self.partial.stat().st_size)
        writer.write(drawn)
        self.num_frames += 1

    def _open(self) -> cv2.VideoWriter:
        codec = cv2.VideoWriter.fourcc(*VIDEO_CODECS[self.path.suffix.lower()])
        writer = cv2.VideoWriter(str(self.partial), codec, self.fps, self.size_wh)
        if not writer.isOpened():
            raise InputError(f"{self.path}: OpenCV cannot write a video of {self.size_wh} px there")
        return writer

    def close(self) -> None:
        """Complete the file and give it its name; InputError when its end is missing on the disk."""
        if self.writer is None:
            return
        self.writer.release()
        self.writer = None
        os.replace(self.partial, self.path)
        if not cv2.VideoCapture(str(self.path)).isOpened():
            raise InputError(f"{self.path}: is not complete, its end could not be written")
        self.is_written = True


class JsonRecorder:
    """One line of JSON per frame, on the disk when it is written; "-" is standard output."""

    def __init__(self, path: Path) -> None:
        self.path, self.partial, self.is_written = path, partial_path(path), False
        self.file: LineFile | None = None
        if not self.is_stdout:
            check_target(path)

    @property
    def is_stdout(self) -> bool:
        """Whether the lines are printed."""
        return str(self.path) == "-"

    def write(self, frame: Frame, drawn: Image) -> None:
        """Add a line."""
        if self.is_stdout:
            print_line(frame.to_json())
            return
        self.file = self.file or LineFile(self.partial)
        self.file.write(frame.to_json())

    def close(self) -> None:
        """Complete the file and give it its name."""
        if self.file is not None:
            self.file.close()
            os.replace(self.partial, self.path)
            self.is_written = True


def print_line(line: str) -> None:
    """Print at once. When nobody reads any more (`| head`), what is left in the buffer goes nowhere."""
    try:
        print(line, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise


def recorder_for(source: Source, path: Path) -> Recorder:
    """What `--save` means for this source: a picture, a folder of pictures or a video."""
    if source.kind == "image":
        return PictureRecorder(path)
    return FolderRecorder(path) if source.kind == "folder" else VideoRecorder(path, source.fps, source.is_live)


def refuse_overwriting(source: Source, targets: Sequence[Path]) -> None:
    """InputError for a target that is the source itself, or one of its pictures, or another target.

    The names that a target has until it is complete count as well.
    """
    originals = list(source.paths)
    if source.kind == "folder":  # a link's own folder, and the one that it leads to
        originals += [folder for path in source.paths for folder in (path.parent, path.resolve().parent)]
    if source.kind == "video":
        originals.append(Path(source.name))
    for number, target in enumerate(targets):
        if any(is_same(target, original) for original in originals):
            raise InputError(f"{target}: is the source itself, what is written needs another name")
        for passing in (trial_path(target), partial_path(target)):
            if any(is_same(passing, original) for original in originals):
                raise InputError(f"{target}: would be written as {passing} first, which is the source")
        if any(is_same(target, other) for other in targets[:number]):
            raise InputError(f"{target}: is given twice, drawings and JSON need a file each")


def write_image(path: Path, image: Image) -> None:
    """Encode by the file's extension, write beside the target, rename."""
    written, encoded = cv2.imencode(path.suffix, image)
    if not written:
        raise InputError(f"{path}: OpenCV cannot write this format")
    partial = partial_path(path)
    try:
        partial.write_bytes(encoded.tobytes())
        os.replace(partial, path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise InputError(f"{path}: cannot be written: {error.strerror}") from error
