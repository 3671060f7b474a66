"""The sidecar's writer; its reader is `runtime.sidecar`."""

from __future__ import annotations

import json
import platform
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

from converters.parity import Parity
from runtime import skeleton
from runtime.sidecar import FORMAT_VERSION, artifact_files, sha256_of, sidecar_path
from tfpose_edge import PoseConfig


def write_sidecar(
    artifact: Path, config: PoseConfig, facts: dict[str, Any], parity: Parity | None, engines: dict[str, bool]
) -> Path:
    """Write `<artifact file name>.json` beside a finished artifact.

    Args:
        config: of the network inside.
        facts: the keys `input_dtype`, `batch`, `precision`, `sampler`, `rewrites`, `export` (what the format's own
            `convert` returned), `presence_score` and `provenance`.
        parity: how the artifact compares with its checkpoint; None if nothing here runs it.
        engines: name -> whether the comparison ran in it; the version of one that did not is written as null.
    """
    names = config.keypoint_names
    values = {
        "format_version": FORMAT_VERSION,
        "files": {name: sha256_of(artifact.parent / name) for name in artifact_files(artifact)},
        "input_size_wh": config.input_size_wh,
        "keypoint_names": names,
        "skeleton": skeleton.limbs(names),
        "flip_pairs": skeleton.flip_pairs(names),
        "sigmas": skeleton.sigmas(names),
        "padding": config.padding,
        "engines": {name: engine_version(name) if is_verified else None for name, is_verified in engines.items()},
        "parity": asdict(parity) if parity else None,
        **facts,
    }
    path = sidecar_path(artifact)
    path.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    return path


def engine_version(engine: str) -> str:
    """The installed version; Core ML's is macOS's."""
    return f"macOS {platform.mac_ver()[0]}" if engine == "coreml" else installed_version(engine)


def installed_version(module: str) -> str:
    """Of the distribution that a module comes from: onnxruntime's may be onnxruntime-gpu."""
    try:
        return metadata.version(module)
    except metadata.PackageNotFoundError:
        names = metadata.packages_distributions().get(module, [])
        return metadata.version(names[0]) if names else "unknown"


def provenance(checkpoint: Path, training: dict[str, Any], crops: str, packages: tuple[str, ...]) -> dict[str, Any]:
    """Where an artifact comes from.

    Args:
        checkpoint: the file that was converted.
        training: the checkpoint's own account.
        crops: what parity was measured on, in words.
        packages: that took part in the conversion.
    """
    return {
        "checkpoint": checkpoint.name,
        "checkpoint_sha256": sha256_of(checkpoint),
        "training": training,
        "parity_crops": crops,
        "versions": {name: installed_version(name) for name in ("torch", *packages)},
    }
