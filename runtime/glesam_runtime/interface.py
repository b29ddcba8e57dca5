"""Return the names, types and shapes that the contract fixes for every stage's tensors."""

from __future__ import annotations

from dataclasses import dataclass

from glesam_runtime.manifest import Family, StageName, TensorSpec

LATENT_CHANNELS = 256
"""Channels of z_L and z_H."""


@dataclass(frozen=True)
class FamilyInterface:
    """How the stages of a family differ from those of the others.

    Attributes:
        size_step: the side of the encoder's input is a multiple of it, in pixels.
        high_res_channels: channels of the further outputs of the encoder, S/4 and S/8 pixels wide,
            with which the decoder refines masks. The enhancer does not use them.
    """

    size_step: int
    high_res_channels: tuple[int, ...] = ()


FAMILY_INTERFACES: dict[Family, FamilyInterface] = {
    "sam": FamilyInterface(size_step=16),
    "sam2": FamilyInterface(size_step=32, high_res_channels=(32, 64)),
}


def expected_interface(
    stage: StageName,
    image_size: int,
    batch: int | str,
    family: Family = "sam",
    image_index: bool = False,
    levels: bool = False,
) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Return the inputs and outputs that the contract fixes for a stage.

    Args:
        stage: the stage.
        image_size: S, the side of the encoder's square input in pixels.
        batch: N, the images per call of encoder and enhancer, or "dynamic".
        family: the model family.
        image_index: whether the decoder takes the features of I images and, in `image_index`, the
            number of each prompt's image, 0 to I - 1. Otherwise it takes those of one image.
        levels: whether the enhancer takes, in `level`, the index of each image's timestep.
    """

    def spec(name: str, *shape: int | str) -> TensorSpec:
        return TensorSpec(name=name, dtype="float32", shape=shape)

    def high_res(images: int | str) -> tuple[TensorSpec, ...]:
        channels = FAMILY_INTERFACES[family].high_res_channels
        sides = [image_size // (4 * 2**level) for level in range(len(channels))]
        return tuple(
            spec(f"high_res_feats_{level}", images, count, side, side)
            for level, (count, side) in enumerate(zip(channels, sides, strict=True))
        )

    latent, low_res = image_size // 16, image_size // 4
    n = "N" if batch == "dynamic" else batch
    if stage == "encoder":
        return (
            (spec("image", n, 3, image_size, image_size),),
            (spec("image_embeddings", n, LATENT_CHANNELS, latent, latent), *high_res(n)),
        )
    if stage == "enhancer":
        return (
            (
                spec("image_embeddings", n, LATENT_CHANNELS, latent, latent),
                *((spec("level", n),) if levels else ()),
            ),
            (spec("enhanced_embeddings", n, LATENT_CHANNELS, latent, latent),),
        )
    images = "I" if image_index else 1
    return (
        (
            spec("image_embeddings", images, LATENT_CHANNELS, latent, latent),
            *high_res(images),
            spec("point_coords", "B", "P", 2),
            spec("point_labels", "B", "P"),
            spec("mask_input", "B", 1, low_res, low_res),
            spec("has_mask_input", 1),
            *((spec("image_index", "B"),) if image_index else ()),
        ),
        (spec("low_res_masks", "B", 4, low_res, low_res), spec("iou_predictions", "B", 4)),
    )
