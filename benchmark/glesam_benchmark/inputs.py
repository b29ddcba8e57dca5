"""What every contender is given: the image and two prompts of the bundle's golden file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from glesam_runtime.bundle import Bundle, load_golden
from glesam_runtime.image import preprocess

PROMPT_INPUTS = ("point_coords", "point_labels", "mask_input", "has_mask_input")

Prompt = Mapping[str, NDArray[np.float32]]
"""The contract's four prompt inputs, of one prompt."""


@dataclass(frozen=True)
class Inputs:
    """One image and two prompts on it.

    Attributes:
        image: [1, 3, S, S], as the encoder takes it.
        first: the prompt of the end-to-end run.
        second: another of the same make-up.
        expected: [1, 4, S/4, S/4], the first prompt's `low_res_masks` as the PyTorch reference gave
            them when the bundle was exported.
    """

    image: NDArray[np.float32]
    first: Prompt
    second: Prompt
    expected: NDArray[np.float32]


def golden_inputs(bundle: Bundle) -> Inputs:
    """Read them.

    Raises:
        BundleError: the golden file cannot be used.
    """
    golden = load_golden(bundle)
    prepared = preprocess(golden["image"].astype(np.uint8), bundle.manifest.preprocessing)
    prompts = {name: np.asarray(golden[name], np.float32) for name in PROMPT_INPUTS}
    expected = np.asarray(golden["low_res_masks"], np.float32)
    return Inputs(prepared.tensor, _one(prompts, 0), _one(prompts, -1), expected[:1])


def _one(prompts: Prompt, index: int) -> Prompt:
    """One prompt of a batch, its leading axis kept; `has_mask_input` is the batch's."""
    return {
        name: values if name == "has_mask_input" else values[index][None]
        for name, values in prompts.items()
    }
