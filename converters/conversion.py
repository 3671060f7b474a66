"""From one checkpoint to its artifacts: trace, write, run, compare, and only then show."""

from __future__ import annotations

import contextlib
import io
import logging
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from converters.delegation import DELEGATES
from converters.errors import ConversionError
from converters.formats import FORMATS, NAIVE_SAMPLER, check_installed, write_artifact
from converters.graph import ExportGraph
from converters.parity import Parity, artifact_outputs, compare, runners
from converters.recipe import Recipe
from converters.rewrites import REWRITES, rewrites_for
from converters.sidecar import provenance, write_sidecar
from converters.source import Source, load_source
from converters.staging import staging
from runtime.errors import PoseError
from runtime.sidecar import artifact_files

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Options:
    """What a caller may choose."""

    precision: str = "fp32"
    """A key of `recipe.PRECISIONS`."""
    sampler: str = "auto"
    """A name, or "auto": the format's own, `grid_sample` without rewrites."""
    rewrites: tuple[str, ...] = tuple(REWRITES)
    """Names from `REWRITES`; a format takes those that help its engines."""
    batch: int = 1
    calibration: str | None = None
    """ANN.json:IMAGES[:FIRST-LAST] to compare on, and to take int8's ranges from; None: rendered people."""
    crops: int = 64
    """How many to compare on."""
    mix: str = "auto"
    """What int8 or fp16 means: a key of `recipe.MIXES`, or "auto": the format's own."""
    image_input: bool = False
    """Core ML takes an RGB image; others have no such thing."""
    accept: bool = False
    """Write artifacts that are over the limit, and say so in the sidecar."""
    debug: bool = False
    """Let the exporters talk."""
    decoder_layers: int | None = None
    """The first so many; None: all. Fewer is not exact: parity is with the whole checkpoint."""
    delegate: str = "xnnpack"
    """Of ExecuTorch: a key of `delegation.DELEGATES`; other formats have none and are as without it."""

    def sampler_for(self, name: str) -> str:
        """The sampler of that format's graph; ValueError with the legal ones if the format cannot hold it."""
        if self.sampler == "auto":
            fastest = DELEGATES[self.delegate].sampler if name == "executorch" else FORMATS[name].sampler
            return fastest if self.rewrites else NAIVE_SAMPLER
        legal = FORMATS[name].samplers
        if self.sampler not in legal:
            raise ValueError(f"{name} cannot hold the sampler {self.sampler!r}; legal are auto, {', '.join(legal)}")
        return self.sampler

    def check(self, name: str) -> None:
        """ValueError with what is legal if that format cannot hold the sampler or the precision."""
        self.sampler_for(name)
        legal = FORMATS[name].precisions
        if self.precision not in legal:
            raise ValueError(f"{name} is not written in {self.precision}; legal are {', '.join(legal)}")
        if self.delegate != "xnnpack" and self.precision != "fp32":
            raise ValueError(f"{self.precision} is for the delegate xnnpack; for {self.delegate}, legal is fp32")
        mixes = FORMATS[name].mixes_of(self.precision)
        if self.mix not in ("auto", *mixes):
            raise ValueError(
                f"{name} has no mix {self.mix!r} of {self.precision}; legal are {', '.join(('auto', *mixes))}"
            )
        if self.image_input and (name != "coreml" or self.batch != 1):
            raise ValueError("--image-input is Core ML's, one image at a time: --to coreml --batch 1")

    def is_verifiable(self, name: str) -> bool:
        """Whether an artifact of that format can be run and compared on this machine."""
        return name != "executorch" or DELEGATES[self.delegate].is_everywhere

    def file_name(self, name: str) -> str:
        """Of the artifact in that format."""
        return FORMATS[name].file_name(self.precision, self.delegate if name == "executorch" else "xnnpack")

    def recipe_for(self, name: str, calibration: NDArray[np.uint8] | None, progress: Progress) -> Recipe:
        """What that format's `convert` is given; `calibration` are the crops of int8's ranges."""
        mixes, is_int8 = FORMATS[name].mixes_of(self.precision), self.precision == "int8"
        mix = (mixes[0] if self.mix == "auto" else self.mix) if mixes else None
        return Recipe(
            precision=self.precision,
            calibration=calibration if is_int8 else None,
            delegate=self.delegate,
            mix=mix,
            image_input=self.image_input,
            progress=progress,
        )

    def input_dtype(self, name: str) -> str:
        """Type of that format's crops; an image's are bytes."""
        return "uint8" if self.image_input else FORMATS[name].input_dtype


@dataclass(frozen=True)
class Converted:
    """One finished artifact."""

    format: str
    file: Path
    bytes: int  # of all its files
    seconds: float  # that the conversion took
    sampler: str
    rewrites: tuple[str, ...]
    parity: Parity | None  # None: nothing on this machine runs it


