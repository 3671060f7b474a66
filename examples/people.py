"""Several people in a video, with a detector of your choice, each in the colour of its id.

python examples/people.py clip.mp4 yolox_s.onnx drawn/
"""

import sys
from pathlib import Path

import cv2

import runtime

if len(sys.argv) != 4:
    sys.exit(__doc__)
clip, network, folder = sys.argv[1:]
style = runtime.Style(by_person=True, show_boxes=True)
try:
    Path(folder).mkdir(parents=True, exist_ok=True)
    detector = runtime.NetworkDetector(network, score_threshold=0.5)
    print(detector)  # which family it was taken for, and how pictures are prepared for it
    with runtime.Pose(detector=detector, detect_every=5) as pose:
        for frame in pose.video(clip):
            ids = frame.result.ids  # None where pictures have nothing to do with each other, as in a folder
            print(f"frame {frame.index}: persons {len(frame.result) if ids is None else ids.tolist()}")
            cv2.imwrite(str(Path(folder) / f"{frame.index:05}.jpg"), frame.draw(style=style))
except (runtime.PoseError, OSError) as error:
    sys.exit(f"error: {error}")
