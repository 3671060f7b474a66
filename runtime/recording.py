"""What is left behind: drawn pictures, videos and JSON lines, under a temporary name until they are complete."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import TracebackType
from typing import Protocol, TextIO

import cv2

from runtime.errors import InputError
from runtime.geometry import Image
from runtime.results import Frame
from runtime.video import IMAGE_EXTENSIONS, Source

VIDEO_CODECS = {".mp4": "mp4v", ".m4v": "mp4v", ".mov": "mp4v", ".avi": "MJPG", ".mkv": "mp4v"}


class Recorder(Protocol):
    """Takes every frame with its drawing; opens its file with the first one."""

    path: Path

    def write(self, frame: Frame, drawn: Image) -> None:
        """Add a frame."""

    def close(self, keep: bool) -> None:
        """Finish; without `keep`, leave nothing behind."""


class Recording:
    """Several recorders as one `with`: all finish together.

    What was written stays when the source ends, breaks off or Ctrl-C is pressed; after any other error nothing stays.
    """

    def __init__(self, recorders: list[Recorder]) -> None:
        self.recorders = recorders

    def write(self, frame: Frame, drawn: Image) -> None:
        """Hand a frame to every recorder."""
        for recorder in self.recorders:
            try:
                recorder.write(frame, drawn)
            except OSError as error:
                raise InputError(f"{recorder.path}: cannot be written: {error.strerror}") from error

    def __enter__(self) -> Recording:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        keep = error is None or isinstance(error, KeyboardInterrupt | InputError)
        for recorder in self.recorders:
            recorder.close(keep)


class PictureRecorder:
    """The one drawn picture of an image source."""

    def __init__(self, path: Path) -> None:
        check_target(path, IMAGE_EXTENSIONS)
        self.path = path

    def write(self, frame: Frame, drawn: Image) -> None:
        """Write the picture."""
        write_image(self.path, drawn)

    def close(self, keep: bool) -> None:
        """Nothing is open."""


class FolderRecorder:
    """Drawn pictures under the names of the originals, in a folder that is made with the first one."""

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            check_target(folder, ())
        if folder.exists() and not folder.is_dir():
            raise InputError(f"{folder}: is a file; the drawn pictures of a folder need a folder")
        self.path = folder
        self.names: set[str] = set()

    def write(self, frame: Frame, drawn: Image) -> None:
        """Write one picture; of two with the same name, the second gets its number in front."""
        name = frame.name if frame.name not in self.names else f"{frame.index}-{frame.name}"
        self.names.add(name)
        self.path.mkdir(exist_ok=True)
        write_image(self.path / name, drawn)

    def close(self, keep: bool) -> None:
        """Nothing is open."""


class VideoRecorder:
    """A video in the size of its first frame; frames of another size are scaled to it."""

    def __init__(self, path: Path, fps: float) -> None:
        check_target(path, tuple(VIDEO_CODECS))
        self.path, self.fps = path, fps
        self.partial = partial_path(path)
        self.writer: cv2.VideoWriter | None = None
        self.size_wh = (0, 0)

    def write(self, frame: Frame, drawn: Image) -> None:
        """Add a drawn frame."""
        if self.writer is None:
            self.size_wh = (drawn.shape[1], drawn.shape[0])
            self.writer = self._open()
        same = (drawn.shape[1], drawn.shape[0]) == self.size_wh
        self.writer.write(drawn if same else cv2.resize(drawn, self.size_wh, interpolation=cv2.INTER_AREA))

    def _open(self) -> cv2.VideoWriter:
        codec = cv2.VideoWriter.fourcc(*VIDEO_CODECS[self.path.suffix.lower()])
        writer = cv2.VideoWriter(str(self.partial), codec, self.fps, self.size_wh)
        if not writer.isOpened():
            raise InputError(f"{self.path}: OpenCV cannot write a video of {self.size_wh} px there")
        return writer

    def close(self, keep: bool) -> None:
        """Complete the file and give it its name, or remove it."""
        if self.writer is not None:
            self.writer.release()
            _finish(self.partial, self.path, keep)


class JsonRecorder:
    """One line of JSON per frame; "-" is standard output."""

    def __init__(self, path: Path) -> None:
        self.path, self.partial = path, partial_path(path)
        self.file: TextIO | None = sys.stdout if str(path) == "-" else None
        if self.file is None:
            check_target(path, ())

    def write(self, frame: Frame, drawn: Image) -> None:
        """Add a line."""
        if self.file is None:
            self.file = self.partial.open("w", encoding="utf-8")
        self.file.write(frame.to_json() + "\n")

    def close(self, keep: bool) -> None:
        """Complete the file and give it its name, or remove it."""
        if self.file is sys.stdout:
            self.file.flush()
        elif self.file is not None:
            self.file.close()
            _finish(self.partial, self.path, keep)


def recorder_for(source: Source, path: Path) -> Recorder:
    """What `--save` means for this source: a picture, a folder of pictures or a video; never the source itself."""
    originals = {original.resolve() for original in source.paths} or {Path(source.name).resolve()}
    if path.resolve() in originals | {original.parent for original in originals if source.kind == "folder"}:
        raise InputError(f"{path}: is the source itself, the drawing needs another name")
    if source.kind == "image":
        return PictureRecorder(path)
    return FolderRecorder(path) if source.kind == "folder" else VideoRecorder(path, source.fps)


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


def check_target(path: Path, extensions: tuple[str, ...]) -> None:
    """An InputError before work starts: unknown extension, no such folder, folder not writable."""
    if extensions and path.suffix.lower() not in extensions:
        raise InputError(f"{path}: the extension is '{path.suffix}', legal here are {' '.join(extensions)}")
    if path.is_dir():
        raise InputError(f"{path}: is a folder, a file's name is needed")
    if not path.parent.is_dir():
        raise InputError(f"{path}: there is no folder {path.parent}")
    if not os.access(path.parent, os.W_OK):
        raise InputError(f"{path}: the folder {path.parent} cannot be written to")


def partial_path(path: Path) -> Path:
    """The temporary name, in the same folder and with the same extension: `.clip.partial.mp4`."""
    return path.with_name(f".{path.stem}.partial{path.suffix}") if path.name else path


def _finish(partial: Path, path: Path, keep: bool) -> None:
    if keep:
        os.replace(partial, path)
    else:
        partial.unlink(missing_ok=True)
