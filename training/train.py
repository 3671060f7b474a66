"""Train a TFPose network.

    python -m training.train                                     # tiny, on people rendered on the fly, minutes on a CPU
    python -m training.train --preset r50-ne6 --output runs/r50 \\
        --train coco/annotations/person_keypoints_train2017.json:coco/train2017 \\
        --val coco/annotations/person_keypoints_val2017.json:coco/val2017
    python -m training.train --preset r50-ne6 --output runs/r50 --resume      # goes on where that run stopped

DATA is ANN.json:IMAGES[:FIRST-LAST], COCO key-point JSON and its picture folder, with an optional range of images. Data
sets with other skeletons are joined by key-point name; what a set does not name stays unlabelled. The output folder
holds best.safetensors, last.safetensors, config.json, metrics.jsonl, curves.png and state/.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sys
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from accelerate import Accelerator
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from runtime.errors import InputError, PoseError
from tfpose_edge import PRESETS, PoseConfig, TFPose, save_checkpoint
from training import engine, figures, metrics
from training.data.coco import DataSpec, load_persons
from training.data.crops import Augmentation
from training.data.dataset import EpochSampler, JoinedPeople, PhotographedPeople, RenderedPeople
from training.optimizer import build_optimizer, scaled_lr, schedule
from training.run import Progress, RunFolder

LOG_EVERY = 10  # steps


@dataclass(frozen=True)
class Recipe:
    """Defaults that belong to a preset."""

    epochs: int = 325
    batch_size: int = 256
    lr: float | None = None
    """None scales the paper's 4e-3 from batch 1024."""
    transformer_lr_factor: float = 0.1
    warmup_steps: int = 500


RECIPES = {"tiny": Recipe(epochs=20, batch_size=32, lr=2e-3, transformer_lr_factor=0.5, warmup_steps=100)}


@dataclass(frozen=True)
class Options:
    """The command line; see the module's text for examples."""

    preset: str = "tiny"
    """Network, one of tfpose_edge.PRESETS."""
    train: tuple[str, ...] = ()
    """Annotated photographs, DATA ...; without any, rendered people."""
    val: str | None = None
    """DATA to measure on after every epoch; decides which epoch is best."""
    rendered: int | None = None
    """Rendered people per epoch; 4096 without --train, none with it unless asked for."""
    output: Path = Path("runs/tfpose")
    """Run folder."""
    epochs: int | None = None
    """Passes over the data; the preset's recipe says otherwise how many."""
    batch_size: int | None = None
    """Persons per step, over all processes."""
    lr: float | None = None
    """Base learning rate of this batch size; default: the paper's 4e-3, linearly from batch 1024."""
    transformer_lr_factor: float | None = None
    """Factor for encoder, decoder and key-point heads; the paper's is 0.1."""
    weight_decay: float = 1e-4
    warmup_steps: int | None = None
    """Steps of linear warm-up before the cosine."""
    clip_grad: float | None = None
    """Largest gradient norm."""
    backbone_weights: Path | None = None
    """torchvision's ImageNet weights of the preset's ResNet, a .pth or .safetensors file."""
    sampler: str = "auto"
    """Deformable sampler: auto, grid_sample, gather, tent."""
    precision: Literal["bf16", "fp32"] | None = None
    """Default: bf16 on a GPU, fp32 on a CPU."""
    ema: bool = False
    """Keep an exponential average of the weights; best and last hold the average."""
    max_minutes: float | None = None
    """Stop after this time, in the middle of an epoch if need be; --resume goes on."""
    resume: bool = False
    """Go on from the output folder's state."""
    workers: int | None = None
    """Processes that cut or render crops; default: half the CPUs, 8 at most."""
    threads: int | None = None
    """Threads that compute; default: the CPUs that the workers leave."""
    seed: int = 0
    debug: Annotated[bool, "show tracebacks"] = field(default=False)


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    import tyro

    options = tyro.cli(Options, prog="python -m training.train", description=__doc__, args=argv)
    try:
        train(options)
    except KeyboardInterrupt:
        print("interrupted; --resume goes on", file=sys.stderr)
        return 130
    except (PoseError, ValueError) as error:
        if options.debug:
            traceback.print_exc()
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code if isinstance(error, PoseError) else 2
    return 0


