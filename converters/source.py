"""What is converted: a checkpoint, the crops to compare on, and what it says about them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters.accuracy import Labels
from converters.errors import ConversionError
from converters.formats import NAIVE_SAMPLER
from converters.graph import ExportGraph
from converters.parity import Outputs, reference_outputs
from converters.presence import presence_score
from runtime.errors import InputError
from tfpose_edge import TFPose, load_checkpoint, read_provenance
from training.data import calibration
from training.data.spec import DataSpec

RANGE_CROPS = 64  # that set int8's ranges, at most
ABSOLUTE_FOLDERS = re.compile(r"(?:(?<=:)|^)(?:[A-Za-z]:)?[\\/](?:[^\\/:]*[\\/])*(?=[^\\/:])")
"""The folders in front of a file's name, where a path begins at the root or a drive."""


@dataclass(frozen=True)
class Source:
    """A loaded checkpoint with what it says about the crops to compare on."""

    checkpoint: Path
    model: TFPose
    crops: NDArray[np.uint8]  # (N, 3, H, W)
    expected: Outputs
    labels: Labels | None  # of the crops
    calibration: NDArray[np.uint8] | None  # others (M, 3, H, W), for the ranges of int8
    crops_of: str  # what the crops show, in words
    ranges_of: str  # what those of the ranges show; "" without
    empty: NDArray[np.uint8]  # (E, 3, H, W), places of the same pictures that show nobody
    presence: float | None  # `presence_score` of all layers

    def presence_score(self, layers: int | None = None) -> float | None:
        """Mean score from which on a crop shows somebody, with the first decoder layers; None: not told by these crops.

        `layers` None is all of them.
        """
        if layers in (None, self.model.config.num_decoder_layers) or not len(self.empty):
            return self.presence
        graph = ExportGraph(self.model, NAIVE_SAMPLER, (), layers)
        of_people, of_nobody = (reference_outputs(graph, crops).scores for crops in (self.crops, self.empty))
        return presence_score(of_people, of_nobody)

    def crops_in_words(self, precision: str) -> str:
        """What parity was measured on, and, in int8, what set the ranges."""
        return self.crops_of + (f"; ranges of int8 from {self.ranges_of}" if precision == "int8" else "")

    @property
    def training(self) -> dict[str, Any]:
        """The checkpoint's own account of where it comes from, without paths of this machine."""
        account: dict[str, Any] = without_folders(read_provenance(self.checkpoint))
        return account


def load_source(
    checkpoint: Path, precision: str, data: str | None, count: int, ranges_data: str | None = None
) -> Source:
    """Load a checkpoint and run it on `count` crops; int8's ranges come from others, where there are enough.

    Args:
        checkpoint: a file of training.
        precision: a key of `recipe.PRECISIONS`.
        data: DATA to compare on; None renders people.
        count: how many.
        ranges_data: DATA of int8's ranges; None takes other people of `data`, or the same where they are too few.

    Raises:
        ConversionError: not a checkpoint.
        InputError: the data cannot be read, or the ranges' people are those compared on.
    """
    try:
        model = load_checkpoint(checkpoint, sampler=NAIVE_SAMPLER)
    except ValueError as error:
        raise ConversionError(str(error)) from error
    config, is_int8 = model.config, precision == "int8"
    size_wh = config.input_size_wh
    others = RANGE_CROPS if is_int8 and ranges_data is None else 0
    compared, rest = calibration.subjects(size_wh, config.padding, data, count, others)
    ranges, ranges_of = None, ""
    if is_int8 and ranges_data:
        given = calibration.subjects(size_wh, config.padding, ranges_data, RANGE_CROPS)[0].crops
        ranges, ranges_of = without(given, compared.crops), words(ranges_data)
        if not len(ranges):
            raise InputError(f"data {ranges_data!r}: its people are those compared on; int8's ranges need others")
    elif is_int8:
        ranges, ranges_of = (rest or compared).crops, "others of them" if rest else "the same"
    labels = Labels.of(compared, config.keypoint_names, size_wh)
    expected = reference_outputs(model, compared.crops)
    empty = calibration.empty_crops(size_wh, data, count)
    presence = presence_score(expected.scores, reference_outputs(model, empty).scores) if len(empty) else None
    return Source(checkpoint, model, compared.crops, expected, labels, ranges, words(data), ranges_of, empty, presence)


def without(crops: NDArray[np.uint8], others: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Crops (N, 3, H, W) less those that are among the others."""
    known = {crop.tobytes() for crop in others}
    return crops[[crop.tobytes() not in known for crop in crops]]


def words(data: str | None) -> str:
    """What crops of DATA show, without its folders."""
    if data is None:
        return "rendered people"
    spec = DataSpec.parse(data)
    is_part = spec.first > 1 or spec.last is not None
    return f"persons of {spec.annotations.name}" + (f" {spec.first}-{spec.last or ''}" if is_part else "")


def without_folders(value: Any) -> Any:
    """A JSON value in which absolute paths, also those of ANN.json:IMAGES[:FIRST-LAST], are names; URLs stay."""
    if isinstance(value, dict):
        return {key: without_folders(one) for key, one in value.items()}
    if isinstance(value, list):
        return [without_folders(one) for one in value]
    if not isinstance(value, str) or "://" in value:
        return value
    return ABSOLUTE_FOLDERS.sub("", value)
