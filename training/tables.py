"""The paper's ablations and its rivals: which runs make a row, and the value that the paper prints.

Deviations from the paper: its text names no auxiliary loss in tables 1 to 3, and table 3's 67.2 is table 4's row
without one, so they are without. Table 1 has rows with the auxiliary loss too, and table 3 a column of networks that
were trained with fewer decoder layers; the paper has no value for those. Its rivals' values are of table 5.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One row of a table, a run per seed."""

    name: str
    changes: tuple[str, ...]
    """Fields of the base preset to replace, as `networks.configuration` reads them."""
    paper: float | None = None
    """The paper's AP on COCO val2017; None where it has none."""
    network: str = "tfpose"
    """Or a rival."""
    layers: int | None = None
    """Decoder layers to read out of the trained network; None reads the last."""
    note: str = ""
    """How the paper's value was measured where that differs from its other rows."""


@dataclass(frozen=True)
class Table:
    """Rows to compare."""

    title: str
    preset: str
    """The paper's network; other bases are smaller ones."""
    rows: tuple[Row, ...]


_NO_ENCODER = ("num_encoder_layers=0", "levels=2,3,4,5")
_WITHOUT, _WITH = ("heatmap_head=false",), ("heatmap_head=true",)
_DEPTHS = {1: 65.7, 2: 66.9, 3: 67.1, 4: 67.2, 5: 67.2, 6: 67.2}  # AP after each decoder layer, table 3


def _q2q(is_on: bool, auxiliary: tuple[str, ...], paper: float | None = None) -> Row:
    name = f"{'q2q' if is_on else 'no q2q'}, {'with' if auxiliary is _WITH else 'without'} auxiliary loss"
    return Row(name, (*_NO_ENCODER, f"query_self_attention={str(is_on).lower()}", *auxiliary), paper)


_AUXILIARY = (Row("without auxiliary loss", _WITHOUT, 67.2), Row("with auxiliary loss", _WITH, 69.5))

TABLES = {
    "1": Table(
        "Table 1: query-to-query attention, no encoder", "r18-ne0",
        (_q2q(False, _WITHOUT, 63.2), _q2q(True, _WITHOUT, 64.5), _q2q(False, _WITH), _q2q(True, _WITH)),
    ),
    "2": Table(
        "Table 2: channels, no encoder", "r18-ne0",
        (
            Row("C 128", (*_NO_ENCODER, *_WITHOUT, "d_model=128"), 63.2),
            Row("C 256", (*_NO_ENCODER, *_WITHOUT, "d_model=256"), 64.5),
        ),
    ),
    "3": Table(
        "Table 3: decoder layers", "r18-ne6",
        (
            *(Row(f"{n} of 6, read out", (*_WITHOUT, "num_decoder_layers=6"), _DEPTHS[n], layers=n) for n in _DEPTHS),
            *(Row(f"{n}, trained", (*_WITHOUT, f"num_decoder_layers={n}")) for n in _DEPTHS),
        ),
    ),
    "4": Table("Table 4: the auxiliary loss", "r18-ne6", _AUXILIARY),
    "figure5": Table("Figure 5: convergence with and without the auxiliary loss", "r18-ne6", _AUXILIARY),
    "rivals": Table(
        "Table 5: TFPose and its rivals", "r50-ne6",
        (
            Row("TFPose", _WITH, 71.0),
            Row("DeepPose", (), 56.0, "deeppose", note="ResNet-101"),
            Row("SimpleBaseline", (), 70.4, "simplebaseline"),
        ),
    ),
}  # fmt: skip
"""By the name that the command line takes."""
