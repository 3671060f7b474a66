"""Run a TFPose artifact on images, videos and cameras, without torch."""

from runtime.detector_families import Preprocessing
from runtime.draw import Style
from runtime.errors import BackendUnavailable, InputError, ModelFileError, PoseError
from runtime.live import Live
from runtime.network_detector import NetworkDetector
from runtime.playback import Video
from runtime.pose import Pose
from runtime.results import Frame, PoseResult
from runtime.smoothing import Smoothing

__all__ = [
    "BackendUnavailable",
    "Frame",
    "InputError",
    "Live",
    "ModelFileError",
    "NetworkDetector",
    "Pose",
    "PoseError",
    "PoseResult",
    "Preprocessing",
    "Smoothing",
    "Style",
    "Video",
]
