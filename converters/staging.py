"""All or nothing: files are made in a hidden folder and appear together, or the target folder stays as it was."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def staging(output: Path) -> Iterator[Path]:
    """A hidden folder inside `output` (so on the same disk), whose contents move up to `output` at the end.

    An exception removes the folder, and `output` too if it was made for this.
    """
    is_new = not output.exists()
    output.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=".converting-", dir=output))
    try:
        fresh = folder / "new"
        fresh.mkdir()
        yield fresh
        _install(fresh, output, folder / "old")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if is_new and not any(output.iterdir()):
            output.rmdir()


def _install(fresh: Path, output: Path, old: Path) -> None:
    """Move everything from `fresh` to `output`, sidecars last; what it replaces goes to `old`, and back on failure."""
    old.mkdir()
    names = sorted((path.name for path in fresh.iterdir()), key=lambda name: (name.endswith(".json"), name))
    moved: list[str] = []
    try:
        for name in names:
            if (output / name).exists():
                os.replace(output / name, old / name)
            moved.append(name)
            os.replace(fresh / name, output / name)
    except OSError:
        for name in moved:
            if (output / name).exists():
                os.replace(output / name, fresh / name)
            if (old / name).exists():
                os.replace(old / name, output / name)
        raise
