"""A contact sheet of pictures with their key points drawn: look at the data before training on it.

python -m training.data.show                                          # rendered people
python -m training.data.show --data ann.json:images                   # a person a row, a transform a column
python -m training.data.show --data ann.json:images --augment strong --heatmaps --output strong.png
python -m training.data.show --data ann.json:images --columns 8       # crops as training sees them, 8 a row

The person's left is drawn orange, right blue. Hidden points are hollow in rendered pictures; a crop does not tell.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from runtime.errors import InputError
from tfpose_edge import PoseConfig
from tfpose_edge.checkpoint import check_target, written_whole
from training.criterion import gaussian_heatmaps
from training.data.augmentation import PLAIN, Augmentation, each_alone, parse_augmentation
from training.data.dataset import Batch, PhotographedPeople, RenderedPeople
from training.data.reading import check_labelled, load_persons
from training.data.rendered import render_person
from training.data.sheet import Image, contact_sheet, draw_keypoints, overlay_heatmaps, titled_table
from training.data.spec import DataSpec

TOGETHER = 2  # crops with all transforms together, per person


@dataclass(frozen=True)
class Subjects:
    """People whose crops are shown."""

    config: PoseConfig
    people: Callable[[Augmentation], PhotographedPeople | RenderedPeople]
    """The same people with any augmentation."""
    chosen: dict[int, str]
    """Their places in the data, and a name for each."""


def photographed(data: str, count: int, seed: int) -> Subjects:
    """Up to `count` persons of DATA, evenly over it; InputError if it cannot be read or nobody is labelled."""
    spec = DataSpec.parse(data)
    found = load_persons(spec)
    persons, config = check_labelled(found, spec), PoseConfig(keypoint_names=found.names)
    places = np.unique(np.linspace(0, len(persons) - 1, min(count, len(persons))).astype(int)).tolist()
    return Subjects(
        config,
        lambda augmentation: PhotographedPeople(persons, config, augmentation, seed),
        {place: Path(str(persons[place].image_path)).name for place in places},
    )


def rendered(count: int, seed: int) -> Subjects:
    """`count` rendered people."""
    config = PoseConfig()
    return Subjects(
        config,
        lambda augmentation: RenderedPeople(count, config, augmentation, seed),
        {place: f"rendered {place + 1}" for place in range(count)},
    )


def transforms_sheet(subjects: Subjects, augmentation: Augmentation, heatmaps: bool, plain: bool = False) -> Image:
    """A row per person: the plain crop, each transform alone, and all together as training's first epochs draw them.

    Rendered people are others in every epoch.
    """
    alone = {"plain": PLAIN, **each_alone(augmentation)}
    columns = [subjects.people(one) for one in alone.values()]
    whole = subjects.people(augmentation)
    rows = []
    for place in subjects.chosen:
        together = [whole[epoch, place] for epoch in range(TOGETHER)]
        row = [
            picture_of(item, subjects.config, plain) for item in [*(people[0, place] for people in columns), *together]
        ]
        if heatmaps:
            row.append(_with_heatmaps(together[-1], subjects.config))
        rows.append(row)
    titles = [*alone, *(f"all together {i + 1}" for i in range(TOGETHER))] + ["its heat maps"] * heatmaps
    return titled_table(rows, titles, list(subjects.chosen.values()))


def crops_sheet(subjects: Subjects, augmentation: Augmentation, columns: int, plain: bool = False) -> Image:
    """A grid of crops as training sees them."""
    people = subjects.people(augmentation)
    items = (people[0, place] for place in subjects.chosen)
    return contact_sheet([picture_of(item, subjects.config, plain) for item in items], columns)


def rendered_sheet(count: int, seed: int, columns: int, plain: bool = False) -> Image:
    """A contact sheet of `count` rendered people, whole pictures."""
    people = (render_person(np.random.default_rng([seed, index])) for index in range(count))
    return contact_sheet(
        [p.image if plain else draw_keypoints(p.image, p.keypoints_xy, p.visible) for p in people], columns
    )


def picture_of(item: Batch, config: PoseConfig, plain: bool = False) -> Image:
    """An item's crop (H, W, 3) BGR, with its key points unless `plain`."""
    image = np.ascontiguousarray(item.crops.permute(1, 2, 0).numpy()[..., ::-1])
    keypoints_xy, visible = item.keypoints.numpy() * config.input_size_wh, 2 * item.labelled.numpy()
    return image if plain else draw_keypoints(image, keypoints_xy, visible, config.keypoint_names)


def _with_heatmaps(item: Batch, config: PoseConfig) -> Image:
    """An item's crop under the targets of the auxiliary loss: of points that are labelled and inside."""
    width, height = config.input_size_wh
    heatmaps = gaussian_heatmaps(item.keypoints[None], height // 4, width // 4)[0]
    inside = item.labelled & ((item.keypoints >= 0) & (item.keypoints <= 1)).all(-1)
    return overlay_heatmaps(picture_of(item, config, plain=True), (heatmaps * inside[:, None, None]).numpy())


def check_picture_target(path: Path) -> None:
    """InputError if no picture can be written there: no such folder, or an extension that is no picture's."""
    try:
        check_target(path)
    except ValueError as error:
        raise InputError(str(error)) from error
    if not cv2.haveImageWriter(str(path)):
        raise InputError(f"{path}: no picture format has the extension {path.suffix!r}; legal are .png, .jpg and such")


def write_picture(path: Path, image: Image) -> None:
    """Write a picture (H, W, 3) BGR in the format of its extension, whole or not at all."""
    with written_whole(path) as temporary:
        temporary.write_bytes(cv2.imencode(path.suffix, image)[1].tobytes())


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    args = _parser().parse_args(argv)
    try:
        check_picture_target(args.output)
        write_picture(args.output, _sheet(args))
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code if isinstance(error, InputError) else 2
    except OSError as error:
        print(f"error: {args.output}: cannot be written: {error.strerror}", file=sys.stderr)
        return InputError.exit_code
    print(args.output)
    return 0


def _sheet(args: argparse.Namespace) -> Image:
    """The sheet that the command line asks for."""
    augmentation = parse_augmentation(args.augment or "paper")
    table = bool(args.data or args.augment) and args.columns is None
    count = (6 if table else 40) if args.count is None else args.count
    columns = 10 if args.columns is None else args.columns
    if count < 1:
        raise ValueError(f"--count is {count}; it must be at least 1")
    if not args.data and not args.augment:
        return rendered_sheet(count, args.seed, columns, args.plain)
    subjects = photographed(args.data, count, args.seed) if args.data else rendered(count, args.seed)
    if table:
        return transforms_sheet(subjects, augmentation, args.heatmaps, args.plain)
    return crops_sheet(subjects, augmentation, columns, args.plain)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m training.data.show", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--data", metavar="DATA", help="photographs, in any form of DATA that training.train --help lists")
    add("--augment", metavar="NAME", help="paper or strong, with knobs as in training.train (with --data: paper)")
    add("--count", "--rendered", type=int, metavar="N", help="how many persons (default 40; 6 where each has a row)")
    add("--heatmaps", action="store_true", help="a last column with the targets of the auxiliary loss")
    add("--columns", type=int, metavar="N", help="a plain grid of N crops or pictures per row (rendered: 10)")
    add("--seed", type=int, default=0, help="another seed, other people and other transforms (default 0)")
    add("--plain", action="store_true", help="pictures without key points")
    add("--output", type=Path, default=Path("contact_sheet.png"), metavar="PNG", help="default contact_sheet.png")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
