"""Reads the names of a LoRA's tensors, in the styles that training programs write.

    <module>.lora.down.weight, .lora.up.weight             diffusers, older
    <module>.lora_A.weight, .lora_B.weight                 diffusers, PEFT
    <attention>.processor.to_q_lora.down.weight            diffusers before attention was a layer
    lora_unet_<module>.lora_down.weight, .lora_up.weight   kohya; dots of the module are underscores

`unet.`, PEFT's `base_model.model.`, torch.compile's `_orig_mod.` and data-parallel training's
`module.` may stand before a module.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple

from torch import nn

Role = Literal["down", "up", "alpha"]
"""Factor A, factor B, or a layer's alpha."""

KOHYA = "lora_unet_"
"""Beginning of kohya's names."""

COMPILED = "_orig_mod."
"""Part that torch.compile adds to the names of modules."""

FACTOR = re.compile(
    r"^(?P<module>.+?)\."
    r"(?:(?P<down>lora\.down|lora_down|lora_A(?:\.\w+)?)|(?P<up>lora\.up|lora_up|lora_B(?:\.\w+)?))"
    r"\.weight$"
)

PROCESSOR = re.compile(
    r"^(?P<attention>.+?)\.(?:processor\.)?to_(?P<projection>[qkv]|out)_lora"
    r"\.(?P<role>down|up)\.weight$"
)

ALPHA = re.compile(r"^(?P<module>.+)\.alpha$")

OTHER_METHODS: Mapping[str, str] = {
    "lora_magnitude_vector": "DoRA",
    "dora_scale": "DoRA",
    "hada_w": "LoHa",
    "lokr_w": "LoKr",
    "lora_mid": "a LoRA in three factors (LyCORIS)",
    "oft_": "OFT",
    "ia3_": "IA3",
    "modules_to_save": "whole trained layers beside a LoRA",
}
"""Parts of names that tell another method, and its name."""

TEXT_ENCODER = ("text_encoder", "lora_te")
"""Beginnings of the names of a text encoder's adapters."""


class LoraKey(NamedTuple):
    """What the name of a tensor says.

    Attributes:
        module: path of the adapted layer in the U-Net. In kohya's names it is flat, see `layer_of`.
        role: what the tensor is.
        prefix: `unet.` if the name of a PEFT model begins with it; PEFT's patterns see it.
    """

    module: str
    role: Role
    prefix: str = ""


def parse_key(name: str) -> LoraKey | None:
    """Return what the name of a tensor says; None if it is no LoRA's."""
    plain = name.replace(COMPILED, "").removeprefix("module.").removeprefix("base_model.model.")
    if plain.startswith(TEXT_ENCODER):
        return None
    prefix = "unet." if plain.startswith("unet.") else ""
    plain = plain.removeprefix("unet.")
    if match := PROCESSOR.match(plain):
        projection = "out.0" if match["projection"] == "out" else match["projection"]
        role: Role = "down" if match["role"] == "down" else "up"
        return LoraKey(f"{match['attention']}.to_{projection}", role, prefix)
    if match := FACTOR.match(plain):
        return LoraKey(match["module"], "down" if match["down"] else "up", prefix)
    if match := ALPHA.match(plain):
        return LoraKey(match["module"], "alpha", prefix)
    return None


def layer_of(key: LoraKey, flat: Mapping[str, str]) -> str:
    """Return the layer's path; `flat` is `flat_names` of the U-Net."""
    if key.module.startswith(KOHYA):
        return flat.get(key.module.removeprefix(KOHYA), key.module)
    return key.module


def flat_names(unet: nn.Module) -> dict[str, str]:
    """Return the paths of a U-Net's modules by their names with underscores instead of dots."""
    return {name.replace(".", "_"): name for name, _ in unet.named_modules()}


def why_foreign(name: str) -> str:
    """Say why a tensor of this name cannot be used."""
    if name.removeprefix("base_model.model.").startswith(TEXT_ENCODER):
        return f"{name} adapts the text encoder, which GleSAM leaves as it is"
    return f"{name} is no LoRA key"


def other_method(names: Iterable[str]) -> str | None:
    """Return the method that the names tell if it is not a plain LoRA, with a name as example."""
    for name in names:
        for part, method in OTHER_METHODS.items():
            if f".{part}" in name:
                return f"{name} belongs to {method}"
    return None
