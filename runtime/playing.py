"""Goes through a source: draws, records and shows its frames, and does what the keys say."""

from __future__ import annotations

import logging
import sys
import threading
import time
from pathlib import Path

from runtime.errors import PoseError
from runtime.geometry import Image
from runtime.live import Live
from runtime.playback import Video, answer
from runtime.progress import Progress
from runtime.recording import Recording, VideoRecorder
from runtime.results import Frame
from runtime.source import RawFrame, Source
from runtime.turns import Turns
from runtime.window import Window

POLL_MS = 15  # of keys, while no frame comes
NAME_OF_RECORDINGS = "pose-%Y%m%d-%H%M%S.mp4"  # of those that a key starts, in the current folder

log = logging.getLogger(__name__)


class Player:
    """One run through a source. `play` returns when the source ends or somebody quits."""

    def __init__(
        self, source: Source, turns: Turns, recording: Recording, threshold: float, window: Window | None
    ) -> None:
        self.source, self.turns, self.recording, self.threshold = source, turns, recording, threshold
        self.window = window
        self.is_paused = False
        self._started_s = 0.0  # when a film began, less its pauses
        self._extra: VideoRecorder | None = None  # what a key started
        self._found_anybody = False
        self._newest: tuple[Frame, Image] | None = None
        self._lock = threading.Lock()

    def play(self) -> None:
        """Every frame of a file in order; always the newest of a camera or stream."""
        try:
            if self.source.is_live:
                self._play_live()
            else:
                self._play_file()
        finally:
            if self.window is not None:
                self.window.close()
        if not self._found_anybody:
            print(f"{self.source.name}: nobody was found", file=sys.stderr)

    def _play_file(self) -> None:
        progress = Progress(self.source.count)
        self._started_s = time.monotonic()
        with Video(self.source, self.turns.see) as frames:
            for frame in frames:
                drawn = self._draw_and_record(frame)
                progress.step()
                if self.window is not None and not self._show(frame, drawn):
                    break
        if self.source.count != 1:
            progress.finish()

    def _play_live(self) -> None:
        with Live(self.source, self.turns.see, self._on_result) as live:
            if self.window is None:
                live.wait()
            while self.window is not None and live.is_running and self._show_newest(live):
                pass
        print(f"{live.frames_answered} frames, {live.frames_dropped} dropped", file=sys.stderr)

    def _on_result(self, frame: Frame) -> None:
        """In the thread of `Live`."""
        if not self.is_paused:
            drawn = self._draw_and_record(frame)
            with self._lock:
                self._newest = (frame, drawn)

    def _draw_and_record(self, frame: Frame) -> Image:
        self._found_anybody |= len(frame.result) > 0
        drawn = frame.draw(self.threshold)
        self.recording.write(frame, drawn)
        return drawn

    def _show(self, frame: Frame, drawn: Image) -> bool:
        """A file's frame in the window: a film no faster than it is, a picture until a key is pressed. False = quit."""
        assert self.window is not None
        self.window.show(drawn, frame.latency_ms, self._note())
        if not self.source.is_continuous:
            return self._stay(frame)
        early_s = frame.time_s - (time.monotonic() - self._started_s)
        if not self._act(self.window.key(round(early_s * 1000))):
            return False
        paused_s = time.monotonic()
        while self.is_paused:
            if not self._act(self.window.wait_for_key()):
                return False
        self._started_s += time.monotonic() - paused_s  # the film goes on from here, and does not catch up
        return True

    def _stay(self, frame: Frame) -> bool:
        """A picture until a key takes the next one; n answers it with the next model. False = quit."""
        assert self.window is not None
        while (key := self.window.wait_for_key()) == "next model":
            self._act(key)
            raw = RawFrame(frame.index, frame.time_s, frame.name, frame.image)
            again = answer(raw, self.turns.see, time.perf_counter())
            self.window.show(again.draw(self.threshold), again.latency_ms, self._note())
        return key != "quit"

    def _show_newest(self, live: Live) -> bool:
        """The newest answer of a camera, if there is one that was not shown yet. False = quit."""
        assert self.window is not None
        with self._lock:
            newest, self._newest = self._newest, None
        if newest is not None:
            dropped = f"{live.frames_dropped} dropped" if live.frames_dropped else ""
            self.window.show(newest[1], newest[0].latency_ms, f"{self._note()}  {dropped}".strip())
        return self._act(self.window.key(POLL_MS))

    def _note(self) -> str:
        several = self.turns.name if len(self.turns.openers) > 1 else ""
        return "  ".join(filter(None, ["REC" if self._extra else "", several]))

    def _act(self, key: str) -> bool:
        """Do what a key says; False = quit."""
        if key == "pause":
            self.is_paused = not self.is_paused
        began_s = time.monotonic()
        try:
            if key == "record" and self.source.is_continuous:
                self._toggle_recording()
            elif key == "next model":
                self.turns.next()
        except PoseError as error:  # the show goes on as it was
            log.warning("%s: %s", key, error)
        if not self.is_paused:  # what a pause takes is counted as a whole
            self._started_s += time.monotonic() - began_s
        return key != "quit"

    def _toggle_recording(self) -> None:
        """Start or end a recording of its own."""
        if self._extra is None:
            self._extra = VideoRecorder(free_name(), self.source.fps, self.source.is_live)
            self.recording.add(self._extra)
        else:
            extra, self._extra = self._extra, None
            self.recording.end(extra)
            if extra.is_written:
                print(f"written: {extra.path}", file=sys.stderr)


def free_name() -> Path:
    """Of a recording that begins now; two of the same second get a number."""
    path = first = Path(time.strftime(NAME_OF_RECORDINGS))
    number = 1
    while path.exists():
        number += 1
        path = first.with_stem(f"{first.stem}-{number}")
    return path
