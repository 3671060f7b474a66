"""The defaults of presets, what a command line makes of them, and the average of the weights."""

from __future__ import annotations

import pytest
import torch
import tyro
from torch import nn

from training.optimizer import EMA_DECAY, average_of, ema_decay
from training.options import Options, with_defaults


def test_the_papers_recipe():
    """PAPER: AdamW 4e-3 from batch 1024, transformer / 10, decay 1e-4, 325 epochs of batch 256, no clipping, no EMA."""
    plan = with_defaults(Options(preset="r50-ne6"))
    assert (plan.epochs, plan.batch_size, plan.lr, plan.transformer_lr_factor) == (325, 256, 1e-3, 0.1)
    assert (plan.weight_decay, plan.warmup_steps, plan.clip_grad, plan.ema, plan.augment) == (
        1e-4, 500, None, False, "paper",
    )  # fmt: skip


def test_the_recipe_of_tiny_is_ours():
    plan = with_defaults(Options())
    assert (plan.epochs, plan.batch_size, plan.lr, plan.clip_grad, plan.ema) == (12, 32, 2e-3, 0.5, True)


@pytest.mark.parametrize(
    ("preset", "batch_size", "lr"), [("r18-ne0", 1024, 4e-3), ("r50-ne4", 64, 2.5e-4), ("tiny", 8, 5e-4)]
)
def test_the_learning_rate_belongs_to_the_global_batch(preset, batch_size, lr):
    assert with_defaults(Options(preset=preset, batch_size=batch_size)).lr == pytest.approx(lr)
    assert with_defaults(Options(preset=preset, batch_size=batch_size, lr=0.7)).lr == 0.7


@pytest.mark.parametrize(
    ("words", "value"), [([], None), (["--ema"], True), (["--ema", "False"], False), (["--ema", "True"], True)]
)
def test_switches(words, value):
    given = tyro.cli(Options, args=["--seed", "3", *words, "--epochs", "5"])
    assert given.ema is value and given.epochs == 5
    assert with_defaults(given).ema is (True if value is None else value)


def test_a_switch_is_true_or_false(capsys):
    with pytest.raises(SystemExit):
        tyro.cli(Options, args=["--ema", "perhaps"])
    assert "'perhaps' is neither True nor False" in " ".join(capsys.readouterr().err.replace("│", " ").split())


def test_the_average_by_hand():
    """Weights 1, 3, 6: the first is taken as it is, then shares 2 / 11 and 3 / 12 of the average are kept."""
    model = nn.BatchNorm1d(1)
    average = average_of(model)
    for value in (1.0, 3.0, 6.0):
        with torch.no_grad():
            model.weight.fill_(value)
            model.running_mean.fill_(10 * value)
            model.num_batches_tracked += 1
        average.update_parameters(model)
    second = 2 / 11 * 1 + 9 / 11 * 3
    third = 3 / 12 * second + 9 / 12 * 6
    assert average.module.weight.item() == pytest.approx(third)
    assert float(average.module.running_mean) == pytest.approx(10 * third)
    assert int(average.module.num_batches_tracked) == 3
    assert ema_decay(10**6) == EMA_DECAY
