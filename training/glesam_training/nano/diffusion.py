"""Train the base U-Net of nano: a latent diffusion model, from scratch on scenes.

Its autoencoder is linear: the four principal components of 8 x 8 pixel patches, scaled to unit
variance. So the latent has four channels at an eighth of the image's size, as Stable Diffusion's
has. The U-Net learns to predict the noise in them, which is all that GleSAM needs of its base.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from diffusers import DDPMScheduler, UNet2DConditionModel
from torch import Tensor, nn
from torch.nn import functional

from glesam_evaluation.datasets import Dataset
from glesam_export.checkpoints.stable_diffusion import SCHEDULE, SD_CHANNELS
from glesam_export.checkpoints.text_embedding import TOKENS
from glesam_export.enhancer.reference import build_unet
from glesam_export.presets import UNetPreset
from glesam_training.loop import Objective

PATCH = 8
"""Side of a latent cell in pixels, as in Stable Diffusion."""

FITTED_PATCHES = 200_000
"""Number of patches that the principal components are computed from."""


class PatchAutoencoder(nn.Module):
    """Encodes pixel patches as four whitened principal components.

    Args:
        dataset: the images to take patches from.
        seed: decides which patches.
    """

    mean: Tensor
    components: Tensor

    def __init__(self, dataset: Dataset, seed: int) -> None:
        super().__init__()
        rng = np.random.default_rng(seed)
        images = rng.choice(len(dataset), min(len(dataset), 400), replace=False)
        each = FITTED_PATCHES // len(images)
        patches = np.concatenate([_patches(dataset[int(i)].image, each, rng) for i in images])
        mean = patches.mean(0)
        values, vectors = np.linalg.eigh(np.cov(patches - mean, rowvar=False))
        components = vectors[:, ::-1][:, :SD_CHANNELS] / np.sqrt(values[::-1][:SD_CHANNELS])
        self.register_buffer("mean", torch.from_numpy(np.float32(mean)))
        self.register_buffer("components", torch.from_numpy(np.float32(components.T)))

    def encode(self, pixels: Tensor) -> Tensor:
        """Turn pixels [N, 3, H, W] in -1..1 into latents [N, 4, H/8, W/8]."""
        kernel = self.components.view(SD_CHANNELS, 3, PATCH, PATCH)
        return functional.conv2d(pixels, kernel, -self.components @ self.mean, stride=PATCH)


class Crops(torch.utils.data.Dataset[dict[str, Tensor]]):
    """Random squares of images as pixels [3, side, side] in -1..1, half of them flipped."""

    def __init__(self, dataset: Dataset, count: int, side: int, seed: int) -> None:
        self.dataset, self.count, self.side, self.seed = dataset, count, side, seed

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        rng = np.random.default_rng((self.seed, number))
        image = self.dataset[int(rng.integers(len(self.dataset)))].image
        top, left = (int(rng.integers(size - self.side + 1)) for size in image.shape[:2])
        crop = image[top : top + self.side, left : left + self.side]
        if rng.uniform() < 0.5:
            crop = crop[:, ::-1]
        pixels = torch.from_numpy(np.ascontiguousarray(crop.transpose(2, 0, 1)))
        return {"pixels": pixels.float() / 127.5 - 1}


class DiffusionObjective(Objective):
    """Noise prediction on the autoencoder's latents (Ho et al. 2020, Eq. 14).

    Args:
        autoencoder: frozen.
        unet: takes and returns four channels.
        text: the constant c, [1, 77, D].
    """

    text: Tensor

    def __init__(
        self, autoencoder: PatchAutoencoder, unet: UNet2DConditionModel, text: Tensor
    ) -> None:
        super().__init__()
        self.autoencoder, self.unet = autoencoder, unet
        self.register_buffer("text", text)
        self.scheduler = DDPMScheduler.from_config(dict(SCHEDULE))

    def trained(self) -> nn.Module:
        """Return the U-Net."""
        unet: nn.Module = self.unet
        return unet

    def forward(self, batch: dict[str, Tensor], progress: float) -> dict[str, Tensor]:
        """Return the mean squared error of the noise; predicting zero would give 1."""
        latents = self.autoencoder.encode(batch["pixels"])
        noise = torch.randn_like(latents)
        steps = torch.randint(
            self.scheduler.config.num_train_timesteps, (len(latents),), device=latents.device
        )
        noisy = self.scheduler.add_noise(latents, noise, steps)
        text = self.text.expand(len(latents), -1, -1)
        predicted = self.unet(noisy, steps, text, return_dict=False)[0]
        return {"loss": functional.mse_loss(predicted.float(), noise)}


def build_base(preset: UNetPreset, seed: int) -> tuple[UNet2DConditionModel, Tensor]:
    """Return an untrained base U-Net with four channels, and its constant text c [1, 77, D].

    The model never sees a text, so c is noise drawn once; it only has to stay the same.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build_unet(preset, SD_CHANNELS), torch.randn(1, TOKENS, preset.text_dim)


def _patches(
    image: npt.NDArray[np.uint8], count: int, rng: np.random.Generator
) -> npt.NDArray[np.floating[Any]]:
    """Return random patches of an image, [count, 192], flattened like a convolution's kernel."""
    tops = rng.integers(image.shape[0] - PATCH + 1, size=count)
    lefts = rng.integers(image.shape[1] - PATCH + 1, size=count)
    pixels = image.astype(np.float32).transpose(2, 0, 1) / 127.5 - 1
    return np.stack(
        [pixels[:, y : y + PATCH, x : x + PATCH].ravel() for y, x in zip(tops, lefts, strict=True)]
    )
