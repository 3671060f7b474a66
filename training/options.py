"""What a training run is told: the command line's options, and the defaults that belong to a preset."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from tyro.constructors import PrimitiveConstructorSpec

from training.data.augmentation import parse_augmentation
from training.data.recipe import RENDERED_COUNT
from training.networks import configuration
from training.normalisation import check_choice
from training.optimizer import PAPER_BATCH, PAPER_LR, scaled_lr
from training.weights import is_sha256

TRUTHS = {"True": True, "False": False}


def _switch(words: list[str]) -> bool:
    """`--option`, `--option True` or `--option False`; ValueError for anything else."""
    if len(words) > 1 or not {*words} <= {*TRUTHS}:
        raise ValueError(f"{' '.join(words)!r} is neither True nor False")
    return TRUTHS[words[0]] if words else True


Switch = Annotated[
    bool | None,
    PrimitiveConstructorSpec(
        nargs="*",
        metavar="[True|False]",
        instance_from_str=_switch,
        is_instance=lambda value: value is None or isinstance(value, bool),
        str_from_instance=lambda value: [str(value)],
    ),
]
"""A choice that a preset has a default for."""


@dataclass(frozen=True)
class Recipe:
    """Defaults that belong to a preset."""

    epochs: int = 325
    batch_size: int = 256
    lr: float = PAPER_LR
    lr_batch: int = PAPER_BATCH
    """The global batch that `lr` belongs to; others scale it linearly."""
    transformer_lr_factor: float = 0.1
    warmup_steps: int = 500
    clip_grad: float | None = None
    augment: str = "paper"
    ema: bool = False


EDGE = Recipe(
    epochs=60, batch_size=32, lr=5e-4, lr_batch=32, transformer_lr_factor=2.0, warmup_steps=100, clip_grad=0.5,
    ema=True,
    augment="strong,rotation_deg=35,scale=0.7..1.4,shift=0.08,half_body=0.1,paste=0.08,erase=0.08,empty=0.05",
)  # fmt: skip
RECIPES = {
    "tiny": Recipe(
        epochs=12, batch_size=32, lr=2e-3, lr_batch=32, transformer_lr_factor=1.0, warmup_steps=50, clip_grad=0.5,
        ema=True,
    ),
    "edge-n": EDGE,
    "edge-s": EDGE,
}  # fmt: skip
"""Of presets that are ours; all others follow the paper."""


@dataclass(frozen=True)
class Options:
    """The command line; see the module's text for examples."""

    preset: str = "tiny"
    """Network: tiny, edge-n, edge-s, r18-ne0, r18-ne0-c128, r18-ne0-noq2q, r18-ne6, r50-ne4, r50-ne6 or r50-ne6-384."""
    network: Literal["tfpose", "deeppose", "simplebaseline"] = "tfpose"
    """TFPose, or a rival with the preset's backbone, for comparisons; rivals cannot be converted."""
    change: tuple[str, ...] = ()
    """Fields of the preset to replace, FIELD=VALUE ..., such as input_size_wh=96,128 heatmap_head=false."""
    recipe: Literal["packaged"] | None = None
    """Train on what the packaged models learn from (training/data/recipe.py), instead of --train."""
    data_root: Path | None = None
    """Folder of the recipe's data sets; not needed once they are packed."""
    packed: Path | None = None
    """File that the recipe's people are packed into, or are read from; default: people.npz beside the output folder."""
    train: tuple[str, ...] = ()
    """Annotated photographs, DATA ...; without any, rendered people."""
    val: str | None = None
    """DATA to measure on after every epoch; decides which epoch is best."""
    rendered: int | None = None
    """Rendered people per epoch; 4096 without --train, none with it unless asked for. With --recipe 3000, rendered once
    and packed."""
    output: Path = Path("runs/tfpose")
    """Run folder."""
    epochs: int | None = None
    """Passes over the data; default 325 (tiny: 12, edge: 60)."""
    batch_size: int | None = None
    """Persons per step, over all processes; default 256 (tiny, edge: 32)."""
    lr: float | None = None
    """Base learning rate of this batch size; default: the paper's 4e-3, linearly from batch 1024 (tiny: 2e-3,
    edge: 5e-4, from batch 32)."""
    transformer_lr_factor: float | None = None
    """Factor for encoder, decoder and key-point heads; default the paper's 0.1 (tiny: 1, edge: 2)."""
    weight_decay: float = 1e-4
    """Of weights; biases and norms do not decay."""
    warmup_steps: int | None = None
    """Steps of linear warm-up before the cosine; default 500 (tiny: 50, edge: 100)."""
    clip_grad: float | None = None
    """Largest gradient norm; the paper's recipe has none (tiny, edge: 0.5)."""
    augment: str | None = None
    """How crops vary: paper or strong (colours, holes and occluders too), then single knobs if wanted, as in
    strong,gray=0,scale=0.7..1.3. Knobs: rotation_deg, scale, shift, flip, half_body, half_body_min_keypoints,
    brightness, contrast, saturation, hue_deg, gray, erase, paste, empty. Points that get hidden keep their labels.
    Default: paper (tiny), or as edge-n and edge-s have it: strong, with milder knobs (docs/recipe.md)."""
    backbone_weights: str | None = None
    """ImageNet weights of the preset's backbone, torchvision's or (ResNets, EfficientNet-Lite0) timm's: a .pth or
    .safetensors file or its URL."""
    backbone_sha256: str | None = None
    """What that file must hash to, 64 hexadecimal digits; training does not start with another."""
    initial_weights: Path | None = None
    """Checkpoint of the same preset to start from: train on rendered people first, on photographs then; edge-n from
    edge-s. It may have other crops, more decoder layers (the first are taken), a longer backbone (its last blocks are
    left out) and no head for heat maps."""
    teacher: Path | None = None
    """Checkpoint of a larger TFPose to learn from as well: its key points, by their scores, and its heat maps."""
    scores_only: bool = False
    """Train the score head alone: key points, and BatchNorm's statistics, stay as they are. With --initial-weights, and
    with many crops that show nobody (--augment strong,empty=0.5), at the end."""
    freeze_backbone: Literal[2, 3, 4, 5] | None = None
    """Leave the backbone as it is up to this feature level, statistics and all: 2 is C2, of stride 4, whose gradients
    cost most. With --backbone-weights or --initial-weights."""
    freeze_batchnorm: bool = False
    """BatchNorm keeps the statistics that it starts with; its scales and offsets learn. For small batches and, on CPUs,
    for several processes: their losses are then those of one process with the same global batch."""
    sync_batchnorm: bool = False
    """BatchNorm averages over all processes (SyncBatchNorm); on GPUs only."""
    sampler: str = "auto"
    """Deformable sampler: grid_sample, gather, float_gather, bag, tent, fused (an NVIDIA GPU), or auto: fused where it
    can run, else grid_sample."""
    sample_then_project: Switch = None
    """Decoder attention projects its samples, not the whole memory: the same network at another cost.
    Default: True for 256 channels of levels 2..5 (r18-ne0, r18-ne0-noq2q), whose steps it shortens on a CPU."""
    precision: Literal["bf16", "fp32"] | None = None
    """Default: bf16 on a GPU, fp32 on a CPU."""
    ema: Switch = None
    """Keep an exponential average of the weights; best and last hold the average. Default: False, as in the paper
    (tiny, edge: True)."""
    max_minutes: float | None = None
    """Stop after this time, in the middle of an epoch if need be; --resume goes on."""
    resume: bool = False
    """Go on from the output folder's state."""
    log_every: int = 10
    """Steps between two lines of metrics.jsonl."""
    workers: int | None = None
    """Processes that cut or render crops; default: half of its CPUs, 8 at most."""
    threads: int | None = None
    """Threads that compute; default: the CPUs that the workers leave."""
    seed: int = 0
    """Of weights, order of the data, augmentation and rendered people."""
    debug: bool = False
    """Show tracebacks."""


