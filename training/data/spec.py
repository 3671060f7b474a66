"""DATA: where a data set lies and what form it has, as the command lines write it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from runtime.errors import InputError

RANGE = "[:FIRST-LAST]"
FORMS = {
    "ANN.json:IMAGES": "COCO key-point JSON and its folder of pictures",
    "coco:DIR:PART": "COCO's own folder: DIR/annotations/person_keypoints_PART.json and DIR/PART",
    "mpii[,OPTION...]:ANN:IMAGES": "MPII: its official .mat, or the JSON list made of it (valid.json ...)",
    "lsp:DIR": "Leeds Sports Pose as distributed: DIR/joints.mat and DIR/images",
    "lspet:DIR": "Leeds Sports Pose Extended, likewise",
    "SHARDS": "a folder of .tar shards, or NAME{0000..0063}.tar, from training.data.pack",
}
"""Every form of DATA; each may end in a range of images, of samples where they are shards."""
MPII_OPTIONS = {
    "single": "only persons whom the .mat calls sufficiently separated",
    "keypoint-boxes": "boxes around key points, not from scale and position",
    "zero-based": "a copy whose coordinates start at 0 instead of 1",
    "heads=FILE.mat": "head sizes for the JSON list: the .mat, or gt_valid.mat",
}


def teach(indent: str = "  ") -> str:
    """The forms of DATA and MPII's options, one per line, for --help."""
    lines = [f"{form + RANGE:<42} {what}" for form, what in FORMS.items()]
    lines += [f"  OPTION {option:<33} {what}" for option, what in MPII_OPTIONS.items()]
    return "\n".join(indent + line for line in lines)


@dataclass(frozen=True)
class DataSpec:
    """Where a data set lies; `parse` reads what a command line says."""

    annotations: Path
    """File with the annotations; of shards their folder, or the name with its braces."""
    images: Path
    """Folder of the pictures; of shards the shards' own."""
    first: int = 1
    """First image (of shards: sample), 1-based, in the file's order."""
    last: int | None = None
    """Last image, inclusive; None is the end."""
    kind: str = "coco"
    """coco, mpii, lsp, lspet or shards."""
    options: tuple[str, ...] = ()
    """Of `MPII_OPTIONS`."""

    @classmethod
    def parse(cls, text: str) -> DataSpec:
        """Read one of `FORMS`; InputError says what was expected."""
        match = re.fullmatch(r"(.*?)(?::(\d+)-(\d+))?", text, re.DOTALL)
        assert match  # matches every text
        place, first, last = match[1], int(match[2] or 1), int(match[3]) if match[3] else None
        if first < 1 or (last is not None and last < first):
            raise InputError(f"data {text!r}: images {first}-{last} is not a range; the first image is 1")
        annotations, images, kind, options = _parse_place(place, text)
        return cls(annotations, images, first, last, kind, options)

    def option(self, name: str) -> str | None:
        """What stands behind `name` among the options, "" for an option without a value; None if it is absent."""
        values = dict(option.partition("=")[::2] for option in self.options)
        return values.get(name)


def _parse_place(place: str, text: str) -> tuple[Path, Path, str, tuple[str, ...]]:
    """Annotations, images, kind and options of a DATA without its range."""
    if match := re.fullmatch(r"coco:(.+):([^:/\\]+)", place):
        folder, part = Path(match[1]), match[2]
        return folder / "annotations" / f"person_keypoints_{part}.json", folder / part, "coco", ()
    if match := re.fullmatch(r"(lsp|lspet):(.+)", place):
        folder = Path(match[2])
        return folder / "joints.mat", folder / "images", match[1], ()
    if match := re.fullmatch(r"mpii((?:,[^,:]+)*):(.+?\.(?:mat|json)):(.+)", place):
        options = tuple(match[1].split(",")[1:])
        _check_options(options, text)
        return Path(match[2]), Path(match[3]), "mpii", options
    if match := re.fullmatch(r"(.+\.json):(.+)", place):
        return Path(match[1]), Path(match[2]), "coco", ()
    if place.endswith(".tar") or (place and Path(place).is_dir()):
        shards = Path(place)
        return shards, shards.parent if place.endswith(".tar") else shards, "shards", ()
    raise InputError(
        f"data {text!r} is not ANN.json:IMAGES{RANGE}, such as ann.json:images:1-900, nor one of the other forms: "
        f"{', '.join(list(FORMS)[1:])}"
    )


def _check_options(options: tuple[str, ...], text: str) -> None:
    legal = {name.partition("=")[0]: "=" in name for name in MPII_OPTIONS}
    for option in options:
        name, equals, value = option.partition("=")
        if name not in legal or legal[name] != bool(equals) or (equals and not value):
            raise InputError(f"data {text!r}: unknown option {option!r}; legal are {', '.join(MPII_OPTIONS)}")
