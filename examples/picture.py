"""Key points of a photograph: printed, drawn, and as COCO results.

python examples/picture.py photo.jpg drawn.jpg poses.json
"""

import json
import sys
from pathlib import Path

import cv2

import runtime

if len(sys.argv) != 4:
    sys.exit(__doc__)
photo, drawn, results = sys.argv[1:]
image = cv2.imread(photo)
if image is None:
    sys.exit(f"{photo}: no picture that OpenCV can read")
with runtime.Pose() as pose:  # the packaged model; or runtime.Pose("pose.xml", device="cpu", threads=2)
    result = pose.find(image)  # one person somewhere in the picture; pose(image, boxes_xyxy) where boxes are known
if len(result) == 0:
    sys.exit(f"{photo}: nobody is found")
for name, (x, y), score in zip(result.names, result.keypoints_xy[0], result.scores[0], strict=True):
    print(f"{name:16} {x:7.1f} {y:7.1f} px, expected OKS {score:.2f}")
if not cv2.imwrite(drawn, result.draw(image, style=runtime.Style(threshold=0.2, show_boxes=True))):
    sys.exit(f"{drawn}: cannot be written")
Path(results).write_text(json.dumps(result.to_coco(image_id=1)))
