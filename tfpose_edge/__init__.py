"""TFPose, direct human pose estimation with transformers (arXiv 2103.15320): the network."""

from tfpose_edge.checkpoint import count_parameters, load_checkpoint, read_provenance, save_checkpoint
from tfpose_edge.config import PRESETS, PoseConfig
from tfpose_edge.model import PoseOutput, TFPose

__all__ = [
    "PRESETS",
    "PoseConfig",
    "PoseOutput",
    "TFPose",
    "count_parameters",
    "load_checkpoint",
    "read_provenance",
    "save_checkpoint",
]
