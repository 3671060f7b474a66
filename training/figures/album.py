"""The album: which figures there are, what each needs, and the one pass over the data that several share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.figures.convergence import draw_convergence, read_course
from training.figures.examples import draw_examples
from training.figures.observation import Observer
from training.figures.page import CannotDraw
from training.figures.patterns import numbers
from training.figures.people import People
from training.figures.query_graphs import draw_query_graphs
from training.figures.query_maps import draw_query_maps
from training.figures.sampling import draw_around_truth, draw_levels, level_index
from training.figures.survey import Survey, take_survey

FIGURES = {
    5: "convergence of runs, with and without the auxiliary loss (--runs)",
    6: "query-to-query attention, averaged over the data: a heat map per decoder layer",
    7: "sampling points of all heads on C3 around key points (--keypoints, --layer, --level)",
    8: "query-to-query attention as a graph on the body, left-right pairs marked (--edges)",
    9: "the same, neighbours marked (--edges)",
    10: "best, middle and worst predictions (--rank-by)",
    11: "pixel-to-query attention of the right shoulder, a panel per level (--keypoints, --layer)",
    12: "the same of the right knee",
}
"""Number in the paper -> what is drawn."""
AROUND = tuple(f"right_{part}" for part in ("shoulder", "elbow", "wrist", "hip", "knee", "ankle"))
"""Key points of figure 7, where nobody chooses."""
BY_LEVEL = {11: "right_shoulder", 12: "right_knee"}


@dataclass(frozen=True)
class Wishes:
    """What the caller chose; None leaves it to the figure."""

    count: int = 4
    """Persons shown: rows of figures 7, 11 and 12, columns of 10."""
    layer: int | None = None
    """Decoder layer of figures 7, 11 and 12, 1-based; None is the last."""
    level: int = 3
    """Of figure 7."""
    keypoints: tuple[str, ...] = ()
    """Of figures 7, 11 and 12."""
    edges: int | None = None
    """Pairs in figures 8 and 9; None is the number of key points."""
    rank_by: str = "oks"
    """A key of `examples.RANKS`."""


class Album:
    """Draws figures of one network on one data set, and of runs.

    Args:
        output: folder of the PNGs; it must exist.
        model: a checkpoint; None allows figure 5 alone.
        data: DATA; None likewise.
        runs: run folders and their labels (or None), for figure 5.
        wishes: what to show.
        names: of model and data, for titles.
        device: of the network.
        progress: show a bar on stderr.
    """

    def __init__(
        self, output: Path, model: Path | None = None, data: str | None = None,
        runs: Sequence[tuple[Path, str | None]] = (), wishes: Wishes = Wishes(), names: tuple[str, str] = ("", ""),
        device: str = "cpu", progress: bool = False,
    ) -> None:  # fmt: skip
        self.output, self.model, self.data, self.runs = output, model, data, runs
        self.wishes, self.names, self.device, self.progress = wishes, names, device, progress

    def draw(self, number: int) -> list[Path]:
        """Draw a figure of `FIGURES`; the PNGs it became.

        Raises:
            CannotDraw: model, data or wishes do not allow it.
            PoseError: model, data or a run cannot be read.
        """
        draw: dict[int, Callable[[], list[Path]]] = {
            5: self._convergence, 6: self._query_maps, 7: self._around_truth, 8: partial(self._graphs, 8, "symmetric"),
            9: partial(self._graphs, 9, "adjacent"), 10: self._examples, 11: partial(self._levels, 11),
            12: partial(self._levels, 12),
        }  # fmt: skip
        return draw[number]()

    @cached_property
    def observer(self) -> Observer:
        """The network; CannotDraw without MODEL."""
        if self.model is None:
            raise CannotDraw("needs MODEL, a checkpoint")
        return Observer(self.model, self.device)

    @cached_property
    def people(self) -> People:
        """The data set; CannotDraw without --data."""
        if self.data is None:
            raise CannotDraw("needs --data DATA")
        return People(self.data, self.observer.config)

    @cached_property
    def survey(self) -> Survey:
        """The pass over the data that figures 6, 8, 9 and 10 share."""
        return take_survey(self.observer, self.people, progress=self.progress)

    @property
    def query_attention(self) -> NDArray[np.float64]:
        """(N_D, K, K), averaged over the data; CannotDraw without q2q attention."""
        if not self.observer.config.query_self_attention:
            raise CannotDraw("the network was built without query-to-query attention (query_self_attention=False)")
        attention = self.survey.query_attention
        assert attention is not None
        return attention

    def query_numbers(self) -> dict[str, object]:
        """The numbers behind figures 6, 8 and 9, JSON-able; CannotDraw as those."""
        return {**numbers(self.query_attention, self._keypoint_names, self._edges), "persons": len(self.survey.persons)}

    @property
    def _keypoint_names(self) -> tuple[str, ...]:
        return self.observer.config.keypoint_names

    @property
    def _edges(self) -> int:
        return self.wishes.edges or len(self._keypoint_names)

    def _about(self, persons: int) -> str:
        return f"{self.names[0]} on {self.names[1]}, {persons} person{'s' * (persons != 1)}"

    def _convergence(self) -> list[Path]:
        if not self.runs:
            raise CannotDraw("needs --runs DIR ..., folders that training.train wrote")
        draw_convergence(path := self.output / "figure-05.png", [read_course(*run) for run in self.runs])
        return [path]

    def _query_maps(self) -> list[Path]:
        attention, path = self.query_attention, self.output / "figure-06.png"
        draw_query_maps(path, attention, self._keypoint_names, self._about(len(self.survey.persons)))
        return [path]

    def _graphs(self, number: int, pattern: str) -> list[Path]:
        attention, path = self.query_attention, self.output / f"figure-{number:02}.png"
        about = self._about(len(self.survey.persons))
        draw_query_graphs(path, attention, self._keypoint_names, pattern, self._edges, about)
        return [path]

    def _examples(self) -> list[Path]:
        about, path = self._about(len(self.survey.persons)), self.output / "figure-10.png"
        draw_examples(path, self.survey, self._keypoint_names, self.wishes.rank_by, self.wishes.count, about)
        return [path]

    def _around_truth(self) -> list[Path]:
        level_index(self.observer.config, self.wishes.level)
        names = self._chosen(AROUND)
        people, path = self.people.choose(names, self.wishes.count), self.output / "figure-07.png"
        draw_around_truth(
            path, self.observer, people, names, self._layer(), self.wishes.level, self._about(len(people))
        )
        return [path]

    def _levels(self, number: int) -> list[Path]:
        paths = []
        for name in self._chosen((BY_LEVEL[number],)):
            people = self.people.choose([name], self.wishes.count)
            paths.append(self.output / f"figure-{number}-{name}.png")
            draw_levels(paths[-1], self.observer, people, name, self._layer(), self._about(len(people)))
        return paths

    def _chosen(self, default: Sequence[str]) -> tuple[str, ...]:
        """Key points to show: the caller's, or those of `default` that the network has."""
        has = self._keypoint_names
        if unknown := [name for name in self.wishes.keypoints if name not in has]:
            raise CannotDraw(f"unknown key points {', '.join(unknown)}; legal for --keypoints are {', '.join(has)}")
        chosen = self.wishes.keypoints or tuple(name for name in default if name in has)
        if not chosen:
            raise CannotDraw(f"the network has no {', '.join(default)}; choose with --keypoints among {', '.join(has)}")
        return chosen

    def _layer(self) -> int:
        """Index of the decoder layer to show."""
        layers = self.observer.config.num_decoder_layers
        layer = layers if self.wishes.layer is None else self.wishes.layer
        if not 1 <= layer <= layers:
            raise CannotDraw(f"--layer is {layer}; the network's decoder layers are 1 to {layers}")
        return layer - 1
