"""The loops: one epoch of training, one pass of validation."""

from __future__ import annotations

import ctypes
import math
import platform
import signal
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator

import cv2
import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from runtime.errors import PoseError
from runtime.skeleton import sigmas
from tfpose_edge import PoseConfig
from training import criterion
from training.data.dataset import Batch, Key
from training.networks import Network
from training.optimizer import set_lr
from training.teacher import Teacher


class NonFiniteLoss(PoseError):
    """A loss that is no number; the message holds every term."""

    exit_code = 3


def loader(data: Dataset[Batch], batches: Iterable[list[Key]], workers: int) -> DataLoader[Batch]:
    """Batches of `data`, by their keys; draws nothing from torch's global random numbers, which dropout uses."""
    return DataLoader(
        data, batch_sampler=batches, num_workers=workers, worker_init_fn=_leave_interrupts, generator=torch.Generator()
    )


def train_epoch(
    model: torch.nn.Module,
    batches: Iterable[Batch],
    optimizer: torch.optim.Optimizer,
    accelerator: Accelerator,
    lr_factor: Callable[[], float],
    clip_grad: float | None = None,
    teacher: Teacher | None = None,
) -> Iterator[dict[str, float]]:
    """Take one optimiser step per batch; yields the unweighted losses and their weighted sum, `loss`.

    With several processes these are the losses of the global batch, and all processes get the same.

    Args:
        model: in train mode, wrapped by accelerate or not.
        batches: of one epoch.
        optimizer: with its groups' base learning rates.
        accelerator: gives device, precision and processes.
        lr_factor: asked before every step.
        clip_grad: largest norm of the gradient; None leaves it.
        teacher: adds the losses against its answers.
    Raises:
        NonFiniteLoss: with every term.
    """
    names = accelerator.unwrap_model(model).config.keypoint_names
    oks_sigmas = torch.tensor(sigmas(names), device=accelerator.device)
    for batch in batches:
        set_lr(optimizer, lr_factor())
        batch = Batch(*(field.to(accelerator.device, non_blocking=True) for field in batch))
        terms = _losses(model, batch, accelerator, oks_sigmas, teacher)
        loss = criterion.weighted_sum(terms)
        named = {"loss": loss, **terms}
        found = torch.stack([term.detach().float() for term in named.values()])
        values = dict(zip(named, mean_over_processes(accelerator, found), strict=True))
        if not math.isfinite(values["loss"]):
            listed = ", ".join(f"{name} {value}" for name, value in values.items())
            raise NonFiniteLoss(f"the loss is not finite ({listed}); a lower --lr or --clip-grad 0.1 may help")
        optimizer.zero_grad(set_to_none=True)
        accelerator.backward(loss)
        if clip_grad:
            accelerator.clip_grad_norm_(model.parameters(), clip_grad)
        optimizer.step()
        yield values


def _losses(
    model: torch.nn.Module, batch: Batch, accelerator: Accelerator, oks_sigmas: Tensor, teacher: Teacher | None
) -> dict[str, Tensor]:
    """The unweighted losses of a batch on its device, the teacher's among them."""
    network: Network = accelerator.unwrap_model(model)
    config: PoseConfig = network.config
    with accelerator.autocast():
        crops = as_input(batch.crops)
        teaching = teacher(crops) if teacher else None
        output = model(crops)
        heatmaps = network.heatmaps(output.memory) if config.heatmap_head else None  # type: ignore[operator, union-attr]
    counts = criterion.count_points(batch)
    if accelerator.num_processes > 1:  # gradients are averaged over processes, so each has the mean count
        counts = accelerator.reduce(counts.float(), "mean")
    terms = criterion.losses(output, heatmaps, batch, oks_sigmas, config.input_size_wh, counts)
    return terms | (criterion.teacher_losses(output, heatmaps, teaching) if teaching else {})


@torch.inference_mode()
def predict(model: Network, batches: Iterable[Batch], device: torch.device) -> dict[str, np.ndarray]:
    """Key points of every item, in eval mode.

    Returns:
        "keypoints_xy" (N, K, 2) in px of the item's image, "scores" (N, K) and "place" (N,), the items' places.
    """
    model.eval()
    size = np.asarray(model.config.input_size_wh)
    collected = defaultdict(list)
    for batch in batches:
        output = model(as_input(batch.crops.to(device)))
        crop_xy = output.keypoints.double().cpu().numpy() * size  # (B, K, 2)
        linear, offset = batch.matrix[:, :, :2].numpy(), batch.matrix[:, None, :, 2].numpy()
        collected["keypoints_xy"].append((crop_xy - offset) @ np.linalg.inv(linear).transpose(0, 2, 1))
        collected["scores"].append(output.scores.float().cpu().numpy())
        collected["place"].append(batch.place.numpy())
    return {name: np.concatenate(parts) for name, parts in collected.items()}


def mean_keypoints(data: Dataset[Batch], count: int = 256) -> Tensor:
    """Mean pose (K, 2) of the crops of a data set in fractions of the crop; 0.5 for points that are never labelled."""
    items = [data[0, i] for i in np.linspace(0, len(data) - 1, min(count, len(data))).astype(int)]  # type: ignore[arg-type]
    keypoints = torch.stack([item.keypoints for item in items])
    inside = torch.stack([item.labelled for item in items])[..., None] & (keypoints > 0) & (keypoints < 1)
    total, count_inside = (keypoints * inside).sum(0), inside.sum(0)
    return torch.where(count_inside > 0, total / count_inside.clamp(min=1), torch.tensor(0.5)).clamp(0.02, 0.98)


def mean_over_processes(accelerator: Accelerator, values: Tensor) -> list[float]:
    """The mean of each of the values (N,) over all processes, which must all ask for it."""
    return (values if accelerator.num_processes == 1 else accelerator.reduce(values, "mean")).tolist()  # type: ignore[no-any-return]


def random_state(device: torch.device) -> dict[str, Tensor]:
    """The state of this process's random numbers, on the CPU and on its GPU."""
    on_gpu = {"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {}
    return {"cpu": torch.get_rng_state(), **on_gpu}


def set_random_state(state: dict[str, Tensor], device: torch.device) -> None:
    """Take up what `random_state` returned."""
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)


def as_input(crops: Tensor) -> Tensor:
    """uint8 crops as the network takes them: float32, channels last in memory."""
    return crops.float().contiguous(memory_format=torch.channels_last)


def prepare_process(threads: int) -> None:
    """Settings of a process that trains: threads for torch, none for OpenCV, memory kept.

    Torch's threads wait actively: one more than there are free CPUs makes a step up to thirty times slower. A worker
    that is forked while OpenCV's pool exists hangs. And glibc gives large tensors back to the system after every
    step, then faults them in again, which costs up to two thirds of the speed on a CPU.
    """
    torch.set_num_threads(threads)
    cv2.setNumThreads(0)
    if platform.libc_ver()[0] == "glibc":
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(-4, 0)  # M_MMAP_MAX: large tensors come from the heap
        mallopt(-1, -1)  # M_TRIM_THRESHOLD: never trim


def _leave_interrupts(worker: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the main process's business
