"""List the cases of all kinds. Each module defines one kind and the list `CASES`.

The modules that start with `second` were written without a look at the others.
"""

from __future__ import annotations

from ..case import Case
from . import (
    caches,
    checkpoints,
    checks,
    environments,
    goldens,
    graphs,
    images,
    manifests,
    options,
    prompts,
    second_bundles,
    second_checkpoints,
    second_images,
    second_inputs,
    second_list,
    second_tools,
    signals,
)

FIRST: list[Case] = [
    *caches.CASES,
    *checkpoints.CASES,
    *checks.CASES,
    *environments.CASES,
    *goldens.CASES,
    *graphs.CASES,
    *images.CASES,
    *manifests.CASES,
    *options.CASES,
    *prompts.CASES,
    *signals.CASES,
]
SECOND: list[Case] = [
    *second_list.CASES,
    *second_tools.CASES,
    *second_bundles.CASES,
    *second_checkpoints.CASES,
    *second_images.CASES,
    *second_inputs.CASES,
]
