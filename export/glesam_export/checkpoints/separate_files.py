"""Assembles a checkpoint from the user's separate files."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from glesam_export.checkpoints import hugging_face, stable_diffusion, text_embedding
from glesam_export.checkpoints.lora_alpha import (
    AlphaSource,
    alpha_sources,
    config_beside,
    lora_file,
)
from glesam_export.checkpoints.sam import open_file, overlaid
from glesam_export.checkpoints.stable_diffusion import Base
from glesam_export.checkpoints.state_checkpoint import Part, State, StateCheckpoint, source
from glesam_export.checkpoints.tensor_file import TensorFile
from glesam_export.families import Preset
from glesam_export.presets import UNetPreset
from glesam_runtime.manifest import Source


@dataclass(frozen=True)
class WeightFiles:
    """The files that make up a GleSAM.

    Attributes:
        sam: SAM's state dict, of any family, Meta's or fine-tuned.
        sd: a diffusers folder of the U-Net's base, or a file with only its U-Net's weights.
        lora: the U-Net's adapters: a file, or a folder of PEFT or diffusers.
        prompt_embeds: [1, 77, D]; None runs the folder's text encoder on "".
        unet_config: config.json of a U-Net that is a bare file.
        lora_alpha: alpha of a LoRA whose file does not say it.
        decoder: a fine-tuned decoder that replaces the tensors of the same names in `sam`.
        prediction_type: "epsilon" reads the U-Net's output as noise, whatever its schedule says;
            None takes the schedule's.
    """

    sam: Path
    sd: Path
    lora: Path
    prompt_embeds: Path | None = None
    unet_config: Path | None = None
    lora_alpha: float | None = None
    decoder: Path | None = None
    prediction_type: Literal["epsilon"] | None = None


class OpenedFiles:
    """Opens the files of a GleSAM, each once, when it is first asked for.

    Args:
        sam: SAM's state dict; None if it is not asked for.
        sd: a diffusers folder or a U-Net's weights; None if it is not asked for.
        lora: the adapters; None if they are not asked for.
        unet_config: config.json of a U-Net that is a bare file.
        decoder: a fine-tuned decoder; None if there is none.
    """

    def __init__(
        self,
        sam: Path | None,
        sd: Path | None,
        lora: Path | None,
        unet_config: Path | None = None,
        decoder: Path | None = None,
    ) -> None:
        self._decoder = decoder
        self._sam, self._sd, self._lora, self._unet_config = sam, sd, lora, unet_config

    @cached_property
    def sam(self) -> TensorFile:
        """Open SAM's weights."""
        assert self._sam is not None, "not given"
        return open_file(self._sam, "--sam")

    @cached_property
    def decoder(self) -> TensorFile | None:
        """Open the fine-tuned decoder; None if there is none."""
        if self._decoder is None:
            return None
        return open_file(self._decoder, "--decoder")

    @cached_property
    def lora(self) -> TensorFile:
        """Open the adapters."""
        assert self._lora is not None, "not given"
        return TensorFile(lora_file(self._lora), "--lora")

    @cached_property
    def bare_unet(self) -> TensorFile | None:
        """Open a bare file of a U-Net's weights; None for a diffusers folder."""
        assert self._sd is not None, "not given"
        return TensorFile(self._sd, "--sd") if self._sd.is_file() else None

    @cached_property
    def base(self) -> Base:
        """Open the U-Net's base."""
        assert self._sd is not None, "not given"
        return Base(self._sd, self._unet_config, self.bare_unet)


class FileCheckpoint(StateCheckpoint):
    """Weights from files. The constructor finds everything that is wrong with them.

    Args:
        weights: the files.
        preset: the SAM that they must fit.
        unet: the U-Net that they must fit.
        gamma: adaption weight that the LoRA was trained with.
        timestep: T that the LoRA was trained with.
        opened: the same files, if some of them are open already.

    Raises:
        CheckpointError: a file is unreadable, unsafe, or does not fit.
    """

    trained = True
    origin = "files"

    @property
    def own_prediction_type(self) -> str:
        """Return the prediction type that the base's scheduler says."""
        return stable_diffusion.prediction_type(self._opened.base.schedule)

    def __init__(
        self,
        weights: WeightFiles,
        preset: Preset,
        unet: UNetPreset,
        gamma: float,
        timestep: int,
        opened: OpenedFiles | None = None,
    ) -> None:
        self.weights, self.preset = weights, preset
        self.gamma, self.timestep = gamma, timestep
        self._opened = opened or OpenedFiles(
            weights.sam, weights.sd, weights.lora, weights.unet_config, weights.decoder
        )
        base = self._opened.base
        self.unet, self.schedule = base.preset(unet), base.schedule
        if weights.prediction_type is not None:
            self.schedule = dict(base.schedule) | {"prediction_type": weights.prediction_type}
        self.alpha_bar = stable_diffusion.alpha_bar(timestep, self.schedule, base.schedule_from)
        hugging_face.check_config(self._opened.sam, preset)
        self.check_parts()
        # Keep only the embedding, because a text encoder is large.
        if weights.prompt_embeds is None:
            self._text_source = ("text_encoder", text_embedding.weight_file(weights.sd))
            self.text = text_embedding.encode_empty_prompt(weights.sd, unet)
        else:
            self._text_source = ("prompt_embeds", weights.prompt_embeds)
            self.text = text_embedding.read(weights.prompt_embeds, unet)

    def state(self, part: Part) -> State:
        """Read the tensors of the file that holds this part."""
        if part == "unet":
            file = self._opened.base.weights
        else:
            file = self._opened.sam if part == "sam" else self._opened.lora
        if part == "sam" and (decoder := self._opened.decoder) is not None:
            merged = overlaid(file.read(), decoder.read(), decoder.where)
            return State(merged, f"{file.where} with {decoder.where}")
        return State(file.read(), file.where)

    def alpha_sources(self) -> tuple[AlphaSource, ...]:
        """Return what the LoRA's header, the file beside it and the option say of alpha."""
        return alpha_sources(self._opened.lora, self.weights.lora_alpha)

    def sources(self) -> tuple[Source, ...]:
        """Hash every file that decides the weights."""
        lora = self._opened.lora.path
        config = config_beside(lora)
        sam, decoder = self._opened.sam, self._opened.decoder
        sam_config = hugging_face.config_beside(sam)
        paths = (
            *(("sam", path) for path in sam.files),
            *(() if sam_config is None else (("sam_config", sam_config),)),
            *(() if decoder is None else (("decoder", path) for path in decoder.files)),
            *(("unet", path) for path in self._opened.base.weight_files),
            ("lora", lora),
            *(() if config is None else (("lora_config", config),)),
            self._text_source,
        )
        return tuple(source(role, path) for role, path in paths)
