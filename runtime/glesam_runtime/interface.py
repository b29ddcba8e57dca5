"""Return the names, types and shapes that the contract fixes for every stage's tensors."""

from __future__ import annotations

from glesam_runtime.manifest import Family, StageName, TensorSpec


def expected_interface(
    stage: StageName, image_size: int, batch: int | str, family: Family = "sam"
) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Return the inputs and outputs that the contract fixes for a stage.

    SAM 2's encoder has further outputs, the features with which its decoder refines masks. The
    enhancer does not use them.

    Args:
        stage: the stage.
        image_size: S, the side of the encoder's square input in pixels.
        batch: N, the images per call of encoder and enhancer, or "dynamic".
        family: the model family.
    """

    def spec(name: str, *shape: int | str) -> TensorSpec:
        return TensorSpec(name=name, dtype="float32", shape=shape)

    def high_res(images: int | str) -> tuple[TensorSpec, ...]:
        if family == "sam":
            return ()
        eighth = image_size // 8
        return (
            spec("high_res_feats_0", images, 32, low_res, low_res),
            spec("high_res_feats_1", images, 64, eighth, eighth),
        )

    latent, low_res = image_size // 16, image_size // 4
    n = "N" if batch == "dynamic" else batch
    if stage == "encoder":
        return (
            (spec("image", n, 3, image_size, image_size),),
            (spec("image_embeddings", n, 256, latent, latent), *high_res(n)),
        )
    if stage == "enhancer":
        return (
            (spec("image_embeddings", n, 256, latent, latent),),
            (spec("enhanced_embeddings", n, 256, latent, latent),),
        )
    return (
        (
            spec("image_embeddings", 1, 256, latent, latent),
            *high_res(1),
            spec("point_coords", "B", "P", 2),
            spec("point_labels", "B", "P"),
            spec("mask_input", "B", 1, low_res, low_res),
            spec("has_mask_input", 1),
        ),
        (spec("low_res_masks", "B", 4, low_res, low_res), spec("iou_predictions", "B", 4)),
    )