def train(options: Options) -> Path:
    """Train as the options say; returns the run folder."""
    if options.preset not in PRESETS:
        raise ValueError(f"unknown preset {options.preset!r}; legal are {', '.join(PRESETS)}")
    options = _with_defaults(options)
    accelerator = _accelerator(options)
    torch.manual_seed(options.seed)
    engine.prepare_process(options.threads)  # type: ignore[arg-type]
    run = _open_run(options)
    session = Session(options, run, accelerator)
    if options.resume:
        session.resume()
    session.run_epochs()
    return options.output


class Session:
    """One run between start and end: network, data, optimiser and progress."""

    def __init__(self, options: Options, run: RunFolder, accelerator: Accelerator) -> None:
        self.options, self.run, self.accelerator = options, run, accelerator
        config = PRESETS[options.preset]
        self.data = _training_data(options, config)
        self.val = _validation_data(options, config)
        self.model = TFPose(config, options.sampler)
        if not options.resume:
            self.model.reference_logits.data.copy_(torch.logit(engine.mean_keypoints(self.data)))
            if options.backbone_weights:
                load_backbone(self.model, options.backbone_weights)
        self.model = self.model.to(accelerator.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = AveragedModel(self.model, multi_avg_fn=get_ema_multi_avg_fn(0.999), use_buffers=True)
        self.optimizer = build_optimizer(
            self.model,
            options.lr,
            options.weight_decay,
            options.transformer_lr_factor,  # type: ignore[arg-type]
        )
        self.wrapped, self.optimizer = accelerator.prepare(self.model, self.optimizer)
        self.sampler = EpochSampler(
            len(self.data),
            options.batch_size,
            options.seed,
            accelerator.process_index,
            accelerator.num_processes,  # type: ignore[arg-type]
        )
        self.progress = Progress()
        self.steps = options.epochs * len(self.sampler)  # type: ignore[operator]
        self.started = time.monotonic()

    def resume(self) -> None:
        """Take up the state of the run folder: weights, optimiser, random numbers and place in the data."""
        self.progress, state = self.run.load_state()
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["random"])
        self.run.cut_log(self.progress.step)

    def run_epochs(self) -> None:
        """Train until all epochs are done or time is up."""
        self._say(
            f"{self.options.preset}: {sum(p.numel() for p in self.model.parameters()) / 1e6:.2f} M parameters, "
            f"{len(self.data)} persons, {self.steps} steps, sampler {self.model.sampler_name}, "
            f"{self.accelerator.device}, {self.options.precision}"
        )
        before = self.progress.seconds
        while self.progress.epoch < self.options.epochs:  # type: ignore[operator]
            whole = self._train_epoch()
            self.progress.seconds = before + time.monotonic() - self.started
            if not whole:
                self._save_state()
                self._say(f"time is up after {self.progress.step} of {self.steps} steps; --resume goes on")
                self._save_checkpoints(is_best=False)
                break
            self._finish_epoch()
        self._draw_curves()

    def _train_epoch(self) -> bool:
        """The rest of the epoch under way; False when time ran out before its end."""
        self.model.train()
        p = self.progress
        self.sampler.epoch, self.sampler.start = p.epoch, p.batch
        batches = engine.loader(self.data, self.sampler, self.options.workers)  # type: ignore[arg-type]
        steps = engine.train_epoch(
            self.wrapped, batches, self.optimizer, self.accelerator, self._lr_factor, self.options.clip_grad
        )
        title = f"epoch {p.epoch + 1}/{self.options.epochs}"
        bar = tqdm(steps, title, len(self.sampler), leave=False, disable=not self.accelerator.is_main_process)
        for losses in bar:
            p.batch, p.step = p.batch + 1, p.step + 1
            if self.options.ema:
                self.average.update_parameters(self.model)
            bar.set_postfix_str(f"loss {losses['loss']:.3f}, key points {losses['loss_keypoints']:.3f}")
            if p.step % LOG_EVERY == 0:
                self._log({"kind": "step", "step": p.step, "epoch": p.epoch + 1, "lr": self._lr(), **losses})
            if self._out_of_time() and self.sampler.start + len(self.sampler) > p.batch:
                return False
        return True

    def _finish_epoch(self) -> None:
        p = self.progress
        p.epoch, p.batch = p.epoch + 1, 0
        figures_ = self._validate()
        line = {"kind": "epoch", "step": p.step, "epoch": p.epoch, "seconds": round(p.seconds, 1), **figures_}
        self._log(line)
        recent = [entry["loss"] for entry in self.run.read_log() if entry["kind"] == "step"][-20:]
        shown = ", ".join(f"{name} {value:.1f}" for name, value in figures_.items())
        self._say(
            f"epoch {p.epoch}: loss {np.mean(recent) if recent else float('nan'):.3f}" + (f", {shown}" * bool(shown))
        )
        is_best = figures_.get("oks", 0.0) >= p.best or self.val is None
        p.best = max(p.best, figures_.get("oks", -1.0))
        self._save_checkpoints(is_best)
        self._save_state()
        self._draw_curves()

    def _validate(self) -> dict[str, float]:
        """Mean OKS and PCK@0.2 on the validation data, in percent."""
        if self.val is None:
            return {}
        batches = engine.loader(self.val, EpochSampler(len(self.val), 32, 0), 0)
        found = engine.predict(self._shipped(), batches, self.accelerator.device)
        persons = [self.val.persons[i] for i in found["index"]]
        names = self.model.config.keypoint_names
        figures_ = {"oks": 100 * float(metrics.oks(found["keypoints_xy"], persons, names).mean())}
        with contextlib.suppress(InputError):  # a skeleton without a torso has no PCK
            figures_["pck"] = metrics.pck(found["keypoints_xy"], persons, names, 0.2)["value"]
        return figures_

    def _shipped(self) -> TFPose:
        """The network that checkpoints hold: the average with --ema."""
        return self.average.module if self.options.ema else self.model  # type: ignore[return-value]

    def _save_checkpoints(self, is_best: bool) -> None:
        if not self.accelerator.is_main_process:
            return
        o, p = self.options, self.progress
        provenance = {
            "preset": o.preset, "data": list(o.train) or "rendered people", "rendered": o.rendered, "epochs": p.epoch,
            "steps": p.step, "batch_size": o.batch_size, "seed": o.seed, "minutes": round(p.seconds / 60, 1),
            "best_oks": p.best if self.val is not None else None,
        }  # fmt: skip
        save_checkpoint(self.run.path / "last.safetensors", self._shipped(), provenance)
        if is_best or not (self.run.path / "best.safetensors").exists():
            save_checkpoint(self.run.path / "best.safetensors", self._shipped(), provenance)

    def _save_state(self) -> None:
        if self.accelerator.is_main_process:
            state = {
                "model": self.model.state_dict(), "average": self.average.state_dict(),
                "optimizer": self.optimizer.state_dict(), "random": torch.get_rng_state(),
            }  # fmt: skip
            self.run.save_state(self.progress, state)

    def _lr_factor(self) -> float:
        return schedule(self.progress.step, self.steps, self.options.warmup_steps)  # type: ignore[arg-type]

    def _lr(self) -> float:
        return float(self.optimizer.param_groups[0]["lr"])

    def _out_of_time(self) -> bool:
        limit = self.options.max_minutes
        return limit is not None and time.monotonic() - self.started > 60 * limit

    def _log(self, line: dict[str, Any]) -> None:
        if self.accelerator.is_main_process:
            self.run.log(line)

    def _draw_curves(self) -> None:
        if self.accelerator.is_main_process:
            figures.draw_curves(self.run.path / "curves.png", self.run.read_log())

    def _say(self, text: str) -> None:
        if self.accelerator.is_main_process:
            tqdm.write(text, file=sys.stderr)


