"""Isolate the training tests from one another."""

from __future__ import annotations

import sys

import pytest


@pytest.fixture(autouse=True)
def own_accelerator() -> None:
    """Forget the mixed precision that an earlier training chose; accelerate refuses another."""
    if accelerate := sys.modules.get("accelerate.state"):
        accelerate.AcceleratorState._reset_state(reset_partial_state=True)
