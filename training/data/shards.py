"""Reads persons from tar shards: webdataset's layout, every sample a picture and a JSON of one person.

A sample is two members in a row with the same name up to the first dot: KEY.jpg (or .png ...) and KEY.json, a COCO
annotation with `keypoint_names` beside `keypoints` and `bbox` (pixel indices). `training.data.pack` writes an index
beside each shard, SHARD.tar.json, with the annotations and where the pictures lie, so that a picture is one seek and
one read: items stay addressable by (epoch, index), every order is seeded, and a run resumes anywhere at no cost. Shards
without an index, from elsewhere, are scanned once at the start (headers and annotations only).
"""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from runtime.errors import InputError
from training.data.coco import check_id, is_integer, numbered, read_json, read_record
from training.data.persons import Person, PersonSet, check_shared, collect, person_of
from training.data.picture import PackedPicture, Picture
from training.data.spec import DataSpec

PICTURES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
INDEX_FORMAT = "tfpose-edge shard/1"

SAMPLE_KEYS = {"picture", "annotation"}
Sample = dict[str, Any]
"""{"picture": [member's name, offset, size] or None, "annotation": the JSON or None}."""


def read_shards(spec: DataSpec, keypoint_names: Sequence[str] | None = None) -> PersonSet:
    """Read tar shards; arguments and errors as those of `reading.load_persons`. The range counts samples.

    Samples without `image_id` are images of their own. The key points' names are those of all samples together.
    """
    shards = shard_paths(spec.annotations)
    samples = [(shard, sample) for shard in shards for sample in read_index(shard)]
    chosen = range(len(samples))[spec.first - 1 : spec.last]
    if not chosen:
        raise InputError(f"{spec.annotations}: no samples in {spec.first}-{spec.last}; there are {len(samples)}")
    annotations = [sample["annotation"] for _, sample in samples]
    names = _names(annotations)
    wanted = check_shared(names, keypoint_names, spec.annotations)
    image_ids, taken, paths = _image_ids(annotations), set[int](), dict[int, Picture]()

    def person(place: int, identity: Any) -> Person:
        """The person of a sample; ValueError where it is unusable."""
        shard, sample = samples[place]
        if not isinstance(sample["annotation"], dict) or sample["picture"] is None:
            raise ValueError("a sample must be a picture and a JSON object of the same name")
        picture, image_id = PackedPicture(shard, *sample["picture"]), image_ids[place]
        own = _own_names(sample["annotation"])
        record = read_record({**sample["annotation"], "image_id": image_id}, check_id(identity, taken), own)
        found = person_of(record, picture, own, wanted)
        paths.setdefault(image_id, picture)
        return found

    identities = [identity for identity, _ in numbered(annotations)]
    persons, problems = collect(((identities[i], partial(person, i, identities[i])) for i in chosen), spec.annotations)
    others = frozenset(image_ids[i] for i in range(len(samples)) if i not in chosen)
    return PersonSet(persons, list(paths), paths, names, others - paths.keys(), problems)


def shard_paths(place: Path) -> list[Path]:
    """The shards of a folder, by name, or of a name with {FIRST..LAST}; InputError if none or not all are there."""
    found = sorted(place.glob("*.tar")) if place.is_dir() else [Path(name) for name in _braces(str(place))]
    missing = [str(path) for path in found if not path.is_file()]
    if missing or not found:
        lacking = f"{place}: has no .tar shards; other data are named as ANNOTATIONS.json:IMAGES"
        raise InputError(f"{missing[0]}: no such shard" if missing else lacking)
    return found


def index_path(shard: Path) -> Path:
    """Where a shard's index lies."""
    return shard.with_name(shard.name + ".json")


