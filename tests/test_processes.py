"""Several processes: the losses of one process with the same global batch, however unevenly its points lie."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from photographs import write_data_set
from torch import nn

from tfpose_edge import PRESETS, TFPose, load_checkpoint
from training.data.dataset import EpochSampler
from training.normalisation import check_choice, share_statistics, train_mode
from training.options import Options, with_defaults
from training.run import RunFolder
from training.session import Session
from training.train import train

ROOT = Path(__file__).parent.parent
PERSONS, BATCH = 10, 5


def uneven_data_set(folder: Path) -> str:
    """Persons with all points, and as many with two: the second of two processes gets mostly the latter, see below."""
    data = write_data_set(folder, PERSONS)
    path = folder / "annotations.json"
    content = json.loads(path.read_text())
    for place in poor_places():
        rows = np.reshape(content["annotations"][place]["keypoints"], (-1, 3))
        rows[2:] = 0
        content["annotations"][place]["keypoints"] = rows.ravel().tolist()
    path.write_text(json.dumps(content))
    return data


def poor_places() -> set[int]:
    """Persons whom the second process sees in the first epoch."""
    return {index for batch in EpochSampler(PERSONS, BATCH, 0, 1, 2) for _, index in batch}


def steps_of(folder: Path) -> list[dict[str, float]]:
    return [line for line in RunFolder(folder).read_log() if line["kind"] == "step"]


def test_two_processes_have_the_losses_of_one(tmp_path):
    """Shares of 3 and 2 persons, with up to 17 and up to 2 labelled points each; frozen BatchNorm and no dropout."""
    data = uneven_data_set(tmp_path / "data")
    assert PRESETS["tiny"].dropout == 0
    given = Options(
        train=(data,), output=tmp_path / "one", batch_size=BATCH, epochs=2, workers=0, threads=1, log_every=1,
        freeze_batchnorm=True, warmup_steps=1,
    )  # fmt: skip
    words = ["--train", data, "--output", str(tmp_path / "two"), "--batch-size", str(BATCH), "--epochs", "2"]
    words += ["--workers", "0", "--threads", "1", "--log-every", "1", "--freeze-batchnorm", "--warmup-steps", "1"]
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        [*launch, "-m", "training.train", *words], cwd=ROOT, stderr=subprocess.PIPE, text=True, env=environment
    ) as two:
        train(given)
        _, errors = two.communicate(timeout=120)
    assert two.returncode == 0, errors
    one, other = steps_of(tmp_path / "one"), steps_of(tmp_path / "two")
    assert [line["step"] for line in one] == [line["step"] for line in other] == [1, 2, 3, 4]
    for mine, theirs in zip(one, other, strict=True):
        for name in ("loss", "loss_keypoints", "loss_heatmaps", "loss_scores"):
            assert mine[name] == pytest.approx(theirs[name], abs=1e-4), (mine["step"], name)
    weights = [load_checkpoint(tmp_path / name / "last.safetensors").state_dict() for name in ("one", "two")]
    for name, value in weights[0].items():
        torch.testing.assert_close(value, weights[1][name], atol=1e-4, rtol=0, msg=name)


def test_the_split_of_that_test_is_uneven():
    """If both processes had the same number of points, an average of their averages would pass as well."""
    first = {index for batch in EpochSampler(PERSONS, BATCH, 0, 0, 2) for _, index in batch}
    assert len(first) == 6 and len(poor_places()) == 4 and not first & poor_places()


def test_threads_are_shared_by_the_processes_of_a_machine(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(16)), raising=False)
    alone = with_defaults(Options())
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    shared = with_defaults(Options())
    assert (alone.workers, alone.threads, shared.workers, shared.threads) == (8, 8, 2, 2)


def test_frozen_statistics_stay_and_scales_learn():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Dropout(0.5))
    train_mode(model, freeze=True)
    model(torch.randn(8, 3, 5, 5) * 9 + 4).square().sum().backward()
    assert model[1].running_mean.tolist() == [0] * 4 and model[1].num_batches_tracked == 0
    assert model[1].weight.grad.abs().sum() > 0 and model[2].training
    train_mode(model, freeze=False)
    model(torch.randn(8, 3, 5, 5) + 4)
    assert model[1].num_batches_tracked == 1


def test_shared_statistics_have_the_same_weights():
    model = TFPose(PRESETS["tiny"])
    names = list(model.state_dict())
    share_statistics(model)
    kinds = {type(module) for module in model.modules() if "BatchNorm" in type(module).__name__}
    assert kinds == {nn.SyncBatchNorm} and list(model.state_dict()) == names


def test_shared_statistics_need_gpus():
    check_choice(sync=True, freeze=False, device_type="cuda")
    check_choice(sync=False, freeze=True, device_type="cpu")
    with pytest.raises(ValueError, match="--sync-batchnorm needs GPUs, but training runs on cpu"):
        check_choice(sync=True, freeze=False, device_type="cpu")
    with pytest.raises(ValueError, match="exclude each other"):
        check_choice(sync=True, freeze=True, device_type="cuda")
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="needs GPUs"):
            with_defaults(Options(sync_batchnorm=True))


def test_every_process_needs_a_person(tmp_path):
    """Two processes and one person a batch: one line, before anything is written."""
    words = ["--rendered", "4", "--batch-size", "1", "--output", str(tmp_path / "run"), "--workers", "0"]
    code = "import sys, training.train as t; t.Accelerator = lambda **_: type('Two', (), {'num_processes': 2})()"
    command = [sys.executable, "-c", f"{code}; sys.exit(t.main(sys.argv[1:]))", *words]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert found.returncode == 2 and not (tmp_path / "run").exists()
    assert found.stderr.strip() == ("error: --batch-size 1 is of all processes together; 2 processes need at least 2")


@pytest.mark.parametrize(("mean", "stops"), [(0.0, False), (0.5, True)])
def test_one_process_that_must_stop_stops_all(mean, stops):
    """Otherwise the others would wait for it for ever in the next step."""
    votes = []

    class Two:
        num_processes, device = 2, torch.device("cpu")

        def reduce(self, values, how):
            votes.append((values.tolist(), how))
            return torch.full_like(values, mean)

    session = SimpleNamespace(accelerator=Two(), interrupted=False, options=Options(), started=0.0)
    assert Session._must_stop(session) is stops and votes == [([0.0], "mean")]
    session.interrupted = True
    Session._must_stop(session)
    assert votes[1] == ([1.0], "mean")


@pytest.mark.parametrize(("after_s", "ends"), [(0.2, False), (5.0, True)])
def test_the_echo_of_ctrl_c_is_no_second_one(after_s, ends, monkeypatch):
    """torchrun passes on what the terminal has told its processes already: they would end without saving."""
    clock = iter([100.0, 100.0 + after_s])
    monkeypatch.setattr("training.session.time", SimpleNamespace(monotonic=lambda: next(clock)))  # no other's clock
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores Ctrl-C
    session = SimpleNamespace(interrupted=False)
    expected = pytest.raises(KeyboardInterrupt) if ends else contextlib.nullcontext()
    with expected, Session._catching_interrupts(session):
        signal.raise_signal(signal.SIGINT)
        assert session.interrupted
        signal.raise_signal(signal.SIGINT)
    assert signal.signal(signal.SIGINT, before) is signal.default_int_handler


def test_resuming_with_another_number_of_processes_is_said(tmp_path, capsys):
    given = Options(rendered=4, batch_size=4, epochs=1, workers=0, threads=1, output=tmp_path / "run")
    train(given)
    run = RunFolder(given.output)
    progress, state = run.load_state()
    run.save_state(progress, {**state, "random": state["random"] * 2})
    train(replace(given, resume=True))
    assert "another number of processes than before" in capsys.readouterr().err
