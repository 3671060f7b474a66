"""Turn a checkpoint into artifacts for other engines, and check their numbers."""

from converters.conversion import Converted, Options, convert_checkpoint
from converters.errors import ConversionError
from converters.formats import FORMATS
from converters.rewrites import REWRITES

__all__ = ["FORMATS", "REWRITES", "ConversionError", "Converted", "Options", "convert_checkpoint"]
