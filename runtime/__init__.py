"""Run a TFPose artifact on images, videos and cameras, without torch."""

from runtime.errors import BackendUnavailable, InputError, ModelFileError, PoseError
from runtime.pose import Pose
from runtime.results import Frame, PoseResult

__all__ = ["BackendUnavailable", "Frame", "InputError", "ModelFileError", "Pose", "PoseError", "PoseResult"]
