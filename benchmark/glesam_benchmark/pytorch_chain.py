"""Run the reference in PyTorch as a contender: eager, in autocast, or compiled."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from glesam_benchmark.contenders import PytorchRunner
from glesam_benchmark.timing import Prompt
from glesam_export.checkpoints import Checkpoint
from glesam_export.families import named_features
from glesam_runtime.chain import EMBEDDINGS
from glesam_runtime.manifest import PrecisionName

Features = Mapping[str, Tensor]


@dataclass(frozen=True)
class PytorchChain:
    """The three unfolded parts of a checkpoint."""

    encoder: Callable[..., Tensor | tuple[Tensor, ...]]
    enhancer: Callable[..., Tensor]
    decoder: Callable[..., tuple[Tensor, Tensor]]
    how: PytorchRunner

    @property
    def engine(self) -> Mapping[str, str]:
        """Return the name and version of PyTorch."""
        return {"engine": "torch", "version": torch.__version__, "device": "cpu"}

    @property
    def precision(self) -> PrecisionName:
        """Return the precision of matrix products."""
        return "bf16" if self.how.autocast else "fp32"

    @torch.no_grad()
    def encode(self, image: NDArray[np.float32]) -> Features:
        """Run the encoder."""
        with self._autocast():
            return named_features(self.encoder(torch.from_numpy(image)))

    @torch.no_grad()
    def enhance(self, features: Features) -> Features:
        """Run the enhancer, and cast its float64 result to float32, which the decoder takes."""
        with self._autocast():
            return {**features, EMBEDDINGS: self.enhancer(features[EMBEDDINGS]).float()}

    @torch.no_grad()
    def decode(self, features: Features, prompt: Prompt) -> NDArray[np.float32]:
        """Run the decoder."""
        tensors = {name: torch.from_numpy(values) for name, values in prompt.items()}
        with self._autocast():
            low_res, _ = self.decoder(**features, **tensors)
        return low_res.float().numpy()

    def _autocast(self) -> AbstractContextManager[object]:
        if self.how.autocast:
            return torch.autocast("cpu", dtype=torch.bfloat16)
        return nullcontext()


def load_pytorch_chain(checkpoint: Checkpoint, how: PytorchRunner) -> PytorchChain:
    """Build the three parts; torch.compile compiles at the first call."""
    set_threads(how.threads)
    encoder, enhancer, decoder = checkpoint.encoder(), checkpoint.enhancer(), checkpoint.decoder()
    if how.merged:
        merge_adapters(enhancer)
    wrap = torch.compile if how.compiled else _as_it_is
    return PytorchChain(wrap(encoder), wrap(enhancer), wrap(decoder), how)


def merge_adapters(module: nn.Module) -> None:
    """Add every adapter to the weights it adapts, with peft's own method."""
    for layer in module.modules():
        if isinstance(layer, LoraLayer):
            layer.merge()


def set_threads(threads: int | None) -> None:
    """Set PyTorch's number of CPU threads; None keeps its default."""
    if threads is not None:
        torch.set_num_threads(threads)


def _as_it_is(module: nn.Module) -> nn.Module:
    return module
