"""The models of a run that take turns: one answers, the next one can take its place between two frames."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType

from runtime.geometry import Image
from runtime.playback import See
from runtime.pose import Pose
from runtime.results import PoseResult
from runtime.source import Source


class Turns:
    """Opens the first model at once, the others when it is their turn. Use it in a `with`."""

    def __init__(self, openers: list[Callable[[], Pose]], source: Source) -> None:
        self.openers, self.source = openers, source
        self.number = 0  # of the model that answers
        self._lock = threading.Lock()
        self.pose = openers[0]()
        self._see: See = self.pose.watch(source)

    @property
    def name(self) -> str:
        """The file name of the model that answers."""
        return self.pose.path.name

    def see(self, image: Image, time_s: float) -> PoseResult:
        """The present model's answer to the source's next frame."""
        with self._lock:
            return self._see(image, time_s)

    def next(self) -> None:
        """Go on to the next model, which follows people anew; the errors are those of `Pose`."""
        if len(self.openers) == 1:
            return
        number = (self.number + 1) % len(self.openers)
        pose = self.openers[number]()
        with self._lock:
            self.pose, previous = pose, self.pose
            self.number, self._see = number, pose.watch(self.source)
        previous.close()

    def __enter__(self) -> Turns:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self.pose.close()
