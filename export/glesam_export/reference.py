"""GleSAM as the paper writes it: the oracle that every graph is held against.

Nothing here is folded. LoRA stays in unmerged peft adapters, the U-Net sees gamma * z_L, the
timestep and the text embedding, and Eq. 4 is evaluated in float64.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from diffusers import UNet2DConditionModel
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from segment_anything.modeling import (
    ImageEncoderViT,
    MaskDecoder,
    PromptEncoder,
    Sam,
    TwoWayTransformer,
)
from torch import Tensor, nn

from glesam_export.presets import LATENT_CHANNELS, SamPreset, UNetPreset
from glesam_runtime.chain import EMBEDDINGS

HIGH_RES = ("high_res_feats_0", "high_res_feats_1")
"""The contract's names of what SAM 2's decoder refines masks with."""

ADAPTER = "default"
"""peft's name for the one adapter a GleSAM U-Net carries."""

LoraFactors = tuple[Tensor, Tensor, float]
"""A [r, in, ...], B [out, r, ...] and alpha of one adapted layer: delta W = (alpha / r) B A."""


def build_encoder(preset: SamPreset) -> ImageEncoderViT:
    """SAM's image encoder, weights as initialised: [N, 3, S, S] -> [N, 256, S/16, S/16]."""
    return ImageEncoderViT(
        img_size=preset.image_size,
        patch_size=preset.patch,
        embed_dim=preset.embed_dim,
        depth=preset.depth,
        num_heads=preset.heads,
        out_chans=LATENT_CHANNELS,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        use_rel_pos=True,
        window_size=preset.window,
        global_attn_indexes=preset.global_blocks,
    )


def build_prompt_encoder(preset: SamPreset) -> PromptEncoder:
    """SAM's prompt encoder, weights as initialised."""
    side = preset.latent_size
    return PromptEncoder(
        embed_dim=LATENT_CHANNELS,
        image_embedding_size=(side, side),
        input_image_size=(preset.image_size, preset.image_size),
        mask_in_chans=16,
    )


def build_mask_decoder(preset: SamPreset) -> MaskDecoder:
    """SAM's mask decoder (one single mask and three multimasks), weights as initialised."""
    return MaskDecoder(
        transformer_dim=LATENT_CHANNELS,
        transformer=TwoWayTransformer(
            depth=2, embedding_dim=LATENT_CHANNELS, mlp_dim=preset.decoder_mlp, num_heads=8
        ),
        num_multimask_outputs=3,
        iou_head_depth=3,
        iou_head_hidden_dim=256,
    )


def build_unet(preset: UNetPreset, channels: int = LATENT_CHANNELS) -> UNet2DConditionModel:
    """The U-Net with `channels` in and out, weights as initialised."""
    config = dict(preset.config) | {"in_channels": channels, "out_channels": channels}
    return UNet2DConditionModel(**config)


def replicate_channels(state: Mapping[str, Tensor], channels: int) -> dict[str, Tensor]:
    """Replicated-channel expansion (CRE): widen head and tail of a 4-channel U-Net.

    `conv_in.weight` [C, 4, 3, 3] is tiled along its inputs, `conv_out.weight` [4, C, 3, 3] and
    `conv_out.bias` [4] along their outputs, channel i taking base channel i mod 4; nothing is
    rescaled (paper, Sec. 3.3; the released code's `repeat(1, 64, 1, 1)`).

    Args:
        state: state dict of a U-Net whose channel count divides `channels`.
        channels: channels of the widened U-Net.

    Returns:
        A new dict; every other tensor is passed on as it is.
    """
    wide = dict(state)
    times = channels // state["conv_in.weight"].shape[1]
    wide["conv_in.weight"] = state["conv_in.weight"].repeat(1, times, 1, 1)
    wide["conv_out.weight"] = state["conv_out.weight"].repeat(times, 1, 1, 1)
    wide["conv_out.bias"] = state["conv_out.bias"].repeat(times)
    return wide


def add_lora(unet: nn.Module, factors: Mapping[str, LoraFactors]) -> None:
    """Give every layer named in `factors` its own unmerged peft adapter, in place.

    Args:
        unet: the widened U-Net.
        factors: by module path, shapes already known to fit.
    """
    ranks = {name: a.shape[0] for name, (a, _, _) in factors.items()}
    alphas = {name: alpha for name, (_, _, alpha) in factors.items()}
    config = LoraConfig(
        # peft reads a list as name endings; one anchored pattern names these layers alone.
        target_modules="^(" + "|".join(name.replace(".", r"\.") for name in factors) + ")$",
        rank_pattern={f"^{name}$": rank for name, rank in ranks.items()},
        alpha_pattern={f"^{name}$": alpha for name, alpha in alphas.items()},
        init_lora_weights=False,
    )
    inject_adapter_in_model(config, unet, adapter_name=ADAPTER)
    for name, (a, b, _) in factors.items():
        layer = unet.get_submodule(name)
        assert isinstance(layer, LoraLayer)
        layer.lora_A[ADAPTER].weight = nn.Parameter(a)
        layer.lora_B[ADAPTER].weight = nn.Parameter(b)


