"""Defines what a SAM family must provide.

This module does not import torch. A family imports torch and its own packages inside its methods.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, ClassVar, Generic, Literal, Protocol, TypeVar

from msgspec import UNSET, UnsetType

from glesam_export.families.hugging_face import HuggingFace
from glesam_runtime.errors import InputError
from glesam_runtime.manifest import (
    Coordinates,
    EverythingThresholds,
    Postprocessing,
    Preprocessing,
)
from glesam_runtime.manifest import Family as ContractFamily

if TYPE_CHECKING:
    from torch import Tensor, nn

    from glesam_export.families.reference_decoder import ReferenceDecoder
    from glesam_export.graphs import Graph


InputName = Literal["sam", "released"]
"""How an image becomes the encoder's input. sam: as the predictor of the SAM family prepares it.
released: as the released GleSAM code prepares it, which squashes every image to a small square."""


class Preset(Protocol):
    """One architecture of a family. A family's own preset class may have more attributes.

    Attributes:
        name: what `--preset` takes.
        family: the family's name in the registry.
        image_size: S, side of the encoder's square input in pixels.
        latent_size: side of the image embedding.
        default_unet: the U-Net when `--unet` is not given.
        builtin: file name of the weights that ship with this package; None if none do.
        input: how an image becomes the encoder's input. `Family.with_input` changes it.
    """

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def family(self) -> str: ...  # noqa: D102
    @property
    def image_size(self) -> int: ...  # noqa: D102
    @property
    def latent_size(self) -> int: ...  # noqa: D102
    @property
    def default_unet(self) -> str: ...  # noqa: D102
    @property
    def builtin(self) -> str | None: ...  # noqa: D102
    @property
    def input(self) -> InputName: ...  # noqa: D102


P = TypeVar("P", bound=Preset)


class Family(ABC, Generic[P]):
    """Everything that differs between one SAM family and another.

    Attributes:
        name: key in the registry; `family` of its presets.
        title: the name that users see.
        contract: the family of the bundle contract whose rules it follows: names, shapes and number
            of the features that the encoder passes to the decoder.
        tools: packages whose versions the manifest records, beside those of every export.
        suffix: file name suffix of its released checkpoints.
        key_prefixes: beginnings of tensor names by which a file of this family is recognised.
        parts: key prefixes of the parts of a file that a single image needs.
        hugging_face: how transformers' files of this family differ; None if it has none.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    contract: ClassVar[ContractFamily]
    tools: ClassVar[tuple[str, ...]] = ()
    suffix: ClassVar[str]
    key_prefixes: ClassVar[tuple[str, ...]]
    parts: ClassVar[tuple[str, ...]]
    hugging_face: ClassVar[HuggingFace | None] = None

    @property
    @abstractmethod
    def presets(self) -> Mapping[str, P]:
        """Return the architectures by name."""

    def with_input(self, preset: P, name: InputName) -> P:
        """Return the preset with this input. A family without a choice has the input "sam".

        Raises:
            InputError: the family does not have this input.
        """
        if name == preset.input:
            return preset
        raise InputError(
            f"--input {name}: {preset.name} has only the input {preset.input!r}; the released code "
            "is for SAM, not for this family"
        )

    @abstractmethod
    def preprocessing(self, preset: P) -> Preprocessing:
        """Return the rules that turn an image into the encoder's input."""

    @abstractmethod
    def postprocessing(self, preset: P) -> Postprocessing:
        """Return the rules that turn logits into masks."""

    @abstractmethod
    def coordinates(self, preset: P) -> Coordinates:
        """Return the rules that turn prompts into the decoder's inputs."""

    def everything(self, preset: P) -> EverythingThresholds | UnsetType:
        """Return the default thresholds of everything-mode; UNSET for segment_anything's."""
        return UNSET

    @abstractmethod
    def build_encoder(self, preset: P) -> nn.Module:
        """Build the reference encoder with initial weights."""

    @abstractmethod
    def build_decoder(self, preset: P) -> ReferenceDecoder:
        """Build the reference decoder with initial weights."""

    @abstractmethod
    def encoder_graph(self, encoder: nn.Module, preset: P) -> Graph:
        """Turn a reference encoder into a graph, which takes over the encoder's layers."""

    @abstractmethod
    def decoder_graph(self, decoder: ReferenceDecoder, preset: P) -> Graph:
        """Turn a reference decoder into a graph, which takes over the decoder's layers."""

    def recognises(self, names: Iterable[str]) -> bool:
        """Return whether tensors of these names belong to this family."""
        return any(name.startswith(self.key_prefixes) for name in names)

    @abstractmethod
    def misfits(self, state: Mapping[str, Tensor], preset: P) -> list[str]:
        """List where a state dict differs from this preset, one line each, with full names.

        Only names and shapes count; the tensors may be on the meta device.
        """

    def used(self, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Return the tensors of a state dict that an export reads."""
        return state

    def unused(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the other tensors of a state dict, which an export does not read."""
        used = self.used(state)
        return {name: tensor for name, tensor in state.items() if name not in used}

    @abstractmethod
    def load_encoder(self, state: Mapping[str, Tensor], preset: P) -> nn.Module:
        """Build the reference encoder with these weights, in float32 and eval mode."""

    @abstractmethod
    def load_decoder(self, state: Mapping[str, Tensor], preset: P) -> ReferenceDecoder:
        """Build the reference decoder with these weights, in float32 and eval mode."""

    @abstractmethod
    def state_dict(self, encoder: nn.Module, decoder: ReferenceDecoder) -> dict[str, Tensor]:
        """Return the weights with the keys and in the order of the released files."""

    def file_content(self, state: dict[str, Tensor]) -> object:
        """Return what a released file holds: the state dict, or a dict that nests it."""
        return state
