"""The configuration that travels inside every checkpoint, and the presets of the paper's tables.

Deviation from the paper: its text names C2..C5 everywhere, but its costs (tables 1..5) are those of C3..C5 whenever
there is an encoder, and of C2..C5 without one. The presets follow the costs; `levels` stays a free choice.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
from dataclasses import dataclass
from typing import Any

COCO_KEYPOINT_NAMES = (
    "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder", "left_elbow",
    "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle",
    "right_ankle",
)  # fmt: skip
BACKBONES = (
    "resnet10", "resnet18", "resnet34", "resnet50", "resnet101", "mobilenetv2", "efficientnet_lite0",
    "efficientnet_lite0_short",
)  # fmt: skip


@dataclass(frozen=True)
class PoseConfig:
    """What a TFPose network is. Frozen; equal configurations build equal networks."""

    backbone: str = "resnet50"
    """One of `BACKBONES`, or timm:NAME: a model of the package timm, which must be installed then."""
    backbone_width: int = 64
    """Channels of the backbone's stem, a multiple of 8; all its channels follow in proportion. ResNets of 64 and
    mobile networks of 32 are the published ones (and take their weights); less is for phones and tests."""
    input_size_wh: tuple[int, int] = (192, 256)
    """Crop size (width, height) in px, multiples of 32."""
    keypoint_names: tuple[str, ...] = COCO_KEYPOINT_NAMES
    """One query per name (paper, section 3.1)."""
    levels: tuple[int, ...] = (3, 4, 5)
    """Backbone stages that become memory; level l has stride 2 ** l. The last must be 5 (auxiliary head)."""
    d_model: int = 256
    """Channels of memory and queries, a multiple of `n_heads` and of 32 (GroupNorm)."""
    n_heads: int = 8
    n_points: int = 4
    """Sampling points per head and level."""
    ffn_dim: int = 1024
    num_encoder_layers: int = 6
    """N_E; 0 leaves the projected features F0 as memory."""
    num_decoder_layers: int = 6
    """N_D; every layer refines the key points (eq. 4)."""
    query_self_attention: bool = True
    """q2q attention between the key-point queries (table 1)."""
    dropout: float = 0.1
    heatmap_head: bool = True
    """Auxiliary heat maps in training (section 3.3); they never run at inference."""
    heatmap_channels: int = 256
    """Channels of the auxiliary head's deconvolutions."""
    detach_reference_points: bool = True
    """Stop the gradient through reference points between decoder layers, as Deformable DETR does."""
    padding: float = 1.25
    """Factor by which crops extend the person's box; a property of the training data, kept for deployment."""

    def __post_init__(self) -> None:
        if self.backbone not in BACKBONES and not re.fullmatch(r"timm:[\w.]+", str(self.backbone)):
            raise ValueError(f"backbone is {self.backbone!r}; legal are {', '.join(BACKBONES)} and timm:NAME")
        self._check_integers()
        if self.backbone_width % 8:
            raise ValueError(f"backbone_width is {self.backbone_width}; it must be a positive multiple of 8")
        if len(self.input_size_wh) != 2 or any(size % 32 for size in self.input_size_wh):
            raise ValueError(f"input_size_wh is {self.input_size_wh}; it must be two positive multiples of 32")
        if not self.levels or self.levels[-1] != 5 or self.levels != tuple(range(self.levels[0], 6)):
            raise ValueError(f"levels is {self.levels}; legal are (5,), (4, 5), (3, 4, 5) and (2, 3, 4, 5)")
        if self.levels[0] < 2:
            raise ValueError(f"levels is {self.levels}; the backbone has stages 2..5")
        if self.d_model % self.n_heads or self.d_model % 32:
            raise ValueError(f"d_model is {self.d_model}; it must be a multiple of 32 and of n_heads ({self.n_heads})")
        if not _is_number(self.dropout) or not 0 <= self.dropout < 1:
            raise ValueError(f"dropout is {self.dropout!r}; legal is 0 up to, not including, 1")
        if not _is_number(self.padding) or not 1 <= self.padding < math.inf:
            raise ValueError(f"padding is {self.padding!r}; it must be a finite number, at least 1")
        names = self.keypoint_names
        if not isinstance(names, tuple) or not all(isinstance(name, str) for name in names):
            raise ValueError(f"keypoint_names is {names!r}; it must be a tuple of texts")
        if not names or len(set(names)) != len(names):
            raise ValueError(f"keypoint_names must be different names, at least one; got {names}")

    def _check_integers(self) -> None:
        """ValueError unless counts and sizes are integers of at least 1, the number of encoder layers of at least 0."""
        for field in ("input_size_wh", "levels"):
            if not isinstance(getattr(self, field), tuple):
                raise ValueError(f"{field} is {getattr(self, field)!r}; it must be a tuple of integers")
        at_least = dict.fromkeys(
            ("backbone_width", "d_model", "n_heads", "n_points", "ffn_dim", "num_decoder_layers", "heatmap_channels"), 1
        )
        for field, least in {**at_least, "num_encoder_layers": 0, "input_size_wh": 1, "levels": 1}.items():
            value = getattr(self, field)
            for number in value if isinstance(value, tuple) else (value,):
                if not isinstance(number, int) or isinstance(number, bool) or number < least:
                    raise ValueError(f"{field} is {value!r}; legal are integers of at least {least}")

    @property
    def num_keypoints(self) -> int:
        """K, the number of queries."""
        return len(self.keypoint_names)

    @property
    def spatial_shapes(self) -> tuple[tuple[int, int], ...]:
        """(height, width) of each level of the memory, finest first, as Python ints."""
        width, height = self.input_size_wh
        return tuple((height >> level, width >> level) for level in self.levels)

    def to_json(self) -> str:
        """All fields as one JSON object."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> PoseConfig:
        """Read `to_json`'s text back; ValueError names what is unknown or not legal."""
        values: dict[str, Any] = json.loads(text)
        if not isinstance(values, dict):
            raise ValueError(f"the configuration is {text[:40]!r}; it must be a JSON object")
        unknown = sorted(set(values) - {field.name for field in dataclasses.fields(cls)})
        if unknown:
            raise ValueError(f"unknown fields in the configuration: {', '.join(unknown)}")
        fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return cls(**fields)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _r18(**changes: Any) -> PoseConfig:
    return PoseConfig(**{"backbone": "resnet18", "levels": (2, 3, 4, 5), "num_encoder_layers": 0, **changes})