def read_index(shard: Path) -> list[Sample]:
    """A shard's samples: from its index, or by scanning the shard where it has none.

    Raises:
        InputError: the shard is damaged, or the index is none or belongs to other bytes.
    """
    path = index_path(shard)
    if not path.is_file():
        return scan(shard)
    content = read_json(path, "a shard's index")
    samples = content.get("samples") if isinstance(content, dict) and content.get("format") == INDEX_FORMAT else None
    if not isinstance(samples, list) or not all(isinstance(s, dict) and s.keys() >= SAMPLE_KEYS for s in samples):
        raise InputError(f"{path}: not a shard's index of format {INDEX_FORMAT!r}; without it the shard is scanned")
    if content.get("bytes") != shard.stat().st_size:
        raise InputError(f"{path}: belongs to other bytes than those of {shard.name}; without it the shard is scanned")
    return samples


def scan(shard: Path) -> list[Sample]:
    """A shard's samples from its headers and annotations; InputError if it is no uncompressed tar file, or cut off."""
    samples: dict[str, Sample] = {}
    try:
        with shard.open("rb") as file, tarfile.open(fileobj=file, mode="r:") as members:
            for member in members:
                if member.isfile():
                    _add(samples, member, file)
            if shard.stat().st_size < members.offset + tarfile.BLOCKSIZE:
                raise tarfile.ReadError("cut off, it does not end in the blocks of zeros that end a tar file")
    except (tarfile.TarError, OSError) as error:
        raise InputError(f"{shard}: not a readable tar shard (compressed ones cannot be read): {error}") from error
    return list(samples.values())


def write_index(shard: Path, path: Path, size: int) -> None:
    """Write to `path` the index of a shard of `size` bytes."""
    path.write_text(json.dumps({"format": INDEX_FORMAT, "bytes": size, "samples": scan(shard)}) + "\n")


def _add(samples: dict[str, Sample], member: tarfile.TarInfo, file: BinaryIO) -> None:
    """Note a member in its sample; others than pictures and JSON are nobody's business."""
    folder, _, name = member.name.rpartition("/")
    stem, _, extension = name.partition(".")
    if f".{extension}".lower() not in (*PICTURES, ".json"):
        return
    sample = samples.setdefault(f"{folder}/{stem}", {"picture": None, "annotation": None})
    if extension.lower() != "json":
        sample["picture"] = [member.name, member.offset_data, member.size]
        return
    before = file.tell()
    file.seek(member.offset_data)
    try:
        sample["annotation"] = json.loads(file.read(member.size))
    except ValueError:
        sample["annotation"] = None  # counted as unusable when persons are made of the samples
    file.seek(before)


def _braces(name: str) -> list[str]:
    """NAME{0000..0063}.tar as the names it stands for, zeros in front kept; any other name as it is."""
    match = re.fullmatch(r"(.*?)\{(\d+)\.\.(\d+)\}(.*)", name)
    if not match:
        return [name]
    before, first, last, after = match.groups()
    if int(last) < int(first):
        raise InputError(f"{name}: {{{first}..{last}}} is not a range")
    width = len(first)
    return [f"{before}{i:0{width}}{rest}" for i in range(int(first), int(last) + 1) for rest in _braces(after)]


def _own_names(annotation: dict[str, Any]) -> list[str]:
    names = annotation.get("keypoint_names")
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise ValueError("'keypoint_names' must be a list of names")
    return names


def _names(annotations: Sequence[Any]) -> tuple[str, ...]:
    """The key points of all samples, in order of first appearance."""
    found: dict[str, None] = {}
    for annotation in annotations:
        names = annotation.get("keypoint_names") if isinstance(annotation, dict) else None
        if isinstance(names, list):
            found.update((name, None) for name in names if isinstance(name, str))
    return tuple(found)


def _image_ids(annotations: Sequence[Any]) -> list[int]:
    """Each sample's own image id, or a number that no other sample has."""
    given = [annotation.get("image_id") if isinstance(annotation, dict) else None for annotation in annotations]
    free = 1 + max([image_id for image_id in given if isinstance(image_id, int)], default=0)
    return [image_id if is_integer(image_id) else free + place for place, image_id in enumerate(given)]  # type: ignore
