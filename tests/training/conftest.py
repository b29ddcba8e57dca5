"""Isolation of the training tests from one another."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def fresh_accelerate_state() -> Iterator[None]:
    """Forget accelerate's mixed precision, which otherwise stays that of the first training."""
    yield
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state()
