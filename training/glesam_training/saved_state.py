"""Save the state of a training, and read it back to resume the same training."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Collection, Iterable
from dataclasses import astuple
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from glesam_runtime.errors import InputError
from glesam_runtime.staging import staged_file
from glesam_training.settings import TrainingSettings
from glesam_training.training_record import ABSENT, BEFORE, Fact, Record, settings_record

STATE_FILE = "state.pt"
LENGTH = "--iterations"

RENAMED = {"warmup": "--warmup"}
"""Facts that saved states of earlier versions have under another name."""


def read_state(
    folder: Path, settings: TrainingSettings, made_of: Record, fixed_length: bool
) -> dict[str, Any] | None:
    """Return the folder's saved state, or None if there is none.

    Args:
        folder: the training's folder.
        settings: how long and how fast to train.
        made_of: everything else that changes the result.
        fixed_length: whether the objective depends on the number of iterations. If neither it nor
            the learning rate does, a resumed training may have more of them.

    Raises:
        InputError: the file is no state, or belongs to another training.
    """
    path = folder / STATE_FILE
    if not path.is_file():
        return None
    given = settings_record(settings) | dict(made_of)
    may_differ = () if settings.decay or fixed_length else (LENGTH,)
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        done = int(state["iteration"])
        recorded = "made_of" in state
        if recorded:
            saved = {RENAMED.get(n, n): Fact(*entry) for n, entry in state["made_of"].items()}
        else:
            saved = settings_record(TrainingSettings(**state["plan"]))
    except (
        *(RuntimeError, EOFError, KeyError, TypeError, ValueError, AttributeError),
        pickle.UnpicklingError,
    ) as error:
        raise InputError(f"{path}: not a saved training state; remove it to start again") from error
    compared = [*saved, *(name for name in given if name not in saved)] if recorded else saved
    if differing := _differences(saved, given, compared, may_differ):
        raise InputError(
            f"{path}: was saved with {'; '.join(differing)}; resume with the saved values, train "
            "in another folder, or remove it to start again"
        )
    if done > settings.iterations:
        raise InputError(
            f"{path}: has done {done} iterations already, more than {LENGTH} "
            f"{settings.iterations}; ask for {done} or more, or remove it to start again"
        )
    return state


def warn_of_unrecorded(folder: Path, state: dict[str, Any], made_of: Record) -> None:
    """Name on stderr what an earlier version did not record, so that it cannot be checked."""
    if "made_of" in state or not made_of:
        return
    print(
        f"warning: {folder / STATE_FILE}: an earlier version saved it without "
        f"{', '.join(made_of)}; the training resumes with the values given now, and nothing can "
        "check that they are those it started with",
        file=sys.stderr,
    )


def _differences(
    saved: Record, given: Record, names: Iterable[str], may_differ: Collection[str]
) -> list[str]:
    """Return "NAME SAVED, not GIVEN" for each name whose facts differ."""
    pairs = {
        name: tuple(record.get(name, BEFORE.get(name, ABSENT)) for record in (saved, given))
        for name in names
    }
    return [
        f"{name} {before.words}, not {now.words}"
        for name, (before, now) in pairs.items()
        if name not in may_differ and not before.agrees(now)
    ]


def restore_state(
    state: dict[str, Any], trained: nn.Module, optimizer: torch.optim.Optimizer, folder: Path
) -> None:
    """Load a saved state into the trained module and its optimizer.

    Raises:
        InputError: the state belongs to another model.
    """
    try:
        if state["model"].keys() != _changing(trained).keys():
            raise KeyError("other parameters")
        trained.load_state_dict(state["model"], strict=False)
        optimizer.load_state_dict(state["optimizer"])
    except (RuntimeError, KeyError, ValueError) as error:
        raise InputError(
            f"{folder / STATE_FILE}: belongs to another model; remove it to start again"
        ) from error


def _changing(trained: nn.Module) -> dict[str, Tensor]:
    """Return the parameters that change; the frozen ones would take gigabytes."""
    return {name: p.detach() for name, p in trained.named_parameters() if p.requires_grad}


def save_state(
    folder: Path,
    trained: nn.Module,
    optimizer: torch.optim.Optimizer,
    settings: TrainingSettings,
    made_of: Record,
    done: int,
) -> None:
    """Replace the saved state in one step."""
    record = settings_record(settings) | dict(made_of)
    with staged_file(folder / STATE_FILE) as path:
        torch.save(
            {
                "iteration": done,
                "made_of": {name: list(astuple(fact)) for name, fact in record.items()},
                "model": _changing(trained),
                "optimizer": optimizer.state_dict(),
            },
            path,
        )
