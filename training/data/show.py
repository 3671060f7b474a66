"""A contact sheet of pictures with their key points drawn: look at the data before training on it.

python -m training.data.show --rendered 40 --output contact_sheet.png
python -m training.data.show --data annotations.json:images
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from runtime.errors import InputError
from runtime.skeleton import COCO_17, limbs
from tfpose_edge import PoseConfig
from tfpose_edge.checkpoint import check_target, written_whole
from training.data.crops import Augmentation
from training.data.dataset import PhotographedPeople
from training.data.reading import check_labelled, load_persons
from training.data.rendered import render_person
from training.data.spec import DataSpec

Image = NDArray[np.uint8]

SIDE_COLOURS = {"left": (80, 200, 60), "right": (60, 80, 240)}  # BGR
MIDDLE_COLOUR = (230, 200, 60)


def contact_sheet(images: Sequence[Image], columns: int) -> Image:
    """Images (H, W, 3) BGR of any sizes in a grid, row by row; the largest sets the cell's size.

    Raises:
        ValueError: no images, or fewer than one column.
    """
    if not images or columns < 1:
        raise ValueError(f"{len(images)} images in {columns} columns; legal: at least one of each")
    columns = min(columns, len(images))
    height, width = (max(image.shape[axis] for image in images) for axis in (0, 1))
    sheet = np.zeros((-(-len(images) // columns) * height, columns * width, 3), np.uint8)
    for index, image in enumerate(images):
        top, left = index // columns * height, index % columns * width
        sheet[top : top + image.shape[0], left : left + image.shape[1]] = image
    return sheet


def draw_keypoints(
    image: Image, keypoints_xy: NDArray[np.float64], visible: NDArray[np.int64], names: Sequence[str] = COCO_17
) -> Image:
    """A copy with limbs and points: the person's left green, right red; hidden points are hollow."""
    drawn = image.copy()
    pixels = [(int(x), int(y)) for x, y in keypoints_xy]
    for start, end in limbs(names):
        if visible[start] and visible[end]:
            cv2.line(drawn, pixels[start], pixels[end], _colour(names[end]), 1, cv2.LINE_AA)
    for name, pixel, seen in zip(names, pixels, visible, strict=True):
        if seen:
            cv2.circle(drawn, pixel, 2, _colour(name), -1 if seen == 2 else 1, cv2.LINE_AA)
    return drawn


def rendered_sheet(count: int, seed: int, columns: int, plain: bool = False) -> Image:
    """A contact sheet of `count` rendered people."""
    people = (render_person(np.random.default_rng([seed, index])) for index in range(count))
    return contact_sheet(
        [p.image if plain else draw_keypoints(p.image, p.keypoints_xy, p.visible) for p in people], columns
    )


def crops_sheet(data: str, count: int, seed: int, columns: int, plain: bool = False) -> Image:
    """A contact sheet of `count` augmented crops of DATA = ANN.json:IMAGES[:FIRST-LAST], as training sees them.

    Raises:
        InputError: the data cannot be read, or have no person with labelled key points.
    """
    spec = DataSpec.parse(data)
    found = load_persons(spec)
    config = PoseConfig(keypoint_names=found.names)
    people = PhotographedPeople(check_labelled(found, spec), config, Augmentation(), seed)
    images = []
    for index in range(min(count, len(people))):
        item = people[0, index]
        image = np.ascontiguousarray(item.crops.permute(1, 2, 0).numpy()[..., ::-1])
        keypoints_xy, visible = item.keypoints.numpy() * config.input_size_wh, 2 * item.labelled.numpy()
        images.append(image if plain else draw_keypoints(image, keypoints_xy, visible, config.keypoint_names))
    return contact_sheet(images, columns)


def _colour(name: str) -> tuple[int, int, int]:
    return SIDE_COLOURS.get(name.split("_")[0], MIDDLE_COLOUR)


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
    parser = argparse.ArgumentParser(
        prog="python -m training.data.show", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", metavar="DATA", help="ANN.json:IMAGES[:FIRST-LAST]: augmented crops of photographs")
    parser.add_argument("--rendered", type=int, default=40, metavar="N", help="how many pictures (default 40)")
    parser.add_argument("--seed", type=int, default=0, help="another seed, other people (default 0)")
    parser.add_argument("--columns", type=int, default=10, help="pictures per row (default 10)")
    parser.add_argument("--plain", action="store_true", help="pictures without key points")
    parser.add_argument(
        "--output", type=Path, default=Path("contact_sheet.png"), metavar="PNG", help="default contact_sheet.png"
    )
    args = parser.parse_args(argv)
    try:
        check_picture_target(args.output)
        how = (args.rendered, args.seed, args.columns, args.plain)
        sheet = crops_sheet(args.data, *how) if args.data else rendered_sheet(*how)
        write_picture(args.output, sheet)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code if isinstance(error, InputError) else 2
    except OSError as error:
        print(f"error: {args.output}: cannot be written: {error.strerror}", file=sys.stderr)
        return InputError.exit_code
    print(args.output)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
