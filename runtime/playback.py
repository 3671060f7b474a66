"""`Pose.video`: every frame of a source, in order."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from types import TracebackType

from runtime.geometry import Image
from runtime.results import Frame, PoseResult
from runtime.video import RawFrame, Source

See = Callable[[Image, float], PoseResult]  # (image, time_s) of the next frame -> its result


class Video:
    """An iterator over the frames of a source. It closes the source at its end; earlier with `close` or a `with`."""

    def __init__(self, source: Source, see: See) -> None:
        self.source = source
        self._see = see
        self._frames: Iterator[RawFrame] | None = None

    def __iter__(self) -> Video:
        return self

    def __next__(self) -> Frame:
        if self._frames is None:
            self._frames = iter(self.source)
        try:
            raw = next(self._frames)
            return answer(raw, self._see, time.perf_counter())
        except BaseException:  # the end, a fault of the source or of the model: in any case it is over
            self.close()
            raise

    def close(self) -> None:
        """Let go of the source; a second time does nothing. No frames afterwards."""
        self._frames = iter(())
        self.source.close()

    def __enter__(self) -> Video:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def answer(raw: RawFrame, see: See, read_at: float) -> Frame:
    """A frame with its result; `read_at` is when it had been read, by `time.perf_counter`."""
    result = see(raw.image, raw.time_s)
    return Frame(raw.index, raw.time_s, raw.name, raw.image, result, (time.perf_counter() - read_at) * 1000)
