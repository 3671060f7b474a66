"""One run of a comparison: its command, the process that trains it, and what its network measures.

A run can be stopped at any time: what is finished is not trained again, what was interrupted is resumed.
"""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtime.errors import InputError, PoseError
from tfpose_edge import TFPose
from tfpose_edge.checkpoint import written_whole
from training.data.spec import DataSpec
from training.evaluate import evaluate
from training.networks import Network
from training.predictor import CheckpointPredictor
from training.run import RunFolder

POLL_S = 0.2
MEASURING = threading.Lock()
"""Figures are taken one at a time: pycocotools is silenced through the process's stdout."""


class RunFailed(PoseError):
    """A run that ended with an error; the message holds its last line."""

    exit_code = 3


@dataclass(frozen=True)
class Run:
    """What is trained, and where it goes."""

    name: str
    """Of the row, and its seed: for messages."""
    folder: Path
    """The run folder; log.txt in it holds what training said."""
    arguments: tuple[str, ...]
    """Of `python -m training.train`, without --output and what differs from machine to machine."""

    @property
    def command(self) -> str:
        """The command that trains this run, for a shell."""
        return shlex.join(["python", "-m", "training.train", *self.arguments, "--output", str(self.folder)])

    def check(self) -> None:
        """Note the command in the folder; InputError if another one began there."""
        path = self.folder / "command.json"
        former = json.loads(path.read_text()) if path.is_file() else None
        if former is not None and former != list(self.arguments):
            raise InputError(
                f"{self.folder}: holds a run of another command ({shlex.join(former)}), not of "
                f"({shlex.join(self.arguments)}); choose another --output"
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        with written_whole(path) as temporary:
            temporary.write_text(json.dumps(self.arguments, indent=2) + "\n")

    def train(self, machine: tuple[str, ...], say: Callable[[str], None], stop: threading.Event) -> None:
        """Train to the end, or go on where an earlier process stopped; nothing where that is done.

        Args:
            machine: arguments that do not change the result: threads, workers.
            say: gets a line whenever an epoch is done.
            stop: ends the process as Ctrl-C does, with its state saved.
        Raises:
            RunFailed: with the process's last line.
        """
        self.check()
        if (self.folder / "trained").is_file():
            return
        self.start(machine, say, stop)
        done, wanted = len(self.epochs()), RunFolder(self.folder).read_config().get("options", {}).get("epochs")
        if done == wanted:
            (self.folder / "trained").touch()
        elif not stop.is_set():
            raise RunFailed(f"{self.name}: stopped after {done} of {wanted} epochs; the same command goes on")

    def start(self, machine: tuple[str, ...], say: Callable[[str], None], stop: threading.Event) -> None:
        """Train in a process until it ends by itself or by `stop`; RunFailed if that is an error."""
        resume = ("--resume",) if RunFolder(self.folder).has_state else ()
        command = [sys.executable, "-m", "training.train", *self.arguments, *machine, *resume]
        with (self.folder / "log.txt").open("a") as log:
            process = subprocess.Popen(
                [*command, "--output", str(self.folder)], stdout=log, stderr=log, start_new_session=True
            )  # of its own session: Ctrl-C reaches it once, through `stop`
            code = _watch(process, self._new_epochs(), lambda line: say(f"{self.name}: {line}"), stop)
        if code and not stop.is_set():
            raise RunFailed(f"{self.name}: training ended with code {code}: {self._last_line()}")

    def epochs(self) -> list[dict[str, Any]]:
        """The log's lines of whole epochs: losses and validation figures."""
        return [line for line in RunFolder(self.folder).read_log() if line["kind"] == "epoch"]

    def measure(self, data: str, metric: str, layers: int | None) -> dict[str, Any]:
        """Figures of last.safetensors, as `training.evaluate` has them; kept in the folder once taken.

        Args:
            data: DATA.
            metric: of `training.metrics`.
            layers: decoder layers to read out; None is all of them.
        """
        path = self.folder / f"figures{'' if layers is None else f'-layer{layers}'}.json"
        asked = {"data": data, "metric": metric, "decoder_layers": layers}
        if path.is_file() and (known := json.loads(path.read_text()))["asked"] == asked:
            return known  # type: ignore[no-any-return]
        with MEASURING:
            predictor = CheckpointPredictor(self.folder / "last.safetensors")
            if layers is not None:
                keep_layers(predictor.model, layers)
            figures, _ = evaluate(predictor, DataSpec.parse(data), metric)
        figures = {"asked": asked, **figures}
        with written_whole(path) as temporary:
            temporary.write_text(json.dumps(figures, indent=2) + "\n")
        return figures

    def _new_epochs(self) -> Iterator[str | None]:
        """The newest epoch in words, once each; None while there is nothing new."""
        known = len(self.epochs())
        while True:
            lines = self.epochs()
            new, known = len(lines) > known, len(lines)
            named = {k: v for k, v in lines[-1].items() if k in ("loss", "oks", "pck")} if new else {}
            text = ", ".join(f"{name} {value:.4g}" for name, value in named.items())
            yield f"epoch {lines[-1]['epoch']}: {text}" if new else None

    def _last_line(self) -> str:
        lines = (self.folder / "log.txt").read_text().strip().splitlines() or ["nothing was said"]
        return f"{last_words(lines)} ({self.folder / 'log.txt'})"


def last_words(lines: Sequence[str]) -> str:
    """The last line of a log; of one that ends with a frame, as errors of the command line do, what stands inside."""
    if not lines[-1].startswith("╰"):
        return lines[-1]
    first = max(number for number, line in enumerate(lines) if line.startswith("╭"))
    inside = (line.strip("│ ") for line in lines[first + 1 : -1])
    return " ".join(text for text in inside if text.strip("─"))


def keep_layers(network: Network, count: int) -> None:
    """Let a TFPose end after its first `count` decoder layers; ValueError where there are fewer."""
    if not isinstance(network, TFPose) or not 1 <= count <= len(network.decoder):
        raise ValueError(f"{count} decoder layers cannot be read out of this network")
    network.decoder = network.decoder[:count]
    network.keypoint_heads = network.keypoint_heads[:count]


def _watch(
    process: subprocess.Popen[bytes], epochs: Iterator[str | None], say: Callable[[str], None], stop: threading.Event
) -> int:
    """Exit code of a process; tells its epochs on the way, and passes a stop on to it once."""
    told = False
    while process.poll() is None:
        if stop.is_set() and not told:
            process.send_signal(signal.SIGINT)
            told = True
        if line := next(epochs):
            say(line)
        time.sleep(POLL_S)
    if line := next(epochs):
        say(line)
    return process.returncode
