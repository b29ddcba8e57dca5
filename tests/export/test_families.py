"""A toy family, registered by one line, is exported and verified."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

from glesam_export import families
from glesam_export.checkpoints import formats, write
from glesam_export.checkpoints.random import RandomCheckpoint
from glesam_export.checkpoints.separate_files import FileCheckpoint, WeightFiles
from glesam_export.families.sam import SamFamily
from glesam_export.families.sam.presets import SAM_PRESETS, SamPreset
from glesam_export.graphs import Graph
from glesam_export.presets import sam_preset, unet_preset
from glesam_runtime.bundle import load_golden, open_bundle

from ..released import write_diffusion
from ..traced import Traced


@dataclass(frozen=True)
class ToyPreset(SamPreset):
    """SAM's decoder at nano's size, behind another encoder."""

    family: ClassVar[str] = "toy"


class ToyEncoder(nn.Module):
    """One convolution of patches."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 256, 16, stride=16)

    def forward(self, image: Tensor) -> Tensor:
        encoded: Tensor = self.patches(image)
        return encoded


class ToyGraph(Graph):
    """The convolution, behind the graph's own type."""

    def __init__(self, reference: ToyEncoder) -> None:
        super().__init__()
        self.patches = reference.patches

    def forward(self, image: Tensor) -> Tensor:
        encoded: Tensor = self.patches(image.to(self.dtype))
        return encoded.float()


class ToyFamily(SamFamily):
    """A family that differs from SAM in the encoder, its keys, and the rule for boxes."""

    name = "toy"
    title = "Toy SAM"
    contract = "sam"
    tools = ("safetensors",)
    suffix = ".toy"
    parts = ("toy_encoder", "prompt_encoder", "mask_decoder")
    key_prefixes = ("toy_encoder.",)

    @property
    def presets(self) -> Mapping[str, SamPreset]:
        nano = vars(SAM_PRESETS["nano"])
        return MappingProxyType({"toy": ToyPreset(**{**nano, "name": "toy", "builtin": None})})

    def build_encoder(self, preset: SamPreset) -> nn.Module:
        return ToyEncoder()

    def encoder_graph(self, encoder: nn.Module, preset: SamPreset) -> Graph:
        assert isinstance(encoder, ToyEncoder)
        return ToyGraph(encoder)

    def misfits(self, state: Mapping[str, Tensor], preset: SamPreset) -> list[str]:
        return [] if "toy_encoder.patches.weight" in state else ["toy_encoder is missing"]

    def load_encoder(self, state: Mapping[str, Tensor], preset: SamPreset) -> nn.Module:
        encoder = ToyEncoder()
        encoder.load_state_dict(
            {f"patches.{k}": state[f"toy_encoder.patches.{k}"] for k in ("weight", "bias")}
        )
        return encoder.eval().requires_grad_(False)

    def state_dict(self, encoder: nn.Module, decoder: nn.Module) -> dict[str, Tensor]:
        own = {f"toy_encoder.{name}": t for name, t in encoder.state_dict().items()}
        return own | dict(decoder.state_dict())


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Register the toy family, which takes one line."""
    monkeypatch.setitem(families.FAMILIES, "toy", ToyFamily())


@pytest.mark.usefixtures("toy")
def test_a_family_of_its_own_is_exported_and_verified(traced: Traced, tmp_path: Path) -> None:
    checkpoint = RandomCheckpoint(0, sam_preset("toy"), unet_preset("nano"), 5.0, 999)
    manifest = traced.build_bundle(checkpoint, tmp_path / "b")
    assert manifest.parity is not None
    assert manifest.parity.passed
    assert (manifest.model.preset, manifest.model.family) == ("toy", "sam")
    assert "safetensors" in manifest.provenance.tools
    golden = load_golden(open_bundle(tmp_path / "b"))
    assert golden["image_embeddings"].shape == (1, 256, 16, 16)


@pytest.mark.usefixtures("toy")
def test_its_files_are_known_and_read(tmp_path: Path) -> None:
    made = RandomCheckpoint(0, sam_preset("toy"), unet_preset("nano"), 5.0, 999)
    sam = tmp_path / "sam.toy"
    write.save_sam(sam, made.preset, made.encoder(), made.decoder())
    finding = formats.identify(sam)
    assert (finding.kind, finding.fits) == ("sam", ("toy",))
    assert finding.words == "Toy SAM, whole: toy"
    files = write_diffusion(tmp_path, made)
    weights = WeightFiles(sam, files.sd, files.lora, files.prompt_embeds, lora_alpha=8.0)
    read = FileCheckpoint(weights, sam_preset("toy"), unet_preset("nano"), 5.0, 999)
    image = torch.randn(1, 3, 256, 256)
    with torch.no_grad():
        assert torch.equal(read.encoder()(image), made.encoder()(image))


def test_presets_of_every_family_are_found_by_name() -> None:
    known = families.presets()
    assert {p.family for p in known.values()} == set(families.FAMILIES)
    assert all(name == preset.name for name, preset in known.items())
    assert replace(SAM_PRESETS["nano"]) == known["nano"]


def test_names_and_presets_need_neither_torch_nor_sam2() -> None:
    program = (
        "import sys\n"
        "sys.modules.update(torch=None, sam2=None, segment_anything=None, diffusers=None)\n"
        "from glesam_export.cli import app\n"
        "from glesam_export.presets import sam_preset\n"
        "print(sam_preset('sam2.1_hiera_t').family)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "sam2\n", done.stderr


def test_sam_needs_no_sam2(tmp_path: Path) -> None:
    """Reading a SAM file, and refusing one, never asks for the package of another family."""
    program = (
        "import sys\n"
        "sys.modules.update(sam2=None)\n"
        "import torch\n"
        "from glesam_export.checkpoints import sam\n"
        "from glesam_export.checkpoints.random import RandomCheckpoint\n"
        "from glesam_export.presets import sam_preset, unet_preset\n"
        "from glesam_export.stages import graph\n"
        "from glesam_export.checkpoints.write import sam_state\n"
        "made = RandomCheckpoint(0, sam_preset('nano'), unet_preset('nano'), 5.0, 999)\n"
        "graph(made, 'decoder')\n"
        "state = sam_state(made.preset, made.encoder(), made.decoder())\n"
        "try:\n"
        "    sam.check(state, sam_preset('sam_vit_b'), 'x')\n"
        "except Exception as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "x: not a sam_vit_b but a nano; use preset nano\n", done.stderr
