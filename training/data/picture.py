"""Pictures: files of their own, or parts of a tar shard, decoded whole or refused."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from runtime.errors import InputError


@dataclass(frozen=True)
class PackedPicture:
    """A picture inside an uncompressed tar file; answers what a Path answers here."""

    shard: Path
    name: str
    """Of the tar's member."""
    offset: int
    """Bytes from the start of the shard to the picture's first."""
    size: int
    """Bytes."""

    def __str__(self) -> str:
        return f"{self.shard}:{self.name}"

    def is_file(self) -> bool:
        """Whether the shard is there and long enough."""
        return self.shard.is_file() and self.shard.stat().st_size >= self.offset + self.size

    def read_bytes(self) -> bytes:
        """The encoded picture."""
        with self.shard.open("rb") as file:
            file.seek(self.offset)
            return file.read(self.size)


@dataclass(frozen=True)
class PictureInMemory:
    """An encoded picture that is read already; answers what a Path answers here."""

    name: str
    encoded: bytes

    def __str__(self) -> str:
        return self.name

    def is_file(self) -> bool:
        """It is always there."""
        return True

    def read_bytes(self) -> bytes:
        """The encoded picture."""
        return self.encoded


Picture = Path | PackedPicture | PictureInMemory


def read_image(path: Picture) -> NDArray[np.uint8]:
    """Decode a picture to (H, W, 3) uint8 BGR; InputError if it is missing, damaged or truncated."""
    return decode(read_encoded(path), path)


def read_encoded(path: Picture) -> bytes:
    """A picture's file; InputError if it is missing or cannot be read."""
    if not path.is_file():
        raise InputError(f"{path}: no such picture")
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error


def decode(encoded: bytes, path: Picture, flags: int = cv2.IMREAD_COLOR) -> NDArray[np.uint8]:
    """Decode a picture's file to (H, W, 3) uint8 BGR, as OpenCV's `flags` say; InputError names `path` if damaged."""
    try:  # not imread, which accepts half a JPEG
        image = cv2.imdecode(np.frombuffer(encoded, dtype=np.uint8), flags) if encoded else None
    except cv2.error as error:
        raise InputError(f"{path}: not a readable picture: {error.err}") from error
    if image is None:
        raise InputError(f"{path}: not a readable picture (damaged or truncated, or no picture at all)")
    return image  # type: ignore[return-value]
