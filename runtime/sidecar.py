"""The sidecar: the facts of an artifact, in `<artifact file name>.json` beside it, and the check of its bytes."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path, PurePosixPath
from typing import Any

from runtime.errors import ModelFileError

FORMAT_VERSION = 1
MAX_SIDE_PX = 8192  # of a crop


@dataclass(frozen=True)
class Sidecar:
    """What a model file cannot say about itself. Every field is a key of the JSON object; other keys are ignored.

    A field with a default here may be missing.
    """

    format_version: int  # FORMAT_VERSION
    files: dict[str, str]  # path relative to the artifact's folder, with "/" -> sha256 in hex
    input_size_wh: tuple[int, int]  # crop size (width, height) in px
    input_dtype: str  # of the crops: "uint8" or "float32"
    batch: int  # crops per inference
    keypoint_names: tuple[str, ...]  # K names, in the order of the outputs
    skeleton: tuple[tuple[int, int], ...]  # limbs as index pairs
    flip_pairs: tuple[tuple[int, int], ...]  # index pairs that swap under mirroring
    sigmas: tuple[float, ...]  # K OKS sigmas
    padding: float  # of boxes before cropping: 1.25 = one eighth more on each edge
    precision: str  # fp32, fp16, int8
    sampler: str  # of deformable attention, as exported
    rewrites: tuple[str, ...]  # exact graph rewrites that were applied
    engines: dict[str, str | None]  # engine -> version it was verified with, None = unverified
    parity: dict[str, Any] | None  # distances to the checkpoint in crop pixels, None = unverified
    provenance: dict[str, Any]  # checkpoint, data, versions
    presence_score: float | None = None  # mean score from which on a crop shows somebody, None = nobody measured it

    @classmethod
    def read(cls, artifact: Path) -> Sidecar:
        """Read and check the sidecar of `artifact`; ModelFileError names the key that is missing or wrong."""
        with _reading(artifact):
            if not artifact.exists():
                raise ModelFileError(f"{artifact}: no such artifact")
        path = sidecar_path(artifact)
        values = _read_object(path)
        version = values.get("format_version")
        if version != FORMAT_VERSION:
            raise ModelFileError(f"{path}: format_version is {version!r}, this runtime reads {FORMAT_VERSION}")
        for name, (is_legal, legal) in _LEGAL.items():
            if name not in values and name in _OPTIONAL:
                continue
            if name not in values:
                raise ModelFileError(f"{path}: the key '{name}' is missing ({legal})")
            if not is_legal(values[name]):
                raise ModelFileError(f"{path}: {name} is {_shortened(values[name])}, legal is {legal}")
        sidecar = cls(**{field.name: _frozen(values[field.name]) for field in fields(cls) if field.name in values})
        sidecar._check_indices(path)
        return sidecar

    def verify(self, artifact: Path) -> None:
        """Compare every file of the artifact with its sha256; ModelFileError for missing, extra or changed ones."""
        with _reading(artifact):
            expected = {name: sha256_of(artifact.parent / name) for name in artifact_files(artifact)}
        for name in sorted(set(expected) ^ set(self.files)):
            unlisted = "is not listed in the sidecar: who renames it changes `files` there, too"
            problem = unlisted if name in expected else "is listed but not part of the artifact"
            raise ModelFileError(f"{artifact}: the file '{name}' {problem}")
        for name, found in expected.items():
            if found != self.files[name].lower():
                raise ModelFileError(f"{artifact.parent / name}: its sha256 is not the one in the sidecar: damaged")

    def _check_indices(self, path: Path) -> None:
        """Lists that speak about key points must fit the number of names."""
        num_keypoints = len(self.keypoint_names)
        if len(self.sigmas) != num_keypoints:
            raise ModelFileError(f"{path}: sigmas has {len(self.sigmas)} values for {num_keypoints} keypoint_names")
        for name, pairs in (("skeleton", self.skeleton), ("flip_pairs", self.flip_pairs)):
            for pair in pairs:
                if not all(0 <= index < num_keypoints for index in pair):
                    raise ModelFileError(f"{path}: {name} has {list(pair)}, legal are indices 0..{num_keypoints - 1}")


def sidecar_path(artifact: Path) -> Path:
    """`pose.onnx` -> `pose.onnx.json`."""
    return artifact.with_name(artifact.name + ".json")


def artifact_files(artifact: Path) -> list[str]:
    """The files that make up an artifact, relative to its folder, with "/", sorted.

    `.xml` comes with its `.bin`; a folder (`.mlpackage`) is every file inside; anything else is one file. Links are
    refused, so that what was checked is what the engine reads.
    """
    if not artifact.exists():
        raise ModelFileError(f"{artifact}: no such artifact")
    paths = sorted(artifact.rglob("*")) if artifact.is_dir() else [artifact]
    if artifact.suffix == ".xml":
        paths.append(artifact.with_suffix(".bin"))
    for path in (artifact, *paths):
        if path.is_symlink():
            raise ModelFileError(f"{path}: a symbolic link, an artifact is made of plain files")
        if not path.exists():
            raise ModelFileError(f"{path}: missing, {artifact.name} needs it")
    return sorted(path.relative_to(artifact.parent).as_posix() for path in paths if path.is_file())


def sha256_of(path: Path) -> str:
    """Hex digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def _reading(artifact: Path) -> Iterator[None]:
    """What the file system refuses, such as permission, is a ModelFileError."""
    try:
        yield
    except OSError as error:
        raise ModelFileError(f"{artifact}: cannot be read: {error.strerror}") from error


