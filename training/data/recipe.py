"""What the packaged models learn from: which people, how often each per epoch, and the file they are packed into.

    DIR/lsp_train      Leeds Sports Pose, images 1..900 of 1000: the others are for development
    DIR/lspet          its extension, labelled by the crowd
    DIR/coco_train     a part of COCO train2017, images 1..80 of 103
    DIR/fashion_train  studio photographs
    DIR/coco_poses.npz key points of COCO train2017: people are rendered in these postures, or in the prior's without it

Each folder holds annotations.json and images/; what is missing is left out, and said. Key points are joined by name.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from runtime.errors import InputError
from runtime.skeleton import COCO_17
from training.data.packed import HEIGHT_PX, QUALITY, read_people, shrink, shrunk, write_people
from training.data.persons import Person, join
from training.data.posture import FLIP, read_postures
from training.data.reading import load_labelled
from training.data.rendered import render_person


@dataclass(frozen=True)
class Source:
    """A data set of the recipe."""

    folder: str
    images: str
    """FIRST-LAST by image order, or "" for all."""
    times: int
    """How often each of its persons is shown in an epoch."""


SOURCES = (
    Source("lsp_train", "1-900", 6),
    Source("lspet", "", 1),
    Source("coco_train", "1-80", 8),
    Source("fashion_train", "", 1),
)
RENDERED, RENDERED_COUNT, RENDERED_TIMES = "rendered", 3000, 1  # persons, and how often each is shown
RENDERED_SIZE_WH = (192, 240)  # px
POSTURES = "coco_poses.npz"
POSTURES_READ = 116_021  # of coco_poses.npz, all; about one in seven is labelled completely
BEHIND = 0.2  # share of people who are seen from behind


def packed_people(
    root: Path | None, file: Path, names: tuple[str, ...], say: Callable[[str], None], rendered: int
) -> dict[str, list[Person]]:
    """The recipe's persons by source, from `file`; it is made of the data in `root` if it is not there.

    Raises:
        InputError: neither a file nor a data set of the recipe in `root`, unreadable data, a file of something else, or
            one that lacks a data set of `root` or has another number of rendered people.
    """
    if not file.is_file():
        if root is None:
            raise InputError(f"{file}: is not there, and to make it --data-root is needed, the folder of the data")
        sources = _gather(root, names, say)
        if rendered:
            sources[RENDERED] = _render(root / POSTURES, names, rendered)
        file.parent.mkdir(parents=True, exist_ok=True)
        write_people(file, sources, names, _origins(root, sources))
        say(f"{file}: {sum(map(len, sources.values()))} people packed, {file.stat().st_size / 2**20:.1f} MiB")
    people, origins = read_people(file, names)
    _check_asked(file, people, origins, root, rendered)
    return people


def times_per_epoch(source: str) -> int:
    """How often each person of a source is shown in an epoch."""
    return next((s.times for s in SOURCES if s.folder == source), RENDERED_TIMES)


def _check_asked(
    file: Path, people: Mapping[str, list[Person]], origins: Mapping[str, str], root: Path | None, rendered: int
) -> None:
    """InputError unless the file holds what is asked for: it may be of an earlier order, or of other data."""
    there = [source.folder for source in SOURCES if root and _annotations(root, source).is_file()]
    lacking = [folder for folder in there if folder not in people]
    now = _origins(root, people) if root else origins
    changed = [name for name in origins if name in now and now[name] != origins[name]]
    held = len(people.get(RENDERED, ()))
    if lacking or changed or held != rendered:
        what = f"has {held} rendered people, --rendered is {rendered}"
        if lacking or changed:
            what = f"has not {', '.join(lacking)}" if lacking else f"was made of other data ({', '.join(changed)})"
        raise InputError(f"{file}: {what}; remove it, and it is made again, or name another with --packed")


def _annotations(root: Path, source: Source) -> Path:
    return root / source.folder / "annotations.json"


def _origins(root: Path, sources: Iterable[str]) -> dict[str, str]:
    """Hashes of what is there of the files that sources are read from, by source."""
    files = {name: root / name / "annotations.json" if name != RENDERED else root / POSTURES for name in sources}
    return {name: hashlib.sha256(file.read_bytes()).hexdigest() for name, file in files.items() if file.is_file()}


def _gather(root: Path, names: tuple[str, ...], say: Callable[[str], None]) -> dict[str, list[Person]]:
    found: dict[str, list[Person]] = {}
    for source in SOURCES:
        annotations = _annotations(root, source)
        if not annotations.is_file():
            say(f"{annotations}: not there, so training goes without it")
            continue
        text = f"{annotations}:{root / source.folder / 'images'}" + (f":{source.images}" if source.images else "")
        (persons,), damage = load_labelled([text], names, say)
        found[source.folder] = shrunk(tqdm(persons, source.folder, leave=False), damage)
        if summary := damage.summary():
            say(summary)
    if not found:
        raise InputError(f"{root}: has none of {', '.join(source.folder for source in SOURCES)}")
    return found


def _render(poses: Path, names: tuple[str, ...], count: int) -> list[Person]:
    postures = read_postures(poses, POSTURES_READ) if poses.is_file() else None
    return [_rendered(postures, i, names) for i in tqdm(range(count), RENDERED, leave=False)]


def _rendered(postures: NDArray[np.float64] | None, index: int, names: tuple[str, ...]) -> Person:
    """Person `index`, in one of the postures (N, 17, 2), perhaps mirrored, perhaps seen from behind."""
    rng = np.random.default_rng([77, index])
    posture = None if postures is None else postures[index % len(postures)]
    if posture is not None and rng.random() < 0.5:
        posture = posture[FLIP] * (-1, 1)
    if posture is not None and rng.random() < BEHIND:
        posture = posture * (-1, 1)
    shown = render_person(rng, RENDERED_SIZE_WH, posture)
    keypoints_xy, visible, named = join(np.column_stack([shown.keypoints_xy, shown.visible]), COCO_17, names)
    person = Person(Path(RENDERED), index, index, keypoints_xy, visible, named, shown.box_xyxy, shown.area)
    everywhere = np.array([[0.0, 0.0, *RENDERED_SIZE_WH]])  # others may stand beside them: nothing there is empty
    return shrink(replace(person, beside_xyxy=everywhere), shown.image, f"{RENDERED}#{index}", HEIGHT_PX, QUALITY)
