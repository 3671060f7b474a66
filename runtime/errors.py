"""The errors a user can meet, each with the exit code that a command line ends with."""

from __future__ import annotations


class PoseError(Exception):
    """Base of every error raised on purpose: says what failed, what was given and what is legal."""

    exit_code = 2


class InputError(PoseError, ValueError):
    """An image, box, camera, video or annotation that cannot be used."""

    exit_code = 4


class ModelFileError(PoseError):
    """An artifact or sidecar that is missing, damaged or not what it claims to be."""

    exit_code = 3


class BackendUnavailable(PoseError):
    """An engine or device that is unknown, not installed or does not exist on this machine."""

    exit_code = 5
