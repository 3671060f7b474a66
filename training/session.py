"""One training run from start to end: network, data, optimiser, validation and what is written."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import nn
from tqdm import tqdm

from runtime.errors import InputError
from tfpose_edge import count_parameters
from tfpose_edge.attention import choose_sampler
from training import engine, figures, metrics, networks
from training.data.dataset import EpochSampler, in_order, watched
from training.normalisation import share_statistics, train_mode
from training.optimizer import SCORE_HEAD, average_of, build_optimizer, schedule
from training.options import Plan
from training.people import data_names, training_people, validation_people
from training.run import Progress, RunFolder
from training.teacher import Teacher
from training.weights import load_backbone, load_weights

ECHO_S = 1.0
"""Seconds in which a second Ctrl-C is taken for the first one's echo."""


class Session:
    """One run between start and end: network, data, optimiser and progress."""

    def __init__(self, options: Plan, run: RunFolder, accelerator: Accelerator) -> None:
        self.options, self.run, self.accelerator = options, run, accelerator
        config = networks.configuration(options.preset, options.change)
        self.data, self.damage = training_people(options, config, self._say)
        self.val, self.val_damage = validation_people(options, config, self._say)
        sampler = choose_sampler(options.sampler, accelerator.device)
        self.model = networks.build(options.network, config, sampler, options.sample_then_project)
        if not options.resume:
            networks.start_at(self.model, engine.mean_keypoints(self.data))
            if options.initial_weights:
                load_weights(self.model, options.initial_weights)
            if options.backbone_weights:
                with accelerator.local_main_process_first():  # one download per machine
                    load_backbone(self.model, options.backbone_weights, options.backbone_sha256)
        for parameter in _frozen(self.model, options):
            parameter.requires_grad_(False)
        self.model = self.model.to(accelerator.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        if options.sync_batchnorm and accelerator.num_processes > 1:
            share_statistics(self.model)
        self.average = average_of(self.model) if options.ema else None
        self.optimizer = build_optimizer(
            self.model, options.lr, options.weight_decay, options.transformer_lr_factor
        )  # fmt: skip
        self.teacher = Teacher(options.teacher, config.keypoint_names, accelerator.device) if options.teacher else None
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
        torch.manual_seed(options.seed + accelerator.process_index)  # each process drops out others

    def resume(self) -> None:
        """Take up the state of the run folder: weights, optimiser, random numbers and place in the data."""
        self.progress, state = self.run.load_state()
        self.model.load_state_dict(state["model"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        if len(state["random"]) == self.accelerator.num_processes:
            engine.set_random_state(state["random"][self.accelerator.process_index], self.accelerator.device)
        else:
            self._say("another number of processes than before: dropout draws other random numbers")
        if self.accelerator.is_main_process:
            self.run.cut_log(self.progress.step)
            self.run.tidy()

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
        """The first Ctrl-C ends training after the step under way; a second one ends it at once.

        torchrun hands every Ctrl-C on to its processes, which the terminal has told already: what comes
        within `ECHO_S` is the same one.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        first = 0.0

        def stop(signum: int, frame: object) -> None:
            """End after this step; asked again, and not by an echo, at once."""
            nonlocal first
            now = time.monotonic()
            if self.interrupted and now - first > ECHO_S:
                signal.signal(signal.SIGINT, former)
                signal.raise_signal(signal.SIGINT)
            first = first if self.interrupted else now
            self.interrupted = True

        former = signal.signal(signal.SIGINT, stop)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, former)

    def _train_epoch(self) -> bool:
        """The rest of the epoch under way; False when time ran out before its end."""
        train_mode(self.model, self.options.freeze_batchnorm)
        p = self.progress
        self.sampler.epoch, self.sampler.start = p.epoch, p.batch
        loader = engine.loader(self.data, self.sampler, self.options.workers)
        batches = watched(loader, self.data, self.damage)
        steps = engine.train_epoch(
            self.wrapped, batches, self.optimizer, self.accelerator, self._lr_factor, self.options.clip_grad,
            self.teacher,
        )  # fmt: skip
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
            if p.step % self.options.log_every == 0:
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
            "data": data_names(o),
            "rendered": o.rendered, "epochs": p.epoch, "steps": p.step, "batch_size": o.batch_size, "seed": o.seed,
            "minutes": round(p.seconds / 60, 1), "best_oks": p.best if self.val is not None else None,
            "initial_weights": o.initial_weights.name if o.initial_weights else None,
            "teacher": o.teacher.name if o.teacher else None, "processes": self.accelerator.num_processes,
            "backbone_weights": Path(str(o.backbone_weights)).name if o.backbone_weights else None,
        }  # fmt: skip
        networks.save(self.run.path / "last.safetensors", self._shipped(), provenance)
        if is_best or not (self.run.path / "best.safetensors").exists():
            networks.save(self.run.path / "best.safetensors", self._shipped(), provenance)

    def _save_state(self) -> None:
        random = gather_object([engine.random_state(self.accelerator.device)])
        if self.accelerator.is_main_process:
            state = {
                "model": self.model.state_dict(),
                "average": self.average.state_dict() if self.average is not None else {},
                "optimizer": self.optimizer.state_dict(), "random": random,
            }  # fmt: skip
            self.run.save_state(self.progress, state)

    def _lr_factor(self) -> float:
        return schedule(self.progress.step, self.steps, self.options.warmup_steps)

    def _lr(self) -> float:
        return float(self.optimizer.param_groups[0]["lr"])

    def _must_stop(self) -> bool:
        """Whether any process was interrupted or is out of time: all of them stop at the same step, or none."""
        limit = self.options.max_minutes
        wanted = self.interrupted or (limit is not None and time.monotonic() - self.started > 60 * limit)
        if self.accelerator.num_processes == 1:
            return wanted
        votes = torch.tensor([float(wanted)], device=self.accelerator.device)
        return engine.mean_over_processes(self.accelerator, votes)[0] > 0

    def _log(self, line: dict[str, Any]) -> None:
        if self.accelerator.is_main_process:
            self.run.log(line)

    def _draw_curves(self) -> None:
        if self.accelerator.is_main_process:
            figures.draw_curves(self.run.path / "curves.png", self.run.read_log())

    def _say(self, text: str) -> None:
        if self.accelerator.is_main_process:
            tqdm.write(text, file=sys.stderr)


def _frozen(model: networks.Network, options: Plan) -> list[nn.Parameter]:
    """What stays as it is."""
    if options.scores_only:
        return [parameter for name, parameter in model.named_parameters() if not name.startswith(SCORE_HEAD)]
    if options.freeze_backbone is None:
        return []
    return [parameter for module in model.backbone.up_to(options.freeze_backbone) for parameter in module.parameters()]
