"""MATLAB files, with their structs of one, of many and of nothing made uniform."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from runtime.errors import InputError


def read_mat(path: Path, key: str) -> Any:
    """The variable `key` of a .mat file, structs as objects with attributes, dimensions of size one removed.

    Raises:
        InputError: the file is missing, no .mat file, or has no such variable.
    """
    from scipy.io import loadmat

    if not path.is_file():
        raise InputError(f"{path}: cannot read annotations: no such file")
    try:
        content = loadmat(str(path), struct_as_record=False, squeeze_me=True, variable_names=[key])
    except Exception as error:  # scipy raises whatever damaged bytes lead it to
        raise InputError(f"{path}: not a readable .mat file: {type(error).__name__}: {error}") from error
    if key not in content:
        raise InputError(f"{path}: has no variable {key!r}")
    return content[key]


def as_list(value: Any) -> list[Any]:
    """A struct, a scalar, an array of them, or nothing (an empty array, "" or None) as a list."""
    if isinstance(value, np.ndarray):
        return list(value.ravel())
    return [] if value is None or (isinstance(value, str) and not value) else [value]


def field(struct: Any, name: str) -> Any:
    """A field of a struct; None where it has none, or an empty one."""
    values = as_list(getattr(struct, name, None))
    return (values[0] if len(values) == 1 else values) if values else None


def number(struct: Any, name: str) -> float:
    """A field as a number, also where it is written as text; ValueError says what is wrong."""
    value = field(struct, name)
    try:
        return float(value)
    except TypeError:
        raise ValueError(f"{name!r} is {value!r}; it must be one number") from None
