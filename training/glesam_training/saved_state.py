"""Save the state of a training and read it back to resume."""

from __future__ import annotations

import pickle
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from glesam_runtime.errors import InputError
from glesam_runtime.staging import staged_file
from glesam_training.settings import TrainingSettings

STATE_FILE = "state.pt"


def read_state(folder: Path, settings: TrainingSettings) -> dict[str, Any] | None:
    """Return the folder's saved state, or None if there is none.

    Raises:
        InputError: the file is no state, or belongs to other settings.
    """
    path = folder / STATE_FILE
    if not path.is_file():
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        saved = state["plan"]
    except (RuntimeError, EOFError, KeyError, TypeError, pickle.UnpicklingError) as error:
        raise InputError(f"{path}: not a saved training state; remove it to start again") from error
    indifferent = ("save_every", "log_every", "workers")
    for name, value in asdict(settings).items():
        if name not in indifferent and saved.get(name) != value:
            raise InputError(
                f"{path}: was saved with {name} {saved.get(name)}, not {value}; resume with the "
                "same settings, or remove it to start again"
            )
    return state


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
    done: int,
) -> None:
    """Replace the saved state in one step."""
    with staged_file(folder / STATE_FILE) as path:
        torch.save(
            {
                "iteration": done,
                "plan": asdict(settings),
                "model": _changing(trained),
                "optimizer": optimizer.state_dict(),
            },
            path,
        )
