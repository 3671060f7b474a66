"""Opens what a user names: a picture, folder, glob, video, camera or stream."""

from __future__ import annotations

import glob
from pathlib import Path

from runtime.camera import RETRY_S, open_camera, open_stream
from runtime.errors import InputError
from runtime.pictures import IMAGE_EXTENSIONS, open_picture, open_pictures, read_image, shows_one
from runtime.source import RawFrame, Source
from runtime.video_file import VIDEO_EXTENSIONS, open_video

__all__ = ["IMAGE_EXTENSIONS", "VIDEO_EXTENSIONS", "RawFrame", "Source", "open_source", "read_image"]

FILE_SCHEME, THIS_MACHINE = "file://", "localhost"
LEGAL_SOURCES = "legal are a picture, a folder, a glob, a video file, a camera's number and a stream's URL"


def open_source(source: str | int | Path, retry_s: float = RETRY_S) -> Source:
    """Open 0, "0", "clip.mp4", "photo.jpg", "folder", "folder/*.png", "file:///clip.mp4" or "rtsp://...".

    Args:
        retry_s: how long a camera or stream that is lost is looked for before it is an InputError.
    Raises:
        InputError: nothing there, or nothing that can be opened; the message names the source and what is legal.
    """
    text = str(source)
    if isinstance(source, bool) or not text:
        raise InputError(f"the source is {source!r}, {LEGAL_SOURCES}")
    if text.isdecimal():
        return open_camera(int(text), retry_s)
    if text.lower().startswith(FILE_SCHEME):
        text = path_of(text)
    elif "://" in text:
        return open_stream(text, retry_s)
    path = Path(text)
    if path.is_dir():
        return open_pictures(path, list(path.iterdir()))
    if path.is_file():
        return open_picture(path) if shows_one(path) else open_video(str(path))
    if glob.has_magic(text):
        return open_pictures(path, [Path(name) for name in glob.glob(text)])
    raise InputError(f"{text}: no such file or folder, {LEGAL_SOURCES}")


def path_of(url: str) -> str:
    """The path that a `file://` URL names; its escapes, such as %20, are resolved."""
    from urllib.request import url2pathname  # slow to import

    path = url[len(FILE_SCHEME) :]
    return url2pathname(path[len(THIS_MACHINE) :] if path.startswith(f"{THIS_MACHINE}/") else path)