@dataclass(frozen=True)
class Plan(Options):
    """Options with nothing left open."""

    rendered: int = 0
    epochs: int = 0
    batch_size: int = 0
    lr: float = 0.0
    transformer_lr_factor: float = 0.0
    warmup_steps: int = 0
    augment: str = "paper"
    sample_then_project: bool = False
    ema: bool = False
    precision: Literal["bf16", "fp32"] = "fp32"
    workers: int = 0
    threads: int = 1


def with_defaults(options: Options) -> Plan:
    """Fill in what the command line left open; ValueError for an unknown preset or sizes that are not positive."""
    config = configuration(options.preset, options.change)
    for name in ("epochs", "batch_size", "lr", "threads", "max_minutes", "log_every"):
        value = getattr(options, name)
        if value is not None and not value > 0:
            raise ValueError(f"--{name.replace('_', '-')} is {value}; it must be above 0")
    for name in ("clip_grad", "transformer_lr_factor", "warmup_steps"):
        value = getattr(options, name)
        if value is not None and not value >= 0:
            raise ValueError(f"--{name.replace('_', '-')} is {value}; it must not be negative")
    if options.workers is not None and options.workers < 0:
        raise ValueError(f"--workers is {options.workers}; 0 works in the main process")
    if options.scores_only and (options.network != "tfpose" or options.initial_weights is None):
        raise ValueError("--scores-only is for a trained TFPose: it needs --initial-weights, and --network tfpose")
    if options.freeze_backbone and not (options.initial_weights or options.backbone_weights):
        raise ValueError("--freeze-backbone keeps weights: it needs --initial-weights or --backbone-weights")
    _check_hash(options)
    gpu = torch.cuda.is_available()
    check_choice(options.sync_batchnorm, options.freeze_batchnorm, "cuda" if gpu else "cpu")
    _check_recipe(options)
    recipe = RECIPES.get(options.preset, Recipe())
    parse_augmentation(recipe.augment if options.augment is None else options.augment)
    batch_size = options.batch_size or recipe.batch_size
    cpus = _own_cpus()
    workers = min(8, max(1, cpus // 2)) if options.workers is None else options.workers
    tokens = sum(height * width for height, width in config.spatial_shapes)
    defaults = {
        "epochs": recipe.epochs, "batch_size": batch_size, "lr": scaled_lr(batch_size, recipe.lr, recipe.lr_batch),
        "transformer_lr_factor": recipe.transformer_lr_factor, "warmup_steps": recipe.warmup_steps,
        "clip_grad": recipe.clip_grad, "augment": recipe.augment, "ema": recipe.ema,
        "sample_then_project": not gpu and tokens >= 4000 and config.d_model >= 256,  # by benchmarks.decoder_attention
        "rendered": RENDERED_COUNT if options.recipe else 0 if options.train else 4096,
        "precision": "bf16" if gpu else "fp32",
        "packed": options.output.parent / "people.npz", "workers": workers, "threads": max(1, cpus - workers),
    }  # fmt: skip
    given = {name: value for name, value in vars(options).items() if value is not None}
    return Plan(**{**defaults, **given})


def _own_cpus() -> int:
    """CPUs of this machine for each of the training processes that torchrun started on it."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cpus // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def _check_recipe(options: Options) -> None:
    """ValueError for a recipe that is given other data, or data of no recipe."""
    if options.recipe and options.train:
        raise ValueError(f"--recipe {options.recipe} brings its own people, so --train cannot be given with it")
    if options.recipe is None and (options.data_root or options.packed):
        raise ValueError("--data-root and --packed belong to --recipe packaged, which is missing")


def _check_hash(options: Options) -> None:
    """ValueError for a hash of nothing, or one that is none."""
    given = options.backbone_sha256
    if given is not None and options.backbone_weights is None:
        raise ValueError("--backbone-sha256 belongs to --backbone-weights, which is missing")
    if given is not None and not is_sha256(given):
        raise ValueError(f"--backbone-sha256 is {given!r}; it must be 64 hexadecimal digits")


def as_json(options: Options) -> dict[str, Any]:
    """The options as JSON can hold them."""
    values = dataclasses.asdict(options).items()
    return {k: str(v) if isinstance(v, Path) else list(v) if isinstance(v, tuple) else v for k, v in values}