def _edge(**changes: Any) -> PoseConfig:
    small: dict[str, Any] = {
        "backbone": "efficientnet_lite0", "backbone_width": 32, "levels": (3, 4, 5), "d_model": 128, "ffn_dim": 512,
        "num_encoder_layers": 0, "num_decoder_layers": 4, "heatmap_channels": 128, "dropout": 0.0,
    }  # fmt: skip
    return PoseConfig(**{**small, **changes})


PRESETS: dict[str, PoseConfig] = {
    "tiny": PoseConfig(
        backbone="resnet10", backbone_width=16, input_size_wh=(96, 128), d_model=64, n_heads=4, ffn_dim=128,
        num_encoder_layers=1, num_decoder_layers=3, heatmap_channels=64, dropout=0.0,
    ),
    "edge-n": _edge(backbone="efficientnet_lite0_short", input_size_wh=(160, 224), num_decoder_layers=2),
    "edge-s": _edge(),
    "r18-ne0": _r18(),
    "r18-ne0-c128": _r18(d_model=128),
    "r18-ne0-noq2q": _r18(query_self_attention=False),
    "r18-ne6": PoseConfig(backbone="resnet18"),
    "r50-ne4": PoseConfig(num_encoder_layers=4),
    "r50-ne6": PoseConfig(),
    "r50-ne6-384": PoseConfig(input_size_wh=(288, 384)),
}  # fmt: skip
"""Finished configurations by name; section 4 of the paper, tables 1..5; `edge-n` and `edge-s` for phones; `tiny` for
tests and demos."""
