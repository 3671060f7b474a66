"""The error of this package."""

from __future__ import annotations

from runtime.errors import PoseError


class ConversionError(PoseError):
    """A checkpoint that cannot be converted, or an artifact whose numbers are not the checkpoint's."""

    exit_code = 3
