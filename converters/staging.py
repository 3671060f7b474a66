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

    An exception removes the folder, and `output` and the folders above it too if they were made for this.
    """
    made = [place for place in (output, *output.parents) if not place.exists()]
    output.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=".converting-", dir=output))
    try:
        fresh = folder / "new"
        fresh.mkdir()
        yield fresh
        _install(fresh, output, folder / "old")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        for place in made:
            if not any(place.iterdir()):
                place.rmdir()


def _install(fresh: Path, output: Path, old: Path) -> None:
    """Move everything from `fresh` to `output`, sidecars last; what it replaces goes to `old`, and back on failure."""
    old.mkdir()
    names = sorted((path.name for path in fresh.iterdir()), key=lambda name: (name.endswith(".json"), name))
    moved: list[str] = []
    try:
        for name in names:
            moved.append(name)
            if (output / name).exists():
                os.replace(output / name, old / name)
            os.replace(fresh / name, output / name)
    except BaseException:  # Ctrl-C too
        for name in moved:
            if not (fresh / name).exists():
                os.replace(output / name, fresh / name)
            if (old / name).exists():
                os.replace(old / name, output / name)
        raise
