"""Every frame of a video: one person is followed and smoothed, one line of JSON per frame.

python examples/video.py clip.mp4 poses.jsonl
"""

import sys
from pathlib import Path

import runtime

if len(sys.argv) != 3:
    sys.exit(__doc__)
clip, lines = sys.argv[1:]
smoothing = runtime.Smoothing(min_cutoff_hz=0.7, speed_gain=10.0)  # the defaults; smoothing=False turns it off
try:
    with runtime.Pose(smoothing=smoothing) as pose, pose.video(clip) as video, Path(lines).open("w") as file:
        for frame in video:
            file.write(frame.to_json() + "\n")
            ids = frame.result.ids  # None where pictures have nothing to do with each other, as in a folder
            persons = len(frame.result) if ids is None else ids.tolist()
            print(f"{frame.time_s:6.2f} s  persons {persons}  {frame.latency_ms:.0f} ms")
except (runtime.PoseError, OSError) as error:
    sys.exit(f"error: {error}")