class Enhancer(nn.Module):
    """Generative latent space enhancement, unfolded (paper, Eq. 4).

    z_H = (gamma z_L - sqrt(1 - abar_T) eps(gamma z_L; T, c)) / (gamma sqrt(abar_T))

    Args:
        unet: 256-channel U-Net eps with CRE and unmerged adapters.
        text: c, [1, 77, D].
        gamma: adaption weight.
        timestep: T, index of `alphas_cumprod`.
        alpha_bar: abar_T.
    """

    text: Tensor

    def __init__(
        self,
        unet: UNet2DConditionModel,
        text: Tensor,
        gamma: float,
        timestep: int,
        alpha_bar: float,
    ) -> None:
        super().__init__()
        self.unet = unet
        self.register_buffer("text", text)
        self.gamma, self.timestep, self.alpha_bar = gamma, timestep, alpha_bar

    def eps(self, z_l: Tensor) -> Tensor:
        """The U-Net's noise estimate at gamma * z_L: [N, 256, s, s], in the weights' dtype."""
        c = self.text.expand(z_l.shape[0], -1, -1)
        predicted: Tensor = self.unet(self.gamma * z_l, self.timestep, c, return_dict=False)[0]
        return predicted

    def step(self, z_l: Tensor, eps: Tensor) -> Tensor:
        """The last line of Eq. 4, in float64."""
        latent = self.gamma * z_l.double()
        numerator = latent - (1 - self.alpha_bar) ** 0.5 * eps.double()
        z_h: Tensor = numerator / (self.gamma * self.alpha_bar**0.5)
        return z_h

    def forward(self, z_l: Tensor) -> Tensor:
        """z_L [N, 256, s, s] -> z_H, the same shape, float64."""
        return self.step(z_l, self.eps(z_l))


class Decoder(nn.Module):
    """SAM's prompt encoder and mask decoder as they are, taking the contract's inputs."""

    def __init__(self, prompt_encoder: PromptEncoder, mask_decoder: MaskDecoder) -> None:
        super().__init__()
        self.prompt_encoder = prompt_encoder
        self.mask_decoder = mask_decoder

    def embed_prompts(
        self, point_coords: Tensor, point_labels: Tensor, masks: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """SAM's own prompt embeddings: sparse [B, P, 256] and dense [B, 256, S/16, S/16].

        The contract's tokens are turned back into the arguments SAM's code takes: the box corners
        (labels 2 and 3) become a box, and the closing padding point is left for PromptEncoder to
        add. Every prompt of a batch has the same kinds of token.
        """
        kinds = point_labels[0]
        corner = (kinds == 2) | (kinds == 3)
        clicked = (kinds == 0) | (kinds == 1)
        boxes = point_coords[:, corner].reshape(-1, 4) if bool(corner.any()) else None
        points = (
            (point_coords[:, clicked], point_labels[:, clicked]) if bool(clicked.any()) else None
        )
        embedded: tuple[Tensor, Tensor] = self.prompt_encoder(
            points=points, boxes=boxes, masks=masks
        )
        return embedded

    def forward(
        self,
        image_embeddings: Tensor,
        point_coords: Tensor,
        point_labels: Tensor,
        mask_input: Tensor,
        has_mask_input: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """All four masks [B, 4, S/4, S/4] and IoU predictions [B, 4] of B prompts on one image."""
        masks = mask_input if bool(has_mask_input.item()) else None
        sparse, dense = self.embed_prompts(point_coords, point_labels, masks)
        result: tuple[Tensor, Tensor] = self.mask_decoder.predict_masks(
            image_embeddings=image_embeddings,
            image_pe=self.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
        )
        return result


def named_features(encoded: Tensor | tuple[Tensor, ...]) -> dict[str, Tensor]:
    """What an encoder gave, by the contract's names: one tensor of SAM's, three of SAM 2's."""
    features = encoded if isinstance(encoded, tuple) else (encoded,)
    return dict(zip((EMBEDDINGS, *HIGH_RES), features, strict=False))


def build_sam(
    encoder: ImageEncoderViT, prompt_encoder: PromptEncoder, mask_decoder: MaskDecoder
) -> Sam:
    """The whole Sam, for segment_anything's own SamPredictor."""
    return Sam(encoder, prompt_encoder, mask_decoder).eval()
