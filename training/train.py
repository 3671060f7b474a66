"""Train a TFPose network.

    python -m training.train                                # tiny, on rendered people, ten minutes on 2 cores
    python -m training.train --preset r50-ne6 --output runs/r50 \\
        --train coco:coco2017:train2017 mpii:mpii_human_pose_v1_u12_1.mat:mpii/images --val coco:coco2017:val2017

    torchrun --nproc-per-node 8 -m training.train ...       # several processes; --batch-size is of all together

The same command with --resume goes on where that run stopped, on a CPU bit by bit as if it had not stopped. Data sets
with other skeletons are joined by key-point name; what a set does not name stays unlabelled. What cannot be read is
named and left out, up to 1 % of the data. The output folder holds best.safetensors, last.safetensors, config.json,
metrics.jsonl, curves.png and state/.
"""

from __future__ import annotations

import contextlib
import dataclasses
import sys
import traceback
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from runtime.errors import InputError, PoseError
from training import engine
from training.data.spec import teach
from training.networks import configuration
from training.options import Options, Plan, as_json, with_defaults
from training.run import RunFolder
from training.session import Session


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    import tyro

    options = tyro.cli(
        Options, prog="python -m training.train", description=f"{__doc__}\nDATA is one of\n{teach()}", args=argv
    )
    try:
        train(options)
    except KeyboardInterrupt:
        return 130
    except (PoseError, ValueError, OSError) as error:
        if options.debug:
            traceback.print_exc()
        print(f"error: {_one_line(error)}", file=sys.stderr)
        return getattr(error, "exit_code", 4 if isinstance(error, OSError) else 2)
    return 0


def train(options: Options) -> Path:
    """Train as the options say; returns the run folder."""
    plan = with_defaults(options)
    accelerator = _accelerator(plan)
    torch.manual_seed(plan.seed)
    engine.prepare_process(plan.threads)
    run = RunFolder(plan.output)
    _check_run(run, plan)
    session = Session(plan, run, accelerator)
    with run.held() if accelerator.is_main_process else contextlib.nullcontext():
        _check_run(run, plan)  # again: another run may have ended here meanwhile
        if plan.resume:
            session.resume()
        if accelerator.is_main_process:
            if not plan.resume:
                run.clear()
            config = dataclasses.asdict(configuration(plan.preset, plan.change))
            run.write_config({"config": config, "options": _fixed_options(plan), "steps": session.steps})
        accelerator.wait_for_everyone()
        session.run_epochs()
    best = plan.output / "best.safetensors"
    if accelerator.is_main_process and best.is_file():
        following = f"; next: python -m converters {best} --to onnx" if plan.network == "tfpose" else ""
        print(f"written: {best}, and last.safetensors beside it{following}", file=sys.stderr)
    return plan.output


def _one_line(error: Exception) -> str:
    """The message; of an error that a worker process met, its last line without the type."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[-1].removeprefix("runtime.errors.InputError: ") if "Original Traceback" in str(error) else str(error)


def _accelerator(plan: Plan) -> Accelerator:
    """Device, precision and processes; ValueError if some process would get no person of a batch."""
    accelerator = Accelerator(
        mixed_precision="bf16" if plan.precision == "bf16" else "no", cpu=not torch.cuda.is_available()
    )
    if plan.batch_size < accelerator.num_processes:
        raise ValueError(
            f"--batch-size {plan.batch_size} is of all processes together; {accelerator.num_processes} processes need "
            f"at least {accelerator.num_processes}"
        )
    return accelerator


def _check_run(run: RunFolder, plan: Plan) -> None:
    """Refuse to resume nothing, to resume another run, to overwrite one, and a place that is no folder."""
    if run.path.exists() and not run.path.is_dir():
        raise InputError(f"{run.path}: is a file; --output must be a folder")
    if not plan.resume and run.has_state:
        raise InputError(f"{run.path}: holds a run already; --resume goes on with it, or choose another --output")
    if not plan.resume:
        return
    if not run.has_state:
        raise InputError(f"{run.path}: nothing to resume, there is no state/state.pt")
    former = run.read_config().get("options", {})
    changed = [f"{k} was {former.get(k)!r}, is {v!r}" for k, v in _fixed_options(plan).items() if former.get(k) != v]
    if changed:
        raise InputError(f"{run.path}: --resume goes on with the options of the run, but {'; '.join(changed)}")


def _fixed_options(plan: Plan) -> dict[str, Any]:
    """The options that a resumed run must share with its first part."""
    free = {"output", "resume", "data_root", "packed", "max_minutes", "workers", "threads", "log_every", "debug"}
    return {name: value for name, value in as_json(plan).items() if name not in free}


if __name__ == "__main__":
    raise SystemExit(main())
