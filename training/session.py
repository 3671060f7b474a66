"""One training run from start to end: network, data, optimiser, validation and what is written."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from tqdm import tqdm

from runtime.errors import InputError
from tfpose_edge import PoseConfig, count_parameters
from tfpose_edge.attention import choose_sampler
from training import engine, figures, metrics, networks
from training.data.augmentation import parse_augmentation
from training.data.damage import Damage
from training.data.dataset import EpochSampler, JoinedPeople, PhotographedPeople, RenderedPeople, in_order, watched
from training.data.reading import load_labelled
from training.data.spec import DataSpec
from training.optimizer import average_of, build_optimizer, schedule
from training.options import Plan
from training.run import Progress, RunFolder
from training.weights import load_backbone, load_weights

LOG_EVERY = 10  # steps


class Session:
    """One run between start and end: network, data, optimiser and progress."""

    def __init__(self, options: Plan, run: RunFolder, accelerator: Accelerator) -> None:
        self.options, self.run, self.accelerator = options, run, accelerator
        config = networks.configuration(options.preset, options.change)
        self.data, self.damage = _training_data(options, config, self._say)
        self.val, self.val_damage = _validation_data(options, config, self._say)
        sampler = choose_sampler(options.sampler, accelerator.device)
        self.model = networks.build(options.network, config, sampler, options.sample_then_project)
        if not options.resume:
            networks.start_at(self.model, engine.mean_keypoints(self.data))
            if options.initial_weights:
                load_weights(self.model, options.initial_weights)
            if options.backbone_weights:
                load_backbone(self.model, options.backbone_weights)
        self.model = self.model.to(accelerator.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = average_of(self.model) if options.ema else None
        self.optimizer = build_optimizer(
            self.model,
            options.lr,
            options.weight_decay,
            options.transformer_lr_factor,
        )
        self.wrapped, self.optimizer = accelerator.prepare(self.model, self.optimizer)
        self.sampler = EpochSampler(
            len(self.data),
            options.batch_size,
            options.seed,
            accelerator.process_index,
            accelerator.num_processes,
        )
        self.progress = Progress()
        self.steps = options.epochs * self.sampler.batches
        self.started = time.monotonic()
        self.interrupted = False

    def resume(self) -> None:
        """Take up the state of the run folder: weights, optimiser, random numbers and place in the data."""
        self.progress, state = self.run.load_state()
        self.model.load_state_dict(state["model"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["random"])
        if torch.cuda.is_available() and state["cuda_random"]:
            torch.cuda.set_rng_state_all(state["cuda_random"])
        self.run.cut_log(self.progress.step)

    def run_epochs(self) -> None:
        """Train until all epochs are done, time is up or Ctrl-C: those two keep the state for --resume.

        Raises:
            KeyboardInterrupt: after Ctrl-C, with everything saved.
        """
        self._say(
            f"{self.options.preset}: {count_parameters(self.model) / 1e6:.2f} M parameters, {len(self.data)} persons, "
            f"{self.steps} steps, sampler {self.model.sampler_name}, {self.accelerator.device} {self.options.precision}"
        )
        before = self.progress.seconds
        with self._catching_interrupts():
            while self.progress.epoch < self.options.epochs:
                whole = self._train_epoch()
                self.progress.seconds = before + time.monotonic() - self.started
                if whole:
                    self._finish_epoch()
                if self._must_stop():
                    break
        if self.progress.epoch < self.options.epochs:
            self._save_state()
            self._save_checkpoints(is_best=self.val is None)
            self._say(f"stopped after {self.progress.step} of {self.steps} steps; --resume goes on")
        self._draw_curves()
        for summary in (self.damage.summary(), self.val_damage.summary()):
            if summary:
                self._say(summary)
        if self.interrupted:
            raise KeyboardInterrupt

    @contextlib.contextmanager
    def _catching_interrupts(self) -> Iterator[None]:
        """The first Ctrl-C ends training after the step under way; a second one ends it at once."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def stop(signum: int, frame: object) -> None:
            self.interrupted = True
            signal.signal(signal.SIGINT, former)

        former = signal.signal(signal.SIGINT, stop)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, former)

    def _train_epoch(self) -> bool:
        """The rest of the epoch under way; False when time ran out before its end."""
        self.model.train()
        p = self.progress
        self.sampler.epoch, self.sampler.start = p.epoch, p.batch
        loader = engine.loader(self.data, self.sampler, self.options.workers)
        batches = watched(loader, self.data, self.damage)
        steps = engine.train_epoch(
            self.wrapped, batches, self.optimizer, self.accelerator, self._lr_factor, self.options.clip_grad
        )
        title = f"epoch {p.epoch + 1}/{self.options.epochs}"
        bar = tqdm(
            steps,
            title,
            self.sampler.batches,
            initial=p.batch,
            leave=False,
            disable=not self.accelerator.is_main_process,
        )
        for losses in bar:
            p.batch, p.step, p.loss_sum = p.batch + 1, p.step + 1, p.loss_sum + losses["loss"]
            if self.average is not None:
                self.average.update_parameters(self.model)
            bar.set_postfix_str(", ".join(f"{name} {value:.3f}" for name, value in losses.items()))
            if p.step % LOG_EVERY == 0:
                self._log({"kind": "step", "step": p.step, "epoch": p.epoch + 1, "lr": self._lr(), **losses})
            if self._must_stop():
                break
        return p.batch == self.sampler.batches

    def _finish_epoch(self) -> None:
        p = self.progress
        if self.accelerator.num_processes > 1:
            self.damage.note(*gather_object(self.damage.problems))
        measured = {"loss": p.loss_sum / self.sampler.batches, **self._validate()}
        p.epoch, p.batch, p.loss_sum = p.epoch + 1, 0, 0.0
        self._log({"kind": "epoch", "step": p.step, "epoch": p.epoch, "seconds": round(p.seconds, 1), **measured})
        self._say(f"epoch {p.epoch}: " + ", ".join(f"{name} {value:.4g}" for name, value in measured.items()))
        is_best = self.val is None or measured["oks"] > p.best
        p.best = max(p.best, measured.get("oks", p.best))
        self._save_checkpoints(is_best)
        self._save_state()
        self._draw_curves()

    def _validate(self) -> dict[str, float]:
        """Mean OKS and PCK@0.2 on the validation data, in percent."""
        if self.val is None:
            return {}
        batches = engine.loader(self.val, in_order(len(self.val), 32), 0)
        found = engine.predict(self._shipped(), batches, self.accelerator.device)
        read = found["place"] == np.arange(len(self.val))
        self.val_damage.note(*(self.val.why_replaced(int(i)) for i in np.flatnonzero(~read)))
        persons, keypoints_xy = [self.val.persons[i] for i in found["place"][read]], found["keypoints_xy"][read]
        names = self.model.config.keypoint_names
        measured = {"oks": 100 * float(metrics.oks(keypoints_xy, persons, names).mean())}
        with contextlib.suppress(InputError):  # a skeleton without a torso has no PCK
            measured["pck"] = metrics.pck(keypoints_xy, persons, names, 0.2)["value"]
        return measured

    def _shipped(self) -> networks.Network:
        """The network that checkpoints hold: the average with --ema."""
        return self.average.module if self.average is not None else self.model  # type: ignore[return-value]

    def _save_checkpoints(self, is_best: bool) -> None:
        if not self.accelerator.is_main_process:
            return
        o, p = self.options, self.progress
        provenance = {
            "preset": o.preset, "network": o.network, "change": list(o.change),
            "data": [data_name(text) for text in o.train] or "rendered people",
            "rendered": o.rendered, "epochs": p.epoch, "steps": p.step, "batch_size": o.batch_size, "seed": o.seed,
            "minutes": round(p.seconds / 60, 1), "best_oks": p.best if self.val is not None else None,
            "initial_weights": o.initial_weights.name if o.initial_weights else None,
            "backbone_weights": Path(str(o.backbone_weights)).name if o.backbone_weights else None,
        }  # fmt: skip
        networks.save(self.run.path / "last.safetensors", self._shipped(), provenance)
        if is_best or not (self.run.path / "best.safetensors").exists():
            networks.save(self.run.path / "best.safetensors", self._shipped(), provenance)

    def _save_state(self) -> None:
        if self.accelerator.is_main_process:
            state = {
                "model": self.model.state_dict(),
                "average": self.average.state_dict() if self.average is not None else {},
                "optimizer": self.optimizer.state_dict(), "random": torch.get_rng_state(),
                "cuda_random": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
            }  # fmt: skip
            self.run.save_state(self.progress, state)

    def _lr_factor(self) -> float:
        return schedule(self.progress.step, self.steps, self.options.warmup_steps)

    def _lr(self) -> float:
        return float(self.optimizer.param_groups[0]["lr"])

    def _must_stop(self) -> bool:
        limit = self.options.max_minutes
        return self.interrupted or (limit is not None and time.monotonic() - self.started > 60 * limit)

    def _log(self, line: dict[str, Any]) -> None:
        if self.accelerator.is_main_process:
            self.run.log(line)

    def _draw_curves(self) -> None:
        if self.accelerator.is_main_process:
            figures.draw_curves(self.run.path / "curves.png", self.run.read_log())

    def _say(self, text: str) -> None:
        if self.accelerator.is_main_process:
            tqdm.write(text, file=sys.stderr)


