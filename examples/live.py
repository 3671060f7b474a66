"""Always the newest frame of a camera, for some seconds; what came too fast is counted.

python examples/live.py 0 10          # a camera; or a stream's URL, or a video, which then runs at its own pace
"""

import sys
import time

import runtime

if len(sys.argv) != 3:
    sys.exit(__doc__)
source, seconds = sys.argv[1], float(sys.argv[2])


def on_result(frame: runtime.Frame) -> None:
    """Called in a thread of its own, in order."""
    print(f"frame {frame.index}: {len(frame.result)} persons, {frame.latency_ms:.0f} ms after it was read")


try:
    with runtime.Pose() as pose, pose.live(source, on_result) as live:  # leaving the `with` stops it within a second
        end = time.monotonic() + seconds
        while time.monotonic() < end and not live.wait(timeout_s=0.2):  # raises what went wrong in the source or above
            pass
except runtime.PoseError as error:
    sys.exit(f"error: {error}")
print(f"{live.frames_read} frames, {live.frames_answered} answered, {live.frames_dropped} dropped")
