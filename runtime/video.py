"""Opens what a user names: a picture, folder, glob, video, camera or stream."""

from __future__ import annotations

import glob
import re
from pathlib import Path

from runtime.camera import RETRY_S, open_camera, open_stream
from runtime.errors import InputError
from runtime.pictures import IMAGE_EXTENSIONS, open_picture, open_pictures, read_image, shows_one
from runtime.source import RawFrame, Source
from runtime.video_file import VIDEO_EXTENSIONS, open_video

__all__ = ["IMAGE_EXTENSIONS", "VIDEO_EXTENSIONS", "RawFrame", "Source", "open_source", "read_image"]

FILE_SCHEME, THIS_MACHINE = "file://", "localhost"
CAMERA_DEVICE = r"/dev/video(\d+)"  # on Linux
LEGAL_SOURCES = "legal are a picture, a folder, a glob, a video file, a camera's number and a stream's URL"


def open_source(source: str | int | Path, retry_s: float = RETRY_S) -> Source:
    """Open 0, "0", "clip.mp4", "photo.jpg", "folder", "folder/**/*.png", "file:///clip.mp4" or "rtsp://...".

    A `Path` is never a camera's number.

    Args:
        retry_s: how long a camera or stream that is lost is looked for before it is an InputError.
    Raises:
        InputError: nothing there, or nothing that can be opened; the message names the source and what is legal.
    """
    text = str(source)
    if isinstance(source, bool) or not text:
        raise InputError(f"the source is {source!r}, {LEGAL_SOURCES}")
    if text.isdecimal() and not isinstance(source, Path):
        return open_camera(int(text), retry_s)
    if text.lower().startswith(FILE_SCHEME):
        text = path_of(text)
    elif "://" in text:
        return open_stream(text, retry_s)
    try:
        return open_path(Path(text), retry_s)
    except OSError as error:
        raise InputError(f"{text}: cannot be read: {error.strerror}") from error


def open_path(path: Path, retry_s: float) -> Source:
    """Open a picture, folder, glob, video or camera's device by its path; OSError where it cannot be looked at."""
    if path.is_dir():
        return open_pictures(path, list(path.iterdir()))
    if path.is_file():
        return open_picture(path) if shows_one(path) else open_video(str(path))
    if path.is_char_device() and (device := re.fullmatch(CAMERA_DEVICE, str(path.resolve()))):
        return open_camera(int(device[1]), retry_s)
    if glob.has_magic(str(path)):
        return open_pictures(path, [Path(name) for name in glob.glob(str(path), recursive=True)])
    raise InputError(f"{path}: no such file or folder, {LEGAL_SOURCES}")


def path_of(url: str) -> str:
    """The path that a `file://` URL names; its escapes, such as %20, are resolved."""
    from urllib.request import url2pathname  # slow to import

    path = url[len(FILE_SCHEME) :]
    return url2pathname(path[len(THIS_MACHINE) :] if path.startswith(f"{THIS_MACHINE}/") else path)