def data_name(text: str) -> str:
    """DATA without the folders of this machine: set/annotations.json[:FIRST-LAST]."""
    spec = DataSpec.parse(text)
    part = f":{spec.first}-{spec.last or ''}" if spec.last or spec.first > 1 else ""
    return "/".join(spec.annotations.parts[-2:]) + part


def _training_data(options: Plan, config: PoseConfig, warn: Callable[[str], None]) -> tuple[JoinedPeople, Damage]:
    augmentation, seed = parse_augmentation(options.augment), options.seed
    sets, damage = load_labelled(options.train, config.keypoint_names, warn)
    parts: list[PhotographedPeople | RenderedPeople] = [
        PhotographedPeople(persons, config, augmentation, seed) for persons in sets
    ]
    if options.rendered:
        parts.append(RenderedPeople(options.rendered, config, augmentation, seed))
    if not parts:
        raise InputError("nothing to train on: give --train DATA, or --rendered above 0")
    return JoinedPeople(parts), damage


def _validation_data(
    options: Plan, config: PoseConfig, warn: Callable[[str], None]
) -> tuple[PhotographedPeople | None, Damage]:
    sets, damage = load_labelled([options.val] if options.val else [], config.keypoint_names, warn)
    return PhotographedPeople(sets[0], config) if sets else None, damage
