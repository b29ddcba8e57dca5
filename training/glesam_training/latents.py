"""Encode each picture once and store its latents: the frozen encoder never changes them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from glesam_evaluation.datasets import Dataset, Sample
from glesam_export.families import Preset, named_features
from glesam_runtime.chain import EMBEDDINGS
from glesam_runtime.errors import InputError
from glesam_runtime.interface import LATENT_CHANNELS
from glesam_runtime.staging import staged_file
from glesam_training.examples import ExampleOptions, Examples
from glesam_training.loop import worker_settings
from glesam_training.settings import keep_freed_memory
from glesam_training.worker_errors import ErrorsAsItems, raise_errors

Places = int | npt.NDArray[np.int64]
"""The index of one picture or version, or of many."""


class StoredLatents(Examples):
    """Examples with `z_h` and `z_l` [256, s, s] instead of `clear` and `low`.

    The file holds float16 `[pictures, 1 + variants, 256, s, s]`: the clear latent, then the latent
    of each degraded version. With SAM 2 and a mask loss, the degraded versions' high-resolution
    features lie beside it, in one file `[pictures, variants, C, h, w]` for each of the two.
    """

    def __init__(
        self,
        dataset: Dataset,
        preset: Preset,
        count: int,
        options: ExampleOptions,
        path: Path,
        high_res: Sequence[str] = (),
    ) -> None:
        super().__init__(dataset, preset, count, options)
        self.path, self.high_res = path, high_res
        self._opened: dict[str, npt.NDArray[np.float16]] = {}

    def __getstate__(self) -> dict[str, object]:
        return self.__dict__ | {"_opened": {}}

    def inputs(
        self, sample: Sample, index: int, variant: int
    ) -> dict[str, npt.NDArray[np.floating[Any]]]:
        """Return the picture's latents."""
        z_l, z_h = self.latents(index, variant)
        more = {name: self._stored(name)[index, variant] for name in self.high_res}
        return {"z_h": z_h, "z_l": z_l} | more

    def latents(
        self, index: Places, variant: Places
    ) -> tuple[npt.NDArray[np.float16], npt.NDArray[np.float16]]:
        """Return z_L and z_H of one picture [256, s, s], or of many [N, 256, s, s]."""
        stored = self._stored(EMBEDDINGS)
        return stored[index, 1 + variant], stored[index, 0]

    def _stored(self, name: str) -> npt.NDArray[np.float16]:
        if name not in self._opened:
            self._opened[name] = np.load(_file_of(self.path, name), mmap_mode="r")
        return self._opened[name]


class _Versions(torch.utils.data.Dataset[Tensor]):
    """Each picture, clear and in all its degraded versions: [1 + variants, 3, S, S]."""

    def __init__(self, examples: Examples, variants: int) -> None:
        self.examples, self.variants = examples, variants

    def __len__(self) -> int:
        return len(self.examples.dataset)

    def __getitem__(self, index: int) -> Tensor:
        sample = self.examples.dataset[index]
        pairs = [self.examples.inputs(sample, index, v) for v in range(self.variants)]
        images = [pairs[0]["clear"], *(pair["low"] for pair in pairs)]
        return torch.from_numpy(np.stack(images))


def store_latents(
    folder: Path,
    encoder: nn.Module,
    examples: Examples,
    workers: int = 1,
    progress: Callable[[int, int], object] = lambda _done, _total: None,
    high_res: bool = False,
) -> StoredLatents:
    """Encode every picture and all its degraded versions, unless the folder already holds them.

    Args:
        folder: where the file goes; its name identifies encoder, data and options.
        encoder: SAM's encoder, frozen.
        examples: the examples; their `options.variants` must be a number.
        workers: number of processes that prepare images.
        progress: called with the number of pictures done and their total.
        high_res: whether to store the high-resolution features of the degraded versions too.

    Raises:
        InputError: the number of variants is not fixed.
    """
    options, dataset, variants = examples.options, examples.dataset, examples.options.variants
    if variants is None:
        raise InputError("storing latents needs a fixed number of degraded versions; set variants")
    keep_freed_memory()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"latents-{_identity(encoder, examples)}.npy"
    side = examples.preset.latent_size
    shapes = {EMBEDDINGS: (len(dataset), 1 + variants, LATENT_CHANNELS, side, side)}
    device = next(encoder.parameters()).device
    if high_res:
        size = examples.preset.image_size
        with torch.no_grad():
            features = named_features(encoder(torch.zeros(1, 3, size, size, device=device)))
        for name in features.keys() - {EMBEDDINGS}:
            shapes[name] = (len(dataset), variants, *features[name].shape[1:])
    missing = {n: shape for n, shape in shapes.items() if not _file_of(path, n).is_file()}
    if missing:
        loader = DataLoader(
            ErrorsAsItems(_Versions(examples, variants)),
            batch_size=None,
            **worker_settings(workers),
        )
        with ExitStack() as stack, torch.no_grad():
            stored = {
                name: np.lib.format.open_memmap(
                    stack.enter_context(staged_file(_file_of(path, name))),
                    "w+",
                    dtype=np.float16,
                    shape=shape,
                )
                for name, shape in missing.items()
            }
            for index, images in enumerate(raise_errors(loader)):
                features = named_features(encoder(images.to(device)))
                for name, array in stored.items():
                    # Of the clear version, which comes first, only the embedding is used.
                    kept = features[name] if name == EMBEDDINGS else features[name][1:]
                    array[index] = kept.cpu().numpy().astype(np.float16)
                progress(index + 1, len(dataset))
            for array in stored.values():
                array.flush()
    others = tuple(sorted(shapes.keys() - {EMBEDDINGS}))
    return StoredLatents(dataset, examples.preset, examples.count, options, path, others)


def _file_of(path: Path, name: str) -> Path:
    """Return the file of some features, beside that of the embeddings."""
    return path if name == EMBEDDINGS else path.with_name(f"{path.stem}-{name}.npy")


def _identity(encoder: nn.Module, examples: Examples) -> str:
    """Return a name that changes with the encoder, the dataset and the options."""
    options = examples.options
    made_of = (examples.low_seed, options.levels, options.variants, len(examples.dataset))
    digest = hashlib.sha256(repr(made_of).encode())
    if examples.preset.input != "sam":
        digest.update(examples.preset.input.encode())
    if options.recipe != "paper":  # the name of latents that are already stored stays valid
        digest.update(options.recipe.encode())
    for name, parameter in encoder.state_dict().items():
        digest.update(name.encode())
        digest.update(parameter.double().sum().cpu().numpy().tobytes())
    for index in {0, len(examples.dataset) // 2, len(examples.dataset) - 1}:
        digest.update(examples.dataset[index].image.tobytes())
    return digest.hexdigest()[:16]