def convert_checkpoint(
    checkpoint: Path, formats: Sequence[str], output: Path, options: Options, progress: Progress = lambda line: None
) -> list[Converted]:
    """Write artifact and sidecar of each format into `output`: all of them, or none and an error.

    Raises:
        ConversionError: not a checkpoint, fewer decoder layers than asked for, an exporter failed, or the key points
            are not the checkpoint's.
        BackendUnavailable: a format's packages are not installed.
        InputError: the calibration data cannot be read.
        ValueError: a format cannot hold the sampler or the precision asked for.
    """
    check_all(formats, options)
    progress(f"crops of {options.calibration or 'rendered people'}, through the checkpoint")
    source = load_source(checkpoint, options.precision, options.calibration, options.crops)
    check_layers(source, options.decoder_layers)
    if source.calibration is not None:
        progress(f"ranges of int8 from {len(source.calibration)} crops of {source.ranges_of}")
    with staging(output) as folder:
        converted = [convert_one(source, name, folder, options, progress) for name in formats]
    return [replace(one, file=output / one.file.name) for one in converted]


def check_layers(source: Source, wanted: int | None) -> None:
    """ConversionError if the network has fewer decoder layers than wanted."""
    has = source.model.config.num_decoder_layers
    if wanted is not None and wanted > has:
        raise ConversionError(f"--decoder-layers {wanted}: the network has {has}; legal are 1..{has}")


def check_all(formats: Sequence[str], options: Options) -> None:
    """ValueError or BackendUnavailable, as `convert_checkpoint`, before any work is done."""
    for name in formats:
        options.check(name)
        check_installed(name, options.precision)


def convert_one(source: Source, name: str, folder: Path, options: Options, progress: Progress) -> Converted:
    """One format into `folder`: artifact, comparison, sidecar."""
    started = time.perf_counter()
    sampler, config = options.sampler_for(name), source.model.config
    rewrites = rewrites_for(name, options.rewrites)
    path = folder / options.file_name(name)
    progress(f"{name}: exporting ({sampler}, {len(rewrites)} rewrites)")
    with explained(f"{name}: the export failed"), quiet(options.debug):
        graph = ExportGraph(source.model, sampler, rewrites, options.decoder_layers)
        example = graph.example(options.batch, FORMATS[name].input_dtype)
        export = write_artifact(name, graph, example, path, options.recipe_for(name, source.calibration, progress))
    seconds = time.perf_counter() - started
    parity, engines = compared(source, name, path, options, progress)
    packages = FORMATS[name].packages_for(options.precision)
    facts = {
        "input_dtype": options.input_dtype(name),
        "batch": options.batch,
        "precision": options.precision,
        "sampler": sampler,
        "rewrites": rewrites,
        "decoder_layers": options.decoder_layers or config.num_decoder_layers,
        "export": export,
        "presence_score": source.presence_score(options.decoder_layers),
        "provenance": provenance(
            source.checkpoint, source.training, source.crops_in_words(options.precision), packages
        ),
    }
    write_sidecar(path, config, facts, parity, engines)
    size = sum((folder / file).stat().st_size for file in artifact_files(path))
    return Converted(name, path, size, seconds, sampler, rewrites, parity)


def compared(
    source: Source, name: str, path: Path, options: Options, progress: Progress
) -> tuple[Parity | None, dict[str, bool]]:
    """The worst parity among the engines that run the artifact, through the gate, and whether its own engine did."""
    engine = FORMATS[name].engine
    if not options.is_verifiable(name):
        progress(f"{name}: unverified: a program for {options.delegate} runs on devices with {options.delegate} only")
        return None, {engine: False}
    progress(f"{name}: comparing {len(source.crops)} crops")
    with explained(f"{name}: the artifact does not run"), quiet(options.debug):
        measured = measure(source, name, path, options.batch, options.input_dtype(name))
    parity = gate(name, max(measured, key=lambda one: (np.isnan(one.max_px), one.max_px)), options)
    if not parity.meaningful:
        progress(f"{name}: parity is not meaningful: the checkpoint moves its key points by {parity.motion_px:.2g} px")
    return parity, {engine: any(one.engine == engine for one in measured)}


def measure(source: Source, name: str, path: Path, batch: int, input_dtype: str) -> list[Parity]:
    """Compare an artifact with its checkpoint in every engine of this machine that runs it."""
    found = []
    for engine, backend in runners(path, FORMATS[name].engine).items():
        actual = artifact_outputs(backend, source.crops, batch, input_dtype, source.expected)
        found.append(compare(source.expected, actual, source.model.config.input_size_wh, engine, source.labels))
        backend.close()
    return found


def gate(name: str, parity: Parity, options: Options) -> Parity:
    """The same parity, marked if it passes only because the caller accepts it; ConversionError if it does not pass."""
    violations = parity.violations(options.precision)
    if violations and not options.accept:
        raise ConversionError(f"{name}: {'; '.join(violations)}; nothing written (--accept writes it all the same)")
    return replace(parity, accepted=bool(violations))


@contextlib.contextmanager
def explained(what: str) -> Iterator[None]:
    """Turn an engine's own exception into a ConversionError of one line; errors of this project pass."""
    try:
        yield
    except PoseError:
        raise
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ConversionError(f"{what}: {lines[0]} (--debug shows all)") from error


@contextlib.contextmanager
def quiet(debug: bool = False) -> Iterator[None]:
    """Without the exporters' progress bars, warnings and log lines."""
    if debug:
        yield
        return
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