def _read_object(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelFileError(f"{path}: no sidecar; `python -m converters` writes one with each artifact") from error
    except (OSError, ValueError, RecursionError) as error:
        raise ModelFileError(f"{path}: not readable as JSON: {error}") from error
    if not isinstance(values, dict):
        raise ModelFileError(f"{path}: a sidecar is a JSON object, this is a {type(values).__name__}")
    return values


def _is_int(value: Any, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _is_number(value: Any, low: float, high: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high


def _list_of(is_item: Callable[[Any], bool], length: int | None = None) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and all(is_item(v) for v in value) and length in (None, len(value))


def _dict_of(is_item: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, dict) and all(is_item(v) for v in value.values())


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and value != ""


def _is_names(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_name, value)) and 0 < len(value) == len(set(value))


def _is_files(value: Any) -> bool:
    return isinstance(value, dict) and len(value) > 0 and all(_is_plain(k) and _is_sha256(v) for k, v in value.items())


def _is_plain(name: str) -> bool:
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts and "\\" not in name and path.as_posix() == name != "."


def _is_sha256(value: Any) -> bool:
    return isinstance(value, str) and len(value) == 64 and set(value.lower()) <= set("0123456789abcdef")


_is_pair = _list_of(lambda v: _is_int(v, 0, 10**6), 2)

_LEGAL: dict[str, tuple[Callable[[Any], bool], str]] = {
    "format_version": (lambda v: _is_int(v, 1, FORMAT_VERSION), str(FORMAT_VERSION)),
    "files": (_is_files, "an object of plain relative paths with their sha256 in hex"),
    "input_size_wh": (_list_of(lambda v: _is_int(v, 1, MAX_SIDE_PX), 2), f"[width, height] in 1..{MAX_SIDE_PX}"),
    "input_dtype": (lambda v: v in ("uint8", "float32"), "'uint8' or 'float32'"),
    "batch": (lambda v: _is_int(v, 1, 1024), "an integer in 1..1024"),
    "keypoint_names": (_is_names, "a list of different names"),
    "skeleton": (_list_of(_is_pair), "a list of index pairs"),
    "flip_pairs": (_list_of(_is_pair), "a list of index pairs"),
    "sigmas": (_list_of(lambda v: _is_number(v, 1e-6, 10)), "a list of positive numbers"),
    "padding": (lambda v: _is_number(v, 0.1, 10), "a number in 0.1..10"),
    "precision": (lambda v: v in ("fp32", "fp16", "int8"), "'fp32', 'fp16' or 'int8'"),
    "sampler": (_is_name, "a name"),
    "rewrites": (_list_of(_is_name), "a list of names"),
    "engines": (_dict_of(lambda v: v is None or _is_name(v)), "an object of engine versions or null"),
    "parity": (lambda v: v is None or isinstance(v, dict), "an object or null"),
    "provenance": (lambda v: isinstance(v, dict), "an object"),
    "presence_score": (lambda v: v is None or _is_number(v, 0, 1), "a number in 0..1 or null"),
}
_OPTIONAL = ("presence_score",)


def _shortened(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _frozen(value: Any) -> Any:
    """Lists become tuples, at every depth outside of objects."""
    return tuple(_frozen(v) for v in value) if isinstance(value, list) else value
