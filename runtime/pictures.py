"""Pictures in files: one, or those of a folder or glob, decoded only when their header says that they fit."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from runtime.errors import InputError
from runtime.geometry import Image
from runtime.picture_size import FORMATS, is_picture, picture_size_wh
from runtime.source import RawFrame, Source

IMAGE_EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
FILMS_OF_PICTURES = (".mjpeg", ".mjpg", ".apng")  # they begin like a picture
MAX_PIXELS = 64 * 10**6  # of a picture: 64 megapixels
MAX_FILE_BYTES = 10 * MAX_PIXELS  # more than four channels of 16 bits need

log = logging.getLogger(__name__)


class Pictures(Source):
    """One picture ("image"), or several ("folder"), where unreadable ones are reported and left out, unless all are."""

    def __iter__(self) -> Iterator[RawFrame]:
        index = 0
        for path in self.paths:
            try:
                image = read_image(path)
            except InputError as error:
                if self.kind == "image":
                    raise
                self.faults["picture unreadable"] += 1
                log.warning("skipped: %s", error)
                continue
            yield RawFrame(index, index / self.fps, path.name, image)
            index += 1
        if index == 0:
            raise InputError(f"{self.name}: none of its {len(self.paths)} pictures can be read")


def shows_one(path: Path) -> bool:
    """Whether a file is a picture, by its name or its first bytes: OpenCV's video readers decode pictures, too."""
    try:
        with path.open("rb") as file:
            is_film = path.suffix.lower() in FILMS_OF_PICTURES
            return path.suffix.lower() in IMAGE_EXTENSIONS or (is_picture(file.read(16)) and not is_film)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error


def open_picture(path: Path) -> Pictures:
    """A source of one frame."""
    return Pictures("image", str(path), count=1, paths=[path])


def open_pictures(path: Path, candidates: list[Path]) -> Pictures:
    """Those of the candidates that are files with a picture's extension, sorted; `path` is what the user named.

    Raises:
        InputError: there are none.
    """
    paths = sorted(p for p in candidates if p.suffix.lower() in IMAGE_EXTENSIONS and p.is_file())
    if not paths:
        raise InputError(f"{path}: no pictures there ({' '.join(IMAGE_EXTENSIONS)})")
    return Pictures("folder", str(path), count=len(paths), paths=paths)


def read_image(path: Path) -> Image:
    """Decode a picture as (H, W, 3) uint8 BGR, turned the way its EXIF entry says.

    Raises:
        InputError: unreadable, damaged, of an unknown format, or larger than MAX_PIXELS by its own header.
    """
    try:
        size = path.stat().st_size
        encoded = path.read_bytes() if size <= MAX_FILE_BYTES else b""
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    if size > MAX_FILE_BYTES:
        raise InputError(f"{path}: has {size} bytes, legal are {MAX_FILE_BYTES} at most")
    refuse_large(path, encoded)
    try:
        image = cv2.imdecode(np.frombuffer(encoded, dtype=np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:
        raise InputError(f"{path}: cannot be decoded: {error.err}") from error
    if image is None:
        raise InputError(f"{path}: cannot be decoded: truncated, or not a picture")
    return image  # type: ignore[return-value]


def refuse_large(path: Path, encoded: bytes) -> None:
    """InputError for a picture whose header announces more than MAX_PIXELS, or no size at all."""
    size_wh = picture_size_wh(encoded)
    if size_wh is None:
        raise InputError(f"{path}: cannot be decoded: truncated, or not a picture; {FORMATS} can be read")
    width, height = size_wh
    if width * height > MAX_PIXELS:
        raise InputError(f"{path}: has {width} x {height} px, legal are {MAX_PIXELS // 10**6} megapixels at most")
