"""Start nano2's SAM from the nano that ships: its latents, and the weights of its decoder.

A SAM from scratch learns from 600,000 pictures. With a SAM 2 of this size that takes two CPU cores
half a day. Nano's encoder already knows what its decoder needs. So the encoder of nano2 first
learns to return nano's latents (as MobileSAM does; arXiv 2306.14289, Sec. 3), which needs no
prompts and no decoder, and the decoder starts as nano's. Both then train together.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from glesam_evaluation.datasets import Dataset
from glesam_export.families import Preset, family_of, named_features
from glesam_export.families.sam2.checkpoint import PROJECTIONS
from glesam_runtime.chain import EMBEDDINGS
from glesam_runtime.image import preprocess
from glesam_training.loop import Objective
from glesam_training.nano.sam import SamNano

RENAMED = {"mlp.layers.0.": "mlp.lin1.", "mlp.layers.1.": "mlp.lin2."}
"""Parts of a SAM 2 decoder's names, with those of the same tensors in a SAM's."""

NEW = ("conv_s0.", "conv_s1.", "obj_score_token.", "pred_obj_score_head.")
"""Parts of a SAM 2 mask decoder that a SAM's does not have."""


@torch.no_grad()
def copy_decoder(student: SamNano, teacher: nn.Module) -> None:
    """Give a SAM 2's decoder the weights of a SAM's, in place, so that its masks are much the same.

    The projections of the high-resolution features become zero, which a SAM has not: they add
    nothing until they are trained. The token of the object's score, which a SAM has not either,
    takes part in the attention and changes masks a little.

    Raises:
        ValueError: the decoders differ in more than these parts.
    """
    found = teacher.state_dict()
    for name, tensor in student.decoder.state_dict().items():
        if name.removeprefix("mask_decoder.").startswith(NEW):
            continue
        theirs = name
        for ours, other in RENAMED.items():
            theirs = theirs.replace(ours, other)
        if theirs not in found or found[theirs].shape != tensor.shape:
            raise ValueError(f"the decoder to start from has no {theirs} {list(tensor.shape)}")
        tensor.copy_(found[theirs])
    for name, parameter in student.encoder.named_parameters():
        if name.startswith(PROJECTIONS):
            parameter.zero_()


class SamePictures(torch.utils.data.Dataset[dict[str, Tensor]]):
    """Pictures of a dataset as the inputs of two encoders, `own` and `teacher`: [3, S, S] each."""

    def __init__(
        self, dataset: Dataset, own: Preset, teacher: Preset, count: int, seed: int
    ) -> None:
        self.dataset, self.count, self.seed = dataset, count, seed
        self.rules = {
            name: family_of(preset).preprocessing(preset)
            for name, preset in (("own", own), ("teacher", teacher))
        }

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        rng = np.random.default_rng((self.seed, 6, number))
        image = self.dataset[int(rng.integers(len(self.dataset)))].image
        return {
            name: torch.from_numpy(preprocess(image, rules).tensor[0])
            for name, rules in self.rules.items()
        }


class LatentObjective(Objective):
    """The mean squared error of an encoder's latents to another one's, of variance about 1.

    Args:
        sam: its encoder is trained.
        teacher: frozen. Its latents have the same shape.
    """

    def __init__(self, sam: SamNano, teacher: nn.Module) -> None:
        super().__init__()
        self.sam, self.teacher = sam, teacher.eval().requires_grad_(False)

    def trained(self) -> nn.Module:
        """Return the encoder."""
        return self.sam.encoder

    def forward(self, batch: dict[str, Tensor], progress: float) -> dict[str, Tensor]:
        """Return the error, and its share of what predicting the mean latent would give."""
        latents = named_features(self.sam.encoder(batch["own"]))[EMBEDDINGS]
        with torch.no_grad():
            wanted = named_features(self.teacher(batch["teacher"]))[EMBEDDINGS].float()
        error = functional.mse_loss(latents.float(), wanted)
        return {"loss": error, "share": error.detach() / wanted.var(dim=(0, 2, 3)).mean()}
