"""Files that lose nothing when the disk is full: tried before work starts, kept complete while it lasts."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from runtime.errors import InputError

RESERVE_BYTES = 16 * 2**20  # kept free while a video grows: its index is written last
TRIAL_BYTES = 4096


def check_target(path: Path, extensions: tuple[str, ...] = ()) -> None:
    """Try to write beside the target before work starts, so that a mistake costs no work.

    Raises:
        InputError: unknown extension, a folder's name, no such folder, not writable, no room.
    """
    if extensions and path.suffix.lower() not in extensions:
        raise InputError(f"{path}: the extension is '{path.suffix}', legal here are {' '.join(extensions)}")
    trial = trial_path(path)
    try:
        if path.is_dir():
            raise InputError(f"{path}: is a folder, a file's name is needed")
        if not path.parent.is_dir():
            raise InputError(f"{path}: there is no folder {path.parent}")
        if path.exists() and not (path.is_file() and os.access(path, os.W_OK)):
            raise InputError(f"{path}: is there already and cannot be written to")
        try:
            trial.write_bytes(bytes(TRIAL_BYTES))
        finally:
            trial.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"{path}: the folder {path.parent} cannot be written to: {error.strerror}") from error


def check_room(folder: Path, path: Path, written_bytes: int = 0) -> None:
    """InputError when less than RESERVE_BYTES can still be written: on the disk, or by the limit of this program."""
    room = min(shutil.disk_usage(folder).free, file_size_limit() - written_bytes)
    if room < RESERVE_BYTES:
        left, needed = f"{max(room, 0) / 2**20:.1f} MiB", f"{RESERVE_BYTES // 2**20} MiB"
        raise InputError(f"{path}: cannot grow, there is room for {left} and {needed} are kept in reserve")


def file_size_limit() -> int:
    """Bytes that a file of this program may have (`ulimit -f`)."""
    if sys.platform == "win32":
        return sys.maxsize
    import resource

    soft_limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    return sys.maxsize if soft_limit == resource.RLIM_INFINITY else soft_limit


def trial_path(path: Path) -> Path:
    """What is written and removed before work starts, in the same folder."""
    return path.with_name(f".{path.stem}.trial{path.suffix}") if path.name else path


def partial_path(path: Path) -> Path:
    """The temporary name, in the same folder and with the same extension: `.clip.partial.mp4`."""
    return path.with_name(f".{path.stem}.partial{path.suffix}") if path.name else path


def is_same(one: Path, other: Path) -> bool:
    """Whether two paths lead to the same place, through links and on disks that ignore capitals."""
    return one.resolve() == other.resolve() or (one.exists() and other.exists() and one.samefile(other))


class LineFile:
    """A text file of whole lines: each is on the disk when `write` returns, and one that does not fit is taken back."""

    def __init__(self, path: Path) -> None:
        self.file = path.open("wb", buffering=0)
        self.size_bytes = 0

    def write(self, line: str) -> None:
        """Add a line; OSError when it does not fit, and then the file ends with the line before."""
        rest = memoryview(f"{line}\n".encode())
        try:
            while rest:
                rest = rest[self.file.write(rest) or 0 :]
        except OSError:
            self.file.truncate(self.size_bytes)
            raise
        self.size_bytes = self.file.tell()

    def close(self) -> None:
        """No lines afterwards."""
        self.file.close()
