"""Packs any DATA into tar shards that training and webdataset read.

    python -m training.data.pack coco:coco2017:train2017 --output shards
    python -m training.train --train shards ...

A sample is one person: the picture's own bytes and a JSON annotation (see training/data/shards.py); beside each shard
lies its index. Pictures with several persons are packed once for each. Persons without labelled points and crowds stay
out, unless OKS AP is to be measured on the shards (--ignored). Every picture is decoded once to see that it is whole.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from runtime.errors import InputError
from tfpose_edge.checkpoint import written_whole
from training.data.coco import as_annotation
from training.data.damage import Damage, say
from training.data.persons import Person
from training.data.picture import Picture, read_image
from training.data.reading import check_labelled, load_persons
from training.data.shards import index_path, write_index
from training.data.spec import DataSpec, teach


def pack(spec: DataSpec, output: Path, persons_per_shard: int = 1000, ignored: bool = False) -> list[Path]:
    """Write the persons of a data set, in its order, as OUTPUT/000000.tar ... with an index beside each.

    Args:
        spec: the data.
        output: a folder without shards; made if it is not there.
        persons_per_shard: the last shard may hold fewer.
        ignored: also persons without labelled points, and crowds.
    Returns:
        The shards.
    Raises:
        InputError: unreadable data, more unusable persons than `damage.ALLOWED`, or a folder that holds shards.
    """
    if persons_per_shard < 1:
        raise InputError(f"--persons-per-shard is {persons_per_shard}; it must be at least 1")
    if output.exists() and (not output.is_dir() or any(output.glob("*.tar"))):
        raise InputError(f"{output}: holds shards already, or is no folder; choose another --output")
    found = load_persons(spec)
    labelled = check_labelled(found, spec)
    persons = found.persons if ignored else labelled
    damage = Damage(len(persons) + len(found.problems), str(spec.annotations), found.problems)
    output.mkdir(parents=True, exist_ok=True)
    readable = _readable(persons, damage)
    shards = [_write(output / f"{i:06}.tar", some, found.names) for i, some in _groups(readable, persons_per_shard)]
    if summary := damage.summary():
        say(summary)
    return shards


def _readable(persons: Sequence[Person], damage: Damage) -> Iterator[tuple[Person, bytes]]:
    """Persons with their picture's bytes; those whose picture cannot be decoded are noted."""
    from tqdm import tqdm

    last: tuple[Picture, bytes] | None = None
    for person in tqdm(persons, "persons", leave=False):
        if last is None or last[0] != person.image_path:
            try:
                read_image(person.image_path)
            except InputError as error:
                damage.note(f"annotation {person.annotation_id}: {error}")
                continue
            last = person.image_path, person.image_path.read_bytes()
        yield person, last[1]


def _groups(
    persons: Iterator[tuple[Person, bytes]], size: int
) -> Iterator[tuple[int, list[tuple[int, Person, bytes]]]]:
    """(shard's number, its persons with their numbers in the whole)."""
    group: list[tuple[int, Person, bytes]] = []
    shard = 0
    for number, (person, encoded) in enumerate(persons):
        group.append((number, person, encoded))
        if len(group) == size:
            yield shard, group
            shard, group = shard + 1, []
    if group:
        yield shard, group


def _write(path: Path, group: Sequence[tuple[int, Person, bytes]], names: Sequence[str]) -> Path:
    """Write one shard and its index, each whole or not at all; the same persons give the same bytes."""
    from webdataset import TarWriter

    with written_whole(path) as temporary:
        with temporary.open("wb") as file, TarWriter(file, mtime=0.0) as writer:
            for number, person, encoded in group:
                extension = Path(person.image_path.name).suffix.lower().removeprefix(".")
                writer.write({"__key__": f"{number:08}", extension: encoded, "json": as_annotation(person, names)})
        with written_whole(index_path(path)) as index:
            write_index(temporary, index, temporary.stat().st_size)
    return path


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m training.data.pack", description=f"{__doc__}\nDATA is one of\n{teach()}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("data", metavar="DATA")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder for the shards")
    parser.add_argument("--persons-per-shard", type=int, default=1000, metavar="N", help="default 1000")
    parser.add_argument("--ignored", action="store_true", help="also persons without labelled points, and crowds")
    args = parser.parse_args(argv)
    try:
        shards = pack(DataSpec.parse(args.data), args.output, args.persons_per_shard, args.ignored)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except (OSError, ValueError) as error:
        print(f"error: {args.output}: cannot be written: {error}", file=sys.stderr)
        return InputError.exit_code
    except KeyboardInterrupt:
        return 130
    print(f"{len(shards)} shard{'s' * (len(shards) != 1)} in {args.output}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
