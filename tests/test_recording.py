"""What a recording of a camera holds."""

from __future__ import annotations

import numpy as np
import pytest

import runtime
from runtime import recording
from runtime.video import open_source


@pytest.mark.parametrize("gap_s", [0.5, 30.0])
def test_a_camera_s_film_holds_a_frame_and_leaves_out_long_gaps(gap_s, tmp_path):
    """A film of 10 fps: half a second is five frames, half a minute two seconds' worth."""
    recorder = recording.VideoRecorder(tmp_path / "a.avi", 10, by_time=True)
    times = [0.0, 0.1, 0.2, 0.2 + gap_s, 0.3 + gap_s, 0.31 + gap_s, 0.32 + gap_s]
    for number, time_s in enumerate(times):
        frame = runtime.Frame(number, time_s, "0", None, None)
        recorder.write(frame, np.full((48, 64, 3), 30 * number, np.uint8))
    recorder.close()
    with open_source(tmp_path / "a.avi") as film:
        levels = [round(frame.image.mean() / 30) for frame in film]
    held = round(min(gap_s, recording.LONGEST_HOLD_S) * 10)
    assert levels == [0, 1, *[2] * held, 3, 4]