def load_backbone(model: TFPose, path: Path) -> None:
    """Load torchvision's ImageNet weights; the classifier is left out, everything else must fit."""
    if not path.is_file():
        raise InputError(f"{path}: no such file of backbone weights")
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        weights = load_file(path)
    else:
        weights = torch.load(path, map_location="cpu", weights_only=True)
    weights = {name: value for name, value in weights.items() if not name.startswith("fc.")}
    try:
        model.backbone.load_state_dict(weights)
    except RuntimeError as error:
        raise InputError(f"{path}: not weights of torchvision's {model.config.backbone}: {error}") from error


def _with_defaults(options: Options) -> Options:
    recipe = RECIPES.get(options.preset, Recipe())
    batch_size = options.batch_size or recipe.batch_size
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    filled = {
        "epochs": recipe.epochs, "batch_size": batch_size, "lr": recipe.lr or scaled_lr(batch_size),
        "transformer_lr_factor": recipe.transformer_lr_factor, "warmup_steps": recipe.warmup_steps,
        "rendered": 0 if options.train else 4096, "precision": "bf16" if torch.cuda.is_available() else "fp32",
        "workers": min(8, max(1, cpus // 2)),
        "threads": max(1, cpus - (options.workers if options.workers is not None else min(8, max(1, cpus // 2)))),
    }  # fmt: skip
    missing = {name: value for name, value in filled.items() if getattr(options, name) is None}
    return dataclasses.replace(options, **missing)  # type: ignore[arg-type]


def _accelerator(options: Options) -> Accelerator:
    return Accelerator(
        mixed_precision="bf16" if options.precision == "bf16" else "no", cpu=not torch.cuda.is_available()
    )


def _open_run(options: Options) -> RunFolder:
    """The output folder, refusing to resume nothing, to resume another run, or to overwrite one."""
    run = RunFolder(options.output)
    free = {"output", "resume", "max_minutes", "workers", "threads", "debug"}
    mine = {k: v for k, v in _jsonable(options).items() if k not in free}
    former = run.read_config().get("options", {})
    if options.resume:
        if not run.has_state:
            raise InputError(f"{options.output}: nothing to resume, there is no state/state.pt")
        changed = [f"{k} was {former.get(k)!r}, is {v!r}" for k, v in mine.items() if former.get(k) != v]
        if changed:
            raise InputError(f"{options.output}: --resume goes on with the options of the run; {'; '.join(changed)}")
    elif run.has_state:
        raise InputError(f"{options.output}: holds a run already; --resume goes on with it, or choose another --output")
    config = dataclasses.asdict(PRESETS[options.preset])
    run.write_config({"config": config, "options": mine})
    return run


def _jsonable(options: Options) -> dict[str, Any]:
    values = dataclasses.asdict(options).items()
    return {k: str(v) if isinstance(v, Path) else list(v) if isinstance(v, tuple) else v for k, v in values}


def _training_data(options: Options, config: PoseConfig) -> JoinedPeople:
    augmentation, seed = Augmentation(), options.seed
    parts: list[PhotographedPeople | RenderedPeople] = [
        PhotographedPeople(
            load_persons(DataSpec.parse(text), config.keypoint_names).labelled, config, augmentation, seed
        )
        for text in options.train
    ]
    if options.rendered:
        parts.append(RenderedPeople(options.rendered, config, augmentation, seed))
    return JoinedPeople(parts)


def _validation_data(options: Options, config: PoseConfig) -> PhotographedPeople | None:
    if options.val is None:
        return None
    return PhotographedPeople(load_persons(DataSpec.parse(options.val), config.keypoint_names).labelled, config)


if __name__ == "__main__":
    raise SystemExit(main())
