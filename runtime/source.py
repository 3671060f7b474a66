"""What all sources of pictures share: numbered frames with time stamps, opened once, closed at the end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from runtime.geometry import Image

DEFAULT_FPS = 30.0  # where a source does not know its own


@dataclass(frozen=True, eq=False)
class RawFrame:
    """A picture of a source, before anyone has looked at it."""

    index: int  # 0-based place in the source; what a camera gave while nobody asked has its number too
    time_s: float  # since the first frame
    name: str  # file name of a picture; of anything else, the source's
    image: Image  # (H, W, 3) uint8 BGR


@dataclass
class Source:
    """Something opened that gives frames, once. Close it, or use it in a `with`.

    Whatever went wrong on the way and did not end the source is logged as a warning and counted in `faults`.
    """

    kind: str  # "image", "folder", "video", "camera" or "stream"
    name: str
    fps: float = DEFAULT_FPS
    count: int | None = None  # frames that are announced; None for cameras and streams
    paths: list[Path] = field(default_factory=list)  # of pictures
    faults: Counter[str] = field(default_factory=Counter)  # what happened -> how often, so far

    @property
    def is_continuous(self) -> bool:
        """Whether a frame shows the same scene as the one before it."""
        return self.kind not in ("image", "folder")

    @property
    def is_live(self) -> bool:
        """Whether time passes for it while nobody reads."""
        return self.kind in ("camera", "stream")

    def __iter__(self) -> Iterator[RawFrame]:
        raise NotImplementedError

    def close(self) -> None:
        """Let go of the camera or file."""

    def __enter__(self) -> Source:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
