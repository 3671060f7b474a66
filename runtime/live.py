"""`Pose.live`: always the newest frame. The source is read in its own thread, and what comes too fast is dropped."""

from __future__ import annotations

import logging
import threading
import time
import weakref
from collections.abc import Callable
from types import TracebackType

from runtime.errors import InputError
from runtime.playback import See, answer
from runtime.results import Frame
from runtime.video import RawFrame, Source

END_WITHIN_S = 0.8  # of `stop`: a source that does not return from reading by then is left behind
POLL_S = 0.1  # so that Ctrl-C is heard while waiting

OnResult = Callable[[Frame], object]

log = logging.getLogger(__name__)


class Reading:
    """A source that is read in a thread of its own, which holds the newest frame only. Knows nothing of its `Live`."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.frames_read = 0  # all that the source had, by their numbers
        self.frames_dropped = 0  # a newer one was there before anybody could look at them
        self.newest: tuple[RawFrame, float] | None = None  # with the moment of its reading
        self.has_ended = False
        self.stopping = threading.Event()
        self.error: BaseException | None = None
        self._changed = threading.Condition()
        self.is_done = threading.Event()  # Thread.is_alive is wrong after a join that Ctrl-C interrupted
        self.thread = threading.Thread(target=self._read, name="pose-live-read", daemon=True)
        self.thread.start()

    def take(self) -> tuple[RawFrame, float] | None:
        """The newest frame, once; waits for one, and gives None when there will be none."""
        with self._changed:
            while self.newest is None and not self.has_ended and not self.stopping.is_set():
                self._changed.wait(POLL_S)
            taken, self.newest = self.newest, None
            return None if self.stopping.is_set() else taken

    def stop(self) -> None:
        """Ask the thread to end; a second time does nothing."""
        self.stopping.set()
        with self._changed:
            self._changed.notify_all()
        if self.source.is_live:
            self.source.close()  # ends the reading of a camera that gives nothing

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
            self.error = self.error or error
        finally:
            with self._changed:
                self.has_ended = True
                self._changed.notify_all()
            self.is_done.set()

    def _paused(self, raw: RawFrame, started: float) -> bool:
        """Give a file's frames at their own pace; True when it is time to stop."""
        ahead = 0.0 if self.source.is_live else raw.time_s - (time.monotonic() - started)
        return self.stopping.wait(max(ahead, 0))

    def _put(self, raw: RawFrame) -> None:
        with self._changed:
            missed = raw.index - self.frames_read  # dropped by the source itself
            self.frames_read = raw.index + 1
            self.frames_dropped += missed + (self.newest is not None)
            self.newest = (raw, time.perf_counter())
            self._changed.notify_all()


class Live:
    """A running source. With `on_result` it is called in a thread of its own; without, iterate over the frames.

    Results come in the order of the frames. Whatever goes wrong, in the source, in the model or in `on_result`, ends it
    and is raised by the iteration, by `wait` and at the end of the `with`. Without `on_result` it stops when
    nobody holds it any more.
    """

    def __init__(self, source: Source, see: See, on_result: OnResult | None = None) -> None:
        self.source = source
        self.frames_answered = 0  # results given
        self._see, self._on_result = see, on_result
        self._reading = Reading(source)
        self._reader = self._worker = self._reading.thread
        self._is_done = self._reading.is_done  # of the worker
        weakref.finalize(self, self._reading.stop)
        if on_result is not None:
            self._is_done = threading.Event()
            self._worker = threading.Thread(target=self._work, name="pose-live-work", daemon=True)
            self._worker.start()

    @property
    def frames_read(self) -> int:
        """All that the source had, by their numbers."""
        return self._reading.frames_read

    @property
    def frames_dropped(self) -> int:
        """Frames that were followed by a newer one before anybody could look at them."""
        return self._reading.frames_dropped

    @property
    def is_running(self) -> bool:
        """Whether frames may still come."""
        reading = self._reading
        return not reading.stopping.is_set() and (
            not reading.has_ended or reading.newest is not None or not self._is_done.is_set()
        )

    def __iter__(self) -> Live:
        return self

    def __next__(self) -> Frame:
        """The result of the newest frame; waits for one that has not been seen yet.

        Raises:
            InputError: the results go to `on_result`.
        """
        if self._on_result is not None:
            raise InputError("this live run gives its results to on_result; iterate over one without on_result")
        try:
            frame = self._answer_newest()
        except BaseException:
            self.stop()
            raise
        if frame is None:
            self.stop()
            self._raise_error()
            raise StopIteration
        return frame

    def wait(self, timeout_s: float | None = None) -> bool:
        """Until it has ended (True) or the time is over (False); raises what ended it, if it was an error."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while not self._is_done.is_set():
            left = POLL_S if deadline is None else min(POLL_S, deadline - time.monotonic())
            if left <= 0:
                return False
            self._is_done.wait(left)
        self._raise_error()
        return True

    def stop(self) -> None:
        """End within a second, from any thread, `on_result` included; a second time does nothing."""
        self._reading.stop()
        deadline = time.monotonic() + END_WITHIN_S
        for thread, is_done in ((self._worker, self._is_done), (self._reader, self._reading.is_done)):
            if thread is not threading.current_thread():
                is_done.wait(max(deadline - time.monotonic(), 0))
        if not self._reading.is_done.is_set() and self._reader is not threading.current_thread():
            log.warning("%s does not return from reading: its thread is left behind", self.source.name)

    def __enter__(self) -> Live:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        if error is None:
            self._raise_error()

    def _work(self) -> None:
        """The thread that calls `on_result`."""
        assert self._on_result is not None
        try:
            for frame in iter(self._answer_newest, None):
                if self._on_result(frame) is False:
                    break
        except BaseException as error:
            self._reading.error = self._reading.error or error
        self._reading.stopping.set()
        self._is_done.set()

    def _answer_newest(self) -> Frame | None:
        taken = self._reading.take()
        if taken is None:
            return None
        frame = answer(taken[0], self._see, taken[1])
        self.frames_answered += 1
        return frame

    def _raise_error(self) -> None:
        error, self._reading.error = self._reading.error, None
        if error is not None:
            raise error
