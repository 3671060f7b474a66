"""The run folder: configuration, log, checkpoints, and the state that a run resumes from.

best.safetensors  last.safetensors  config.json  metrics.jsonl  curves.png  state/state.pt
"""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from runtime.errors import InputError


@dataclass
class Progress:
    """Where a run stands."""

    epoch: int = 0
    """Whole epochs done."""
    batch: int = 0
    """Batches done in the epoch under way."""
    loss_sum: float = 0.0
    """Over those batches."""
    step: int = 0
    """Optimiser steps done."""
    best: float = -1.0
    """Best validation figure so far, in percent."""
    seconds: float = 0.0
    """Training time so far."""


class RunFolder:
    """Files of one run. Everything is written to a temporary name first and appears whole."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def has_state(self) -> bool:
        """Whether there is something to resume."""
        return self._state.is_file()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Make the folder and keep other runs out of it, until the process ends; InputError while one is in it."""
        self._state.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self._state.with_name(".lock"))
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise InputError(f"{self.path}: another run writes into it; choose another --output") from None
        try:
            yield
        finally:
            lock.release()

    def write_config(self, config: dict[str, Any]) -> None:
        """Make the folder and write config.json: the network's configuration and the run's options."""
        self.path.mkdir(parents=True, exist_ok=True)
        _replace(self.path / "config.json", lambda path: path.write_text(json.dumps(config, indent=2) + "\n"))

    def read_config(self) -> dict[str, Any]:
        """What `write_config` wrote; empty without one."""
        path = self.path / "config.json"
        return json.loads(path.read_text()) if path.is_file() else {}  # type: ignore[no-any-return]

    def log(self, line: dict[str, Any]) -> None:
        """Append a line to metrics.jsonl."""
        with (self.path / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")

    def read_log(self) -> list[dict[str, Any]]:
        """All whole lines of metrics.jsonl; a run that was killed may have left half a line at its end."""
        path = self.path / "metrics.jsonl"
        if not path.is_file():
            return []
        lines = path.read_text().splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def clear(self) -> None:
        """Remove what a run that died before its first state left behind."""
        for name in ("metrics.jsonl", "best.safetensors", "last.safetensors", "curves.png"):
            (self.path / name).unlink(missing_ok=True)
        self.tidy()

    def tidy(self) -> None:
        """Remove what a process that was killed while it wrote left half-written."""
        for folder in (self.path, self._state.parent):
            for path in folder.glob(".*.tmp"):
                path.unlink(missing_ok=True)

    def cut_log(self, step: int) -> None:
        """Drop lines after `step`: a run that resumes from an older state writes them again."""
        kept = [json.dumps(line) + "\n" for line in self.read_log() if line["step"] <= step]
        _replace(self.path / "metrics.jsonl", lambda path: path.write_text("".join(kept)))

    def save_state(self, progress: Progress, tensors: dict[str, Any]) -> None:
        """Keep what `load_state` needs; the former state stays until the new one is whole."""
        self._state.parent.mkdir(exist_ok=True)
        content = {"progress": asdict(progress), **tensors}
        _replace(self._state, lambda path: torch.save(content, path))

    def load_state(self) -> tuple[Progress, dict[str, Any]]:
        """Progress and tensors of the newest state; InputError if it is damaged."""
        try:
            content = torch.load(self._state, map_location="cpu", weights_only=True)
            return Progress(**content.pop("progress")), content
        except (RuntimeError, KeyError, TypeError, OSError, ValueError, EOFError, pickle.UnpicklingError) as error:
            raise InputError(f"{self._state}: cannot resume from this state: {str(error).splitlines()[0]}") from error

    @property
    def _state(self) -> Path:
        return self.path / "state" / "state.pt"


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write(temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())  # or a machine that loses power may keep the name and lose the bytes
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
