"""Reads a data set of any form that DATA has."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np

from runtime.errors import InputError
from training.data.coco import read_coco
from training.data.damage import Damage, say
from training.data.lsp import read_lsp
from training.data.mpii import read_mpii
from training.data.persons import Array, Person, PersonSet
from training.data.shards import read_shards
from training.data.spec import DataSpec

Reader = Callable[[DataSpec, Sequence[str] | None], PersonSet]
READERS: dict[str, Reader] = {
    "coco": read_coco,
    "mpii": read_mpii,
    "lsp": read_lsp,
    "lspet": read_lsp,
    "shards": read_shards,
}


def load_persons(spec: DataSpec, keypoint_names: Sequence[str] | None = None) -> PersonSet:
    """Read a data set with its key points in the order of `keypoint_names`; missing ones are unlabelled.

    Without `keypoint_names` the order is the file's own. Unusable records are counted, named once on stderr and left
    out; `PersonSet.problems` holds them.

    Raises:
        InputError: a file is missing or not of its form, the range is empty, no key point is shared, or more than
            `damage.ALLOWED` of the records are unusable.
    """
    return READERS[spec.kind](spec, keypoint_names)


def load_labelled(
    data: Sequence[str], keypoint_names: Sequence[str], warn: Callable[[str], None] = say
) -> tuple[list[list[Person]], Damage]:
    """The labelled persons of each DATA, and what of all of them cannot be used.

    Missing pictures are noted now, not hours later; those persons stay in their places.

    Raises:
        InputError: as `load_persons`, if the folder of the pictures is missing, and if more persons are unusable than
            `damage.ALLOWED`.
    """
    sets = [load_persons(DataSpec.parse(text), keypoint_names) for text in data]
    for text, found in zip(data, sets, strict=True):
        _refuse_missing_folder(text, found)
    persons, problems = [among_others(found) for found in sets], [problem for one in sets for problem in one.problems]
    damage = Damage(sum(map(len, persons)) + len(problems), ", ".join(data), problems, warn)
    damage.note(
        *(
            f"annotation {person.annotation_id}: {person.image_path}: no such picture"
            for person in chain(*persons)
            if not person.image_path.is_file()
        )
    )
    return persons, damage


def _refuse_missing_folder(text: str, found: PersonSet) -> None:
    """InputError for data of whose pictures none can be there: the folder that is named does not exist."""
    folders = {person.image_path.parent for person in found.persons if isinstance(person.image_path, Path)}
    if folders and not any(folder.is_dir() for folder in folders):
        raise InputError(f"{text}: there is no folder {min(folders)}, where its pictures should lie")


def among_others(found: PersonSet) -> list[Person]:
    """The labelled persons, each with the boxes of the ignored ones of their picture: crowds, people without points."""
    boxes: dict[int, list[Array]] = {}
    for person in found.persons:
        if person.ignored:
            boxes.setdefault(person.image_id, []).append(person.box_xyxy)
    return [
        replace(person, beside_xyxy=np.stack(boxes[person.image_id])) if person.image_id in boxes else person
        for person in found.labelled
    ]


def check_labelled(found: PersonSet, spec: DataSpec) -> list[Person]:
    """The labelled persons of a data set; InputError if there is none."""
    if not found.labelled:
        raise InputError(f"{spec.annotations}: no person with labelled key points in {len(found.image_ids)} images")
    return found.labelled
