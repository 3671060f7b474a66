"""`Pose.live`: always the newest frame. The source is read in its own thread, and what comes too fast is dropped."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from types import TracebackType

from runtime.playback import See, answer
from runtime.results import Frame
from runtime.video import RawFrame, Source

END_WITHIN_S = 0.8  # of `stop`: a source that does not return from reading by then is left behind
POLL_S = 0.1  # so that Ctrl-C is heard while waiting

OnResult = Callable[[Frame], object]

log = logging.getLogger(__name__)


class Live:
    """A running source. With `on_result` it is called in a thread of its own; without, iterate over the frames.

    Results come in the order of the frames. Whatever goes wrong, in the source, in the model or in `on_result`, ends it
    and is raised by the iteration, by `wait` and at the end of the `with`.
    """

    def __init__(self, source: Source, see: See, on_result: OnResult | None = None) -> None:
        self.source = source
        self.frames_read = 0  # all that the source had, by their numbers
        self.frames_answered = 0  # results given
        self.frames_dropped = 0  # a newer one was there before anybody could look at them
        self._see, self._on_result = see, on_result
        self._changed = threading.Condition()
        self._newest: tuple[RawFrame, float] | None = None  # with the moment of its reading
        self._ended = False  # the reading
        self._stopping = threading.Event()
        self._error: BaseException | None = None
        self._reader = threading.Thread(target=self._read, name="pose-live-read", daemon=True)
        self._worker = threading.Thread(target=self._work, name="pose-live-work", daemon=True)
        self._reader.start()
        if on_result is not None:
            self._worker.start()

    @property
    def is_running(self) -> bool:
        """Whether frames may still come."""
        return not self._stopping.is_set() and (not self._ended or self._newest is not None or self._worker.is_alive())

    def __iter__(self) -> Live:
        return self

    def __next__(self) -> Frame:
        """The result of the newest frame; waits for one that has not been seen yet."""
        frame = self._answer_newest()
        if frame is None:
            self.stop()
            self._raise_error()
            raise StopIteration
        return frame

    def wait(self, timeout_s: float | None = None) -> bool:
        """Until it has ended (True) or the time is over (False); raises what ended it, if it was an error."""
        thread = self._worker if self._on_result is not None else self._reader
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while thread.is_alive():
            left = POLL_S if deadline is None else min(POLL_S, deadline - time.monotonic())
            if left <= 0:
                return False
            thread.join(left)
        self._raise_error()
        return True

    def stop(self) -> None:
        """End within a second, from any thread, `on_result` included; a second time does nothing."""
        self._stopping.set()
        with self._changed:
            self._changed.notify_all()
        if self.source.is_live:
            self.source.close()  # ends the reading of a camera that gives nothing
        deadline = time.monotonic() + END_WITHIN_S
        for thread in (self._worker, self._reader):
            if thread.is_alive() and thread is not threading.current_thread():
                thread.join(max(deadline - time.monotonic(), 0))
        if self._reader.is_alive() and self._reader is not threading.current_thread():
            log.warning("%s does not return from reading: its thread is left behind", self.source.name)

    def __enter__(self) -> Live:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        if error is None:
            self._raise_error()

    def _read(self) -> None:
        """The reading thread."""
        started = time.monotonic()
        try:
            with self.source:
                for raw in self.source:
                    if self._paused(raw, started):
                        break
                    self._put(raw)
        except BaseException as error:
            self._error = self._error or error
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def _paused(self, raw: RawFrame, started: float) -> bool:
        """Give a file's frames at their own pace; True when it is time to stop."""
        ahead = 0.0 if self.source.is_live else raw.time_s - (time.monotonic() - started)
        return self._stopping.wait(max(ahead, 0))

    def _put(self, raw: RawFrame) -> None:
        with self._changed:
            missed = raw.index - self.frames_read  # dropped by the source itself
            self.frames_read = raw.index + 1
            self.frames_dropped += missed + (self._newest is not None)
            self._newest = (raw, time.perf_counter())
            self._changed.notify_all()

    def _take(self) -> tuple[RawFrame, float] | None:
        """The newest frame, once; None when there will be none."""
        with self._changed:
            while self._newest is None and not self._ended and not self._stopping.is_set():
                self._changed.wait(POLL_S)
            taken, self._newest = self._newest, None
            return None if self._stopping.is_set() else taken

    def _work(self) -> None:
        """The thread that calls `on_result`."""
        assert self._on_result is not None
        try:
            for frame in iter(self._answer_newest, None):
                if self._on_result(frame) is False:
                    break
        except BaseException as error:
            self._error = self._error or error
        self._stopping.set()

    def _answer_newest(self) -> Frame | None:
        taken = self._take()
        if taken is None:
            return None
        frame = answer(taken[0], self._see, taken[1])
        self.frames_answered += 1
        return frame

    def _raise_error(self) -> None:
        error, self._error = self._error, None
        if error is not None:
            raise error
