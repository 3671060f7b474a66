"""A run that is killed while it writes its state resumes from what is there, with every loss as if it had lived."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from runtime.errors import InputError
from training.options import Options
from training.run import RunFolder
from training.train import train

ROOT = Path(__file__).parent.parent
KILLER = """
import io, os, signal, sys
import torch
whole, saves = torch.save, 0

def half(content, path):
    global saves
    saves += 1
    if saves < int(sys.argv[1]):
        return whole(content, path)
    whole(content, buffer := io.BytesIO())
    with open(path, "wb") as file:
        file.write(buffer.getvalue()[: len(buffer.getvalue()) // 2])
        file.flush()
        os.kill(os.getpid(), signal.SIGKILL)

torch.save = half
from training.train import main
sys.exit(main(sys.argv[2:]))
"""
WORDS = [
    "--rendered",
    "8",
    "--batch-size",
    "4",
    "--epochs",
    "3",
    "--workers",
    "0",
    "--threads",
    "1",
    "--log-every",
    "1",
]
GIVEN = Options(
    rendered=8, batch_size=4, epochs=3, workers=0, threads=1, log_every=1, change=("dropout=0.1",), warmup_steps=2
)


def run_until_killed(folder: Path, save: int) -> list[Path]:
    """Run in another process that kills itself half-way through its `save`-th state; what it left unfinished."""
    given = ["--output", str(folder), "--change", "dropout=0.1", "--warmup-steps", "2"]
    killed = subprocess.run(
        [sys.executable, "-c", KILLER, str(save), *WORDS, *given], cwd=ROOT, capture_output=True, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    return list(folder.rglob("*.tmp"))


def lines(folder: Path) -> list[dict[str, object]]:
    """The log, every loss in full precision, without the time that it took."""
    return [{k: v for k, v in line.items() if k != "seconds"} for line in RunFolder(folder).read_log()]


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """The log of a run that nothing interrupted."""
    found = lines(train(dataclasses.replace(GIVEN, output=tmp_path_factory.mktemp("straight") / "run")))
    assert [line["step"] for line in found] == [1, 2, 2, 3, 4, 4, 5, 6, 6]
    return found


def test_killed_in_the_second_save(tmp_path, straight):
    folder = tmp_path / "run"
    (left,) = run_until_killed(folder, 2)
    assert 0 < left.stat().st_size < (folder / "state" / "state.pt").stat().st_size
    assert RunFolder(folder).load_state()[0].epoch == 1 and [r["step"] for r in lines(folder)][-1] == 4
    train(dataclasses.replace(GIVEN, output=folder, resume=True))
    assert lines(folder) == straight
    assert not left.exists()


def test_killed_in_the_first_save(tmp_path, straight):
    folder = tmp_path / "run"
    (left,) = run_until_killed(folder, 1)
    with pytest.raises(InputError, match="nothing to resume"):
        train(dataclasses.replace(GIVEN, output=folder, resume=True))
    train(dataclasses.replace(GIVEN, output=folder))
    assert lines(folder) == straight
    assert not left.exists()
