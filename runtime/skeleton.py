"""Key-point sets by name: order, limbs, left-right pairs and OKS sigmas.

Everything is looked up by key-point name, so sets with different orders can be joined. Sigmas of COCO's points are
COCO's own (cocodataset.org, key-point evaluation); other points take the sigma of their nearest COCO relative.
"""

from __future__ import annotations

from collections.abc import Sequence

COCO_17 = (
    "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder", "left_elbow",
    "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle",
    "right_ankle",
)  # fmt: skip
LSP_14 = (
    "right_ankle", "right_knee", "right_hip", "left_hip", "left_knee", "left_ankle", "right_wrist", "right_elbow",
    "right_shoulder", "left_shoulder", "left_elbow", "left_wrist", "neck", "head_top",
)  # fmt: skip
MPII_16 = (
    "right_ankle", "right_knee", "right_hip", "left_hip", "left_knee", "left_ankle", "pelvis", "thorax", "upper_neck",
    "head_top", "right_wrist", "right_elbow", "right_shoulder", "left_shoulder", "left_elbow", "left_wrist",
)  # fmt: skip

SIGMAS = {
    "nose": 0.026, "eye": 0.025, "ear": 0.035, "shoulder": 0.079, "elbow": 0.072, "wrist": 0.062, "hip": 0.107,
    "knee": 0.087, "ankle": 0.089, "neck": 0.079, "upper_neck": 0.079, "head_top": 0.035, "thorax": 0.079,
    "pelvis": 0.107,
}  # fmt: skip
DEFAULT_SIGMA = 0.08

LIMBS = (
    ("nose", "left_eye"), ("nose", "right_eye"), ("left_eye", "left_ear"), ("right_eye", "right_ear"),
    ("head_top", "neck"), ("head_top", "upper_neck"), ("upper_neck", "thorax"), ("thorax", "pelvis"),
    ("left_shoulder", "right_shoulder"), ("left_shoulder", "left_elbow"), ("left_elbow", "left_wrist"),
    ("right_shoulder", "right_elbow"), ("right_elbow", "right_wrist"), ("left_shoulder", "left_hip"),
    ("right_shoulder", "right_hip"), ("left_hip", "right_hip"), ("left_hip", "left_knee"),
    ("left_knee", "left_ankle"), ("right_hip", "right_knee"), ("right_knee", "right_ankle"),
)  # fmt: skip


def flip_pairs(names: Sequence[str]) -> list[tuple[int, int]]:
    """Index pairs (left_x, right_x) that swap when an image is mirrored."""
    index = {name: i for i, name in enumerate(names)}
    pairs = ((name, "right_" + name.removeprefix("left_")) for name in names if name.startswith("left_"))
    return [(index[left], index[right]) for left, right in pairs if right in index]


def flip_order(names: Sequence[str]) -> list[int]:
    """Permutation of key points under mirroring: `mirrored = keypoints[flip_order(names)]`."""
    order = list(range(len(names)))
    for left, right in flip_pairs(names):
        order[left], order[right] = right, left
    return order


def limbs(names: Sequence[str]) -> list[tuple[int, int]]:
    """Index pairs of the limbs whose two ends are both in `names`."""
    index = {name: i for i, name in enumerate(names)}
    return [(index[a], index[b]) for a, b in LIMBS if a in index and b in index]


def sigmas(names: Sequence[str]) -> list[float]:
    """OKS sigma of each key point; `DEFAULT_SIGMA` for names that no known set has."""
    return [SIGMAS.get(name.removeprefix("left_").removeprefix("right_"), DEFAULT_SIGMA) for name in names]
