"""Train any module that turns a batch into losses, on one CPU or many GPUs.

accelerate handles devices, processes and mixed precision. A training can be resumed, because an
example depends only on its number, and the learning rate only on the iteration.
"""

from __future__ import annotations

import math
import multiprocessing
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, MappingProxyType
from typing import Any

import cv2
import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, ProjectConfiguration
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Subset

from glesam_runtime.errors import InputError
from glesam_training.saved_state import (
    read_state,
    restore_state,
    save_state,
    warn_of_unrecorded,
)
from glesam_training.settings import (
    TrainingSettings,
    keep_freed_memory,
    precision_to_use,
    worker_count,
)
from glesam_training.training_record import Record
from glesam_training.worker_errors import CollateOrError, ErrorsAsItems, raise_errors

Report = Callable[[int, int, dict[str, float]], object]
"""Called with the iterations done, their total and the mean losses since the last call."""


class Objective(nn.Module):
    """A module to train. `forward` turns a batch into losses; the one named `loss` is minimised.

    Attributes:
        uses_progress: whether the losses depend on `progress`. A resumed training must then keep
            its number of iterations.
    """

    uses_progress = False

    def forward(self, batch: dict[str, Tensor], progress: float) -> dict[str, Tensor]:
        """Return the losses of a batch; `progress` runs from 0 to 1 over the training."""
        raise NotImplementedError

    def trained(self) -> nn.Module:
        """Return the part whose parameters change, which a saved state holds."""
        raise NotImplementedError


def run_training(
    objective: Objective,
    examples: Dataset[dict[str, Tensor]],
    settings: TrainingSettings,
    folder: Path,
    report: Report,
    collate: Callable[[list[dict[str, Tensor]]], dict[str, Tensor]] | None = None,
    saved: Callable[[], object] | None = None,
    made_of: Record = MappingProxyType({}),
) -> None:
    """Train until `settings.iterations`, resuming from the folder's saved state if there is one.

    Args:
        objective: trained in place; it is back on the CPU at the end.
        examples: at least `iterations * batch` of them.
        settings: how long and how fast to train.
        folder: for the state and the TensorBoard logs.
        report: called with the losses, in the main process.
        collate: makes a batch of examples; None stacks them.
        saved: called in the main process after each saved state.
        made_of: what changes the result beside `settings`: data, weights, losses. It is saved, and
            a state with another record is refused.

    Raises:
        InputError: the folder's state belongs to another training, or an example cannot be read.
        KeyboardInterrupt: the user pressed Ctrl-C; the state was saved first.
    """
    keep_freed_memory()
    accelerator = Accelerator(
        mixed_precision=precision_to_use(settings.mixed_precision),
        log_with="tensorboard",
        project_config=ProjectConfiguration(project_dir=str(folder), logging_dir=str(folder)),
        # Stage 2 unfreezes weights that a batch may not use: the embeddings of prompts that it does
        # not have. Several processes would otherwise wait for their gradients and fail.
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
        step_scheduler_with_optimizer=False,
    )
    torch.manual_seed(settings.seed)
    folder.mkdir(parents=True, exist_ok=True)
    found = read_state(folder, settings, made_of, objective.uses_progress)
    if found and accelerator.is_main_process:
        warn_of_unrecorded(folder, found, made_of)
    done = int(found["iteration"]) if found else 0
    total, batch = settings.iterations, settings.batch
    if batch % accelerator.num_processes:
        raise InputError(
            f"--batch {batch}: must be a multiple of the {accelerator.num_processes} processes"
        )
    share, helpers = batch // accelerator.num_processes, worker_count(settings.workers)
    first = [
        (step * batch) + accelerator.process_index * share + i
        for step in range(done, total)
        for i in range(share)
    ]
    on_gpu = accelerator.device.type == "cuda"
    loader = DataLoader(
        ErrorsAsItems(Subset(examples, first)),
        batch_size=share,
        collate_fn=CollateOrError(collate),
        prefetch_factor=4 if helpers else None,
        pin_memory=on_gpu,
        **worker_settings(helpers),
    )
    parameters = [p for p in objective.trained().parameters() if p.requires_grad]
    if not parameters:
        raise InputError("nothing to train: every parameter of this checkpoint is frozen")
    optimizer = torch.optim.AdamW(parameters, lr=settings.lr, weight_decay=settings.weight_decay)
    model, optimizer = accelerator.prepare(objective, optimizer)
    accelerator.init_trackers("logs")
    if found:
        restore_state(found, objective.trained(), optimizer, folder)
    interrupted = _Interrupt()
    sums: dict[str, float] = {}
    summed = 0
    with interrupted.watched():
        for step, tensors in enumerate(raise_errors(loader), start=done):
            for group in optimizer.param_groups:
                group["lr"] = settings.lr_at(step)
            # Like everything else, the noise of a step depends only on its number.
            torch.manual_seed(
                (settings.seed << 40 | step << 12 | accelerator.process_index) % (1 << 63)
            )
            moved = {
                key: value.to(accelerator.device, non_blocking=True)
                for key, value in tensors.items()
            }
            losses = model(moved, step / total)
            # Read all losses in one transfer, because every read waits for the GPU.
            names = list(losses)
            read = torch.stack([losses[name].detach().float() for name in names]).tolist()
            if not math.isfinite(read[names.index("loss")]):
                raise InputError(
                    f"the loss is NaN or infinite at iteration {step}; lower --lr and start again "
                    "(the last saved state is unchanged)"
                )
            accelerator.backward(losses["loss"])
            accelerator.clip_grad_norm_(parameters, settings.clip)
            optimizer.step()
            optimizer.zero_grad()
            for name, value in zip(names, read, strict=True):
                sums[name] = sums.get(name, 0.0) + value
            count, summed = step + 1, summed + 1
            if count % settings.log_every == 0 or count == total:
                means = {name: value / summed for name, value in sums.items()}
                sums, summed = {}, 0
                accelerator.log({**means, "lr": settings.lr_at(step)}, step=count)
                if accelerator.is_main_process:
                    report(count, total, means)
            stop = interrupted.seen
            if accelerator.is_main_process and (
                stop or count % settings.save_every == 0 or count == total
            ):
                save_state(folder, objective.trained(), optimizer, settings, made_of, count)
                if saved is not None:
                    saved()
            if stop:
                raise KeyboardInterrupt
    accelerator.end_training()
    objective.to("cpu")


class _Interrupt:
    """Delays Ctrl-C until the end of the iteration, so that the saved state is complete."""

    seen = False

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Record SIGINT instead of raising in the middle of a step."""

        def note(_signal: int, _frame: FrameType | None) -> None:
            self.seen = True

        before = signal.signal(signal.SIGINT, note)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)


def worker_settings(count: int) -> dict[str, Any]:
    """Return the arguments of a `DataLoader` with this number of workers; 0 means none.

    If the system supports fork servers, workers are forked from one that imports this project's
    modules once for all stages. Forks of this process itself would inherit locks that its threads
    hold.
    """
    if not count:
        return {"num_workers": 0}
    context = "spawn"
    if "forkserver" in multiprocessing.get_all_start_methods():
        context = "forkserver"
        ours = [name for name in sys.modules if name.startswith("glesam_")]
        multiprocessing.get_context("forkserver").set_forkserver_preload(sorted(ours))
    return {
        "num_workers": count,
        "persistent_workers": True,
        "multiprocessing_context": context,
        "worker_init_fn": quiet_worker,
    }


def quiet_worker(_number: int) -> None:
    """Make a worker ignore Ctrl-C, which the training handles, and use one core."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
