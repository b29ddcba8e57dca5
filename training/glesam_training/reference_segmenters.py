"""Evaluate a checkpoint: the unfolded PyTorch reference behind the runtime's host code."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from glesam_evaluation.protocol import Segmenter
from glesam_evaluation.segmenters import with_and_without
from glesam_export.checkpoints import Checkpoint
from glesam_export.families import family_of, named_features
from glesam_runtime.chain import EMBEDDINGS
from glesam_runtime.errors import BackendError
from glesam_runtime.manifest import Coordinates, Postprocessing, Preprocessing
from glesam_training.settings import keep_freed_memory


class ReferenceStages:
    """A checkpoint's three modules in float32; the last line of Eq. 4 is float64."""

    def __init__(self, checkpoint: Checkpoint, device: str | None = None) -> None:
        """Build the modules.

        Args:
            checkpoint: the weights.
            device: "cpu", "cuda", "cuda:N"; None is the first GPU, or the CPU if there is none.

        Raises:
            BackendError: the device does not exist here.
            CheckpointError: the weights do not fit.
        """
        keep_freed_memory()
        self._device = _device(device)
        self._preset = checkpoint.preset
        self._encoder = checkpoint.encoder().to(self._device)
        self._enhancer = checkpoint.enhancer().to(self._device)
        self._decoder = checkpoint.decoder().to(self._device)

    @property
    def preprocessing(self) -> Preprocessing:
        """Return the preset's preprocessing."""
        return family_of(self._preset).preprocessing(self._preset)

    @property
    def postprocessing(self) -> Postprocessing:
        """Return the preset's postprocessing."""
        return family_of(self._preset).postprocessing(self._preset)

    @property
    def coordinates(self) -> Coordinates:
        """Return the preset's coordinate convention."""
        return family_of(self._preset).coordinates(self._preset)

    @torch.inference_mode()
    def encode(self, image: npt.NDArray[np.float32]) -> dict[str, Tensor]:
        """Turn an image float32 [1,3,S,S] into z_L float32 [1,256,S/16,S/16] and other features."""
        return named_features(self._encoder(self._tensor(image)))

    @torch.inference_mode()
    def enhance(self, embeddings: dict[str, Tensor]) -> dict[str, Tensor]:
        """Turn z_L into z_H of the same shape, rounded to float32 for the decoder."""
        z_h: Tensor = self._enhancer(embeddings[EMBEDDINGS])
        return {**embeddings, EMBEDDINGS: z_h.float()}

    def latent(self, embeddings: dict[str, Tensor]) -> npt.NDArray[np.float32]:
        """Return z_L or z_H as an array, [256,S/16,S/16]."""
        return embeddings[EMBEDDINGS][0].float().cpu().numpy()

    @torch.inference_mode()
    def decode(
        self, embeddings: dict[str, Tensor], prompts: Mapping[str, npt.NDArray[np.float32]]
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Return logits [B,4,S/4,S/4] and predicted IoUs [B,4]."""
        tensors = {name: self._tensor(value) for name, value in prompts.items()}
        low_res, iou = self._decoder(**embeddings, **tensors)
        return low_res.cpu().numpy(), iou.cpu().numpy()

    def _tensor(self, values: npt.NDArray[np.float32]) -> Tensor:
        return torch.from_numpy(values).to(self._device)


def reference_segmenters(checkpoint: Checkpoint, device: str | None = None) -> dict[str, Segmenter]:
    """Return a checkpoint as two segmenters, without and with its enhancer.

    Raises:
        BackendError: the device does not exist here.
        CheckpointError: the weights do not fit.
    """
    return with_and_without(ReferenceStages(checkpoint, device))


def _device(name: str | None) -> torch.device:
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:  # torch without CUDA raises AssertionError
        reason = str(error).splitlines()[0]
        raise BackendError(f"--device {name}: PyTorch cannot use it ({reason})") from error
    return device
