"""A LoRA computes here what PEFT and diffusers compute from the same files, unmerged."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from glesam_export.checkpoints import formats, lora, stable_diffusion, write
from glesam_export.checkpoints.checkpoint_folder import open_folder
from glesam_export.checkpoints.lora_alpha import alpha_sources, lora_file
from glesam_export.checkpoints.separate_files import FileCheckpoint, WeightFiles
from glesam_export.checkpoints.tensor_file import TensorFile
from glesam_export.enhancer.reference import ADAPTER, add_lora
from glesam_export.presets import LORA_TARGETS, sam_preset, unet_preset
from glesam_runtime.errors import CheckpointError
from glesam_training.trained_checkpoint import write_checkpoint

from ..released import Released
from .conftest import random_nano, relative

Run = Callable[..., tuple[int, str, str]]
Tensors = dict[str, Tensor]

SETTINGS: dict[str, dict[str, Any]] = {
    "alpha is the rank": {"r": 4, "lora_alpha": 4},
    "alpha is four times the rank": {"r": 4, "lora_alpha": 16},
    "alpha is no integer": {"r": 4, "lora_alpha": 2.5},
    "rslora": {"r": 4, "lora_alpha": 8, "use_rslora": True},
    "patterns by ending": {
        "r": 4,
        "lora_alpha": 8,
        "rank_pattern": {"conv_in": 2, "to_k": 6},
        "alpha_pattern": {"to_k": 3, "attn1.to_q": 20},
    },
    "patterns as regular expressions": {
        "r": 4,
        "lora_alpha": 8,
        "rank_pattern": {r".*attentions\.0.*to_[qv]": 3, "^conv_out": 5},
        "alpha_pattern": {r"down_blocks\..*\.conv[12]": 1, "^conv_out$": 7, "conv_out": 9},
    },
    "patterns with rslora": {
        "r": 4,
        "lora_alpha": 8,
        "use_rslora": True,
        "rank_pattern": {"to_k": 9},
        "alpha_pattern": {"to_q": 2},
    },
}


@pytest.fixture(autouse=True)
def no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def base() -> UNet2DConditionModel:
    """The widened U-Net of seed 0 without adapters; to copy."""
    with torch.no_grad():
        state = write.base_state(random_nano().enhancer().unet)
        return stable_diffusion.unet(state, unet_preset("nano"))


def eps(unet: torch.nn.Module) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    z = torch.randn(1, 256, 16, 16, generator=generator)
    text = torch.randn(1, 77, unet_preset("nano").text_dim, generator=generator)
    found: Tensor = unet(z, 1, encoder_hidden_states=text).sample
    return found


def randomized(unet: torch.nn.Module) -> torch.nn.Module:
    """Adapters with an effect."""
    generator = torch.Generator().manual_seed(7)
    for layer in unet.modules():
        if isinstance(layer, LoraLayer):
            for factor in (layer.lora_A, layer.lora_B):
                weight = next(iter(factor.values())).weight
                weight.copy_(torch.randn(weight.shape, generator=generator) * 0.05)
    return unet


def config(**settings: Any) -> LoraConfig:
    return LoraConfig(**{"target_modules": list(LORA_TARGETS), **settings})


def factors_of(path: Path, given: float | None = None) -> dict[str, tuple[Tensor, Tensor, float]]:
    file = TensorFile(lora_file(path), "--lora")
    unet = stable_diffusion.on_meta(unet_preset("nano"))
    return lora.parse(file.read(), unet, file.where, alpha_sources(file, given))


def ours(path: Path, base: UNet2DConditionModel, given: float | None = None) -> Tensor:
    unet = copy.deepcopy(base)
    add_lora(unet, factors_of(path, given))
    return eps(unet)


def peft_folder(folder: Path, base: UNet2DConditionModel, **settings: Any) -> Path:
    randomized(get_peft_model(copy.deepcopy(base), config(**settings))).save_pretrained(folder)
    return folder


def diffusers_file(folder: Path, base: UNet2DConditionModel, **settings: Any) -> Path:
    """As diffusers' own training scripts save it."""
    unet = copy.deepcopy(base)
    unet.add_adapter(config(**settings))
    randomized(unet)
    StableDiffusionPipeline.save_lora_weights(
        folder,
        unet_lora_layers=get_peft_model_state_dict(unet),
        unet_lora_adapter_metadata=unet.peft_config["default"].to_dict(),
    )
    return folder / "pytorch_lora_weights.safetensors"


def by_peft(folder: Path, base: UNet2DConditionModel) -> Tensor:
    return eps(PeftModel.from_pretrained(copy.deepcopy(base), folder).eval())


def by_diffusers(path: Path, base: UNet2DConditionModel) -> Tensor:
    state, alphas, metadata = StableDiffusionPipeline.lora_state_dict(
        path, return_lora_metadata=True
    )
    unet = copy.deepcopy(base)
    StableDiffusionPipeline.load_lora_into_unet(
        state, network_alphas=alphas, unet=unet, metadata=metadata
    )
    assert any(isinstance(layer, LoraLayer) for layer in unet.modules())
    return eps(unet)


@pytest.mark.parametrize("name", SETTINGS)
def test_a_peft_folder_is_what_peft_loads(
    name: str, base: UNet2DConditionModel, tmp_path: Path
) -> None:
    folder = peft_folder(tmp_path, base, **SETTINGS[name])
    expected = by_peft(folder, base)
    assert relative(expected, eps(base)) > 1e-3, "the adapters do something"
    assert relative(ours(folder, base), expected) < 1e-6
    file = folder / "adapter_model.safetensors"
    assert relative(ours(file, base), expected) < 1e-6, "the file says as much as its folder"


@pytest.mark.parametrize("name", SETTINGS)
def test_a_header_of_diffusers_is_what_diffusers_loads(
    name: str, base: UNet2DConditionModel, tmp_path: Path
) -> None:
    path = diffusers_file(tmp_path, base, **SETTINGS[name])
    expected = by_diffusers(path, base)
    assert relative(expected, eps(base)) > 1e-3
    assert relative(ours(path, base), expected) < 1e-6
    assert relative(ours(tmp_path, base), expected) < 1e-6, "its folder"


def test_a_header_of_the_model_alone_has_no_prefix(
    base: UNet2DConditionModel, tmp_path: Path
) -> None:
    unet = copy.deepcopy(base)
    unet.add_adapter(config(r=4, lora_alpha=16))
    randomized(unet)
    unet.save_lora_adapter(tmp_path)
    again = copy.deepcopy(base)
    path = tmp_path / "pytorch_lora_weights.safetensors"
    again.load_lora_adapter(path, prefix=None, use_safetensors=True)  # else without header
    assert relative(ours(path, base), eps(again)) < 1e-6


def test_a_peft_model_around_a_pipelines_unet(base: UNet2DConditionModel, tmp_path: Path) -> None:
    """Names begin with `unet.`, and the patterns see it."""

    class Around(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.unet = copy.deepcopy(base)

    settings = {"r": 4, "lora_alpha": 8, "alpha_pattern": {r"^unet\.conv_in": 2, "^conv_out": 99}}
    randomized(get_peft_model(Around(), config(**settings))).save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(Around(), tmp_path).eval()
    expected = eps(again.base_model.model.unet)
    assert relative(ours(tmp_path, base), expected) < 1e-6


def test_what_we_write_diffusers_reads(base: UNet2DConditionModel, tmp_path: Path) -> None:
    """Ranks and alphas that differ by layer, those of an rslora included."""
    unet = copy.deepcopy(base)
    settings = SETTINGS["patterns with rslora"]
    add_lora(unet, factors_of(peft_folder(tmp_path / "peft", base, **settings)))
    path = tmp_path / "written.safetensors"
    write.save_lora(path, unet)
    assert relative(by_diffusers(path, base), eps(unet)) < 1e-6
    assert relative(ours(path, base), eps(unet)) < 1e-6


def without_header(path: Path) -> Path:
    """The same tensors as the released trainer saves them."""
    bare = path.with_name("bare.safetensors")
    save_file(load_file(path), bare)
    return bare


@pytest.mark.parametrize(
    ("rank", "words"),
    [
        (8, r"pass --lora-alpha 8 \(the released trainer's, and alpha = rank\)"),
        (64, r"pass --lora-alpha 8 \(the released trainer's\) or 64 \(alpha = rank\)"),
    ],
)
def test_a_file_that_says_no_alpha_asks_for_it(
    rank: int, words: str, base: UNet2DConditionModel, tmp_path: Path
) -> None:
    path = diffusers_file(tmp_path, base, r=rank, lora_alpha=8, target_modules=["to_q", "conv_in"])
    expected = by_diffusers(path, base)
    bare = without_header(path)
    with pytest.raises(CheckpointError, match=rf"bare\.safetensors: does not say.*{words}"):
        factors_of(bare)
    assert relative(ours(bare, base, 8.0), expected) < 1e-6


def test_alpha_tensors_say_it_by_layer(base: UNet2DConditionModel, tmp_path: Path) -> None:
    path = diffusers_file(tmp_path, base, r=4, lora_alpha=8, alpha_pattern={"conv_in": 3})
    expected, tensors = by_diffusers(path, base), load_file(path)
    layers = {name.rsplit(".lora_", 1)[0] for name in tensors}
    alphas = {f"{n}.alpha": torch.tensor(3.0 if n == "unet.conv_in" else 8.0) for n in layers}
    save_file(tensors | alphas, tmp_path / "alpha.safetensors")
    assert relative(ours(tmp_path / "alpha.safetensors", base), expected) < 1e-6
    some = tensors | {"unet.conv_in.alpha": torch.tensor(3.0)}
    save_file(some, tmp_path / "some.safetensors")
    with pytest.raises(CheckpointError, match="does not say alpha for conv_out"):
        factors_of(tmp_path / "some.safetensors")
    assert relative(ours(tmp_path / "some.safetensors", base, 8.0), expected) < 1e-6


def test_sources_that_differ_are_named(base: UNet2DConditionModel, tmp_path: Path) -> None:
    path = diffusers_file(tmp_path, base, r=4, lora_alpha=8, target_modules=["conv_in", "to_q"])
    factors_of(path, 8.0)  # the same value twice is no conflict
    with pytest.raises(
        CheckpointError,
        match=r"conv_in has alpha 8 by the header's lora_adapter_metadata, but 4 by --lora-alpha",
    ):
        factors_of(path, 4.0)
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    tensors = load_file(path) | {"unet.conv_in.alpha": torch.tensor(2.0)}
    save_file(tensors, tmp_path / "both.safetensors", metadata)
    with pytest.raises(CheckpointError, match=r"conv_in has alpha 2 by \.alpha tensors, but 8 by"):
        factors_of(tmp_path / "both.safetensors")
    folder = peft_folder(tmp_path / "p", base, r=4, lora_alpha=8, target_modules=["conv_in"])
    save_file(load_file(folder / "adapter_model.safetensors"), folder / "x.safetensors", metadata)
    (folder / "x.safetensors").rename(folder / "adapter_model.safetensors")
    change(folder, lora_alpha=5)
    with pytest.raises(CheckpointError, match=r"but 5 by adapter_config\.json; keep one"):
        factors_of(folder)


def change(folder: Path, **entries: object) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({"r": 16}, "factors of rank 4, but adapter_config.json says rank 16"),
        ({"rank_pattern": {"conv_in": 2}}, "conv_in has factors of rank 4, .* says rank 2"),
        ({"lora_alpha": "8"}, r"adapter_config.json: Expected `float \| null`, got `str`"),
        ({"lora_alpha": None}, "does not say its alpha"),
        ({"alpha_pattern": {"(": 2}}, r"pattern '\(' is wrong"),
        ({"use_dora": True}, "use_dora is True, so this is no plain LoRA"),
        ({"lora_bias": True}, "lora_bias is True"),
        ({"peft_type": "LOKR"}, "peft_type is 'LOKR', not 'LORA'"),
        ({"init_lora_weights": "pissa_niter_4"}, "'pissa_niter_4', which changes the base"),
    ],
)
def test_settings_that_cannot_be_used(
    entries: dict[str, object], words: str, base: UNet2DConditionModel, tmp_path: Path
) -> None:
    peft_folder(tmp_path, base, r=4, lora_alpha=8, target_modules=["conv_in"])
    change(tmp_path, **entries)
    with pytest.raises(CheckpointError, match=rf"--lora .*adapter_model\.safetensors: .*{words}"):
        factors_of(tmp_path)


@pytest.mark.parametrize("raw", ["{", "[]", "8", '{"unet.lora_alpha": NaN}'])
def test_a_header_that_is_not_settings(
    raw: str, base: UNet2DConditionModel, tmp_path: Path
) -> None:
    path = diffusers_file(tmp_path, base, r=4, lora_alpha=8, target_modules=["conv_in"])
    save_file(load_file(path), tmp_path / "x.safetensors", {"lora_adapter_metadata": raw})
    with pytest.raises(CheckpointError, match=r"x\.safetensors: the header's lora_adapter_meta"):
        factors_of(tmp_path / "x.safetensors")


def test_folders_that_hold_none_or_two(base: UNet2DConditionModel, tmp_path: Path) -> None:
    path = diffusers_file(tmp_path, base, r=4, lora_alpha=8, target_modules=["conv_in"])
    path.rename(tmp_path / "mine.safetensors")
    with pytest.raises(CheckpointError, match=r"--lora .*holds none of adapter_model"):
        lora_file(tmp_path)
    for name in ("adapter_model.safetensors", "pytorch_lora_weights.safetensors"):
        (tmp_path / name).touch()
    with pytest.raises(CheckpointError, match="pass the file itself"):
        lora_file(tmp_path)


def test_a_text_encoders_settings_say_nothing_of_the_unet(
    base: UNet2DConditionModel, tmp_path: Path
) -> None:
    path = diffusers_file(tmp_path, base, r=4, lora_alpha=8, target_modules=["conv_in"])
    raw = json.dumps({"text_encoder.r": 4, "text_encoder.lora_alpha": 2})
    save_file(load_file(path), tmp_path / "x.safetensors", {"lora_adapter_metadata": raw})
    with pytest.raises(CheckpointError, match="does not say its alpha"):
        factors_of(tmp_path / "x.safetensors")


def test_a_checkpoint_takes_a_folder_and_hashes_its_settings(
    released: Released, base: UNet2DConditionModel, tmp_path: Path
) -> None:
    folder = peft_folder(tmp_path, base, r=4, lora_alpha=16)
    weights = WeightFiles(released.sam, released.sd, folder, released.prompt_embeds)
    found = FileCheckpoint(weights, sam_preset("nano"), unet_preset("nano"), 5.0, 999)
    assert relative(eps(found.enhancer().unet), by_peft(folder, base)) < 1e-6
    files = {source.role: source.file for source in found.sources()}
    assert files["lora"] == "adapter_model.safetensors"
    assert files["lora_config"] == "adapter_config.json"
    scale = found.enhancer().unet.conv_in.scaling[ADAPTER]
    assert scale == 4.0


@pytest.mark.parametrize("place", ["folder", "option", "the output's own file"])
def test_a_trained_decoder_keeps_the_loras_alpha(
    place: str, released: Released, base: UNet2DConditionModel, tmp_path: Path
) -> None:
    """The checkpoint folder says it, wherever the training had it from."""
    lora = peft_folder(tmp_path / "peft", base, r=4, lora_alpha=16)
    expected, alpha = by_peft(lora, base), None
    if place != "folder":
        tensors = load_file(lora / "adapter_model.safetensors")
        lora, alpha = tmp_path / "pytorch_lora_weights.safetensors", 16.0
        save_file(tensors, lora if place != "option" else tmp_path / "other.safetensors")
        lora = lora if place != "option" else tmp_path / "other.safetensors"
    files = WeightFiles(released.sam, released.sd, lora, released.prompt_embeds, lora_alpha=alpha)
    start = FileCheckpoint(files, sam_preset("nano"), unet_preset("nano"), 5.0, 999)
    found = open_folder(write_checkpoint(start, tmp_path, decoder=start.decoder()))
    assert relative(eps(found.enhancer().unet), expected) < 1e-6


def test_info_says_rank_alpha_and_its_source(
    base: UNet2DConditionModel, glesam_export: Run, tmp_path: Path
) -> None:
    folder = peft_folder(tmp_path / "p", base, r=4, lora_alpha=16)
    _, out, _ = glesam_export("info", folder)
    assert "rank 4, alpha 16 (from adapter_config.json), for U-Net nano" in out
    assert "--lora-alpha" not in out
    path = diffusers_file(tmp_path / "d", base, r=4, lora_alpha=8, use_rslora=True)
    _, out, _ = glesam_export("info", path)
    assert "rank 4, rslora alpha 8 (from the header's lora_adapter_metadata)" in out
    _, out, _ = glesam_export("info", without_header(path))
    assert "rank 4, alpha not said, for U-Net nano" in out
    assert "still needed: --lora-alpha A" in out


def test_lora_alpha_goes_with_a_lora(glesam_export: Run, tmp_path: Path) -> None:
    output = ("-o", tmp_path / "b")
    code, _, err = glesam_export("onnx", "--preset", "nano", "--lora-alpha", 8, *output)
    assert (code, "--lora-alpha 8: goes with a file by --lora" in err) == (2, True)
    for value in ("0", "-1", "nan", "inf"):
        code, _, err = glesam_export("onnx", "--lora", "x", "--lora-alpha", value, *output)
        assert (code, "must be a positive number" in err) == (2, True)
    assert formats.missing([]) != []


def kohya(name: str) -> str:
    """The name of a PEFT tensor as kohya's scripts spell it."""
    module, factor = name.rsplit(".lora_", 1)
    ending = {"A.weight": "lora_down.weight", "B.weight": "lora_up.weight"}[factor]
    return f"lora_unet_{module.replace('.', '_')}.{ending}"


@pytest.mark.parametrize("alphas", [(2.0, 2.0), (2.0, 5.0)], ids=["one", "by layer"])
@pytest.mark.parametrize("targets", [["to_q", "to_k", "to_v", "to_out.0"], list(LORA_TARGETS)])
def test_kohyas_names(
    targets: list[str], alphas: tuple[float, float], base: UNet2DConditionModel, tmp_path: Path
) -> None:
    """PEFT computes the same adapters under its own names.

    diffusers converts names of attention layers only, and it loses alphas that differ by layer.
    """
    settings = {"r": 4, "rank_pattern": {"to_k": 6}, "target_modules": targets}
    settings |= {"lora_alpha": alphas[0], "alpha_pattern": {"to_q": alphas[1]}}
    folder = peft_folder(tmp_path / "p", base, **settings)
    tensors = load_file(folder / "adapter_model.safetensors")
    renamed = {kohya(n.removeprefix("base_model.model.")): t for n, t in tensors.items()}
    said = {
        f"{name.removesuffix('.lora_down.weight')}.alpha": torch.tensor(alphas["to_q" in name])
        for name in renamed
        if name.endswith(".lora_down.weight")
    }
    path = tmp_path / "kohya.safetensors"
    save_file(renamed | said, path)
    found = ours(path, base)
    assert relative(found, by_peft(folder, base)) < 1e-6
    if len(targets) == 4 and alphas[0] == alphas[1]:
        assert relative(found, by_diffusers(path, base)) < 1e-6
    save_file(renamed, path)
    with pytest.raises(CheckpointError, match="does not say its alpha"):
        factors_of(path)


def test_a_layer_that_kohya_names_and_the_unet_lacks(tmp_path: Path) -> None:
    tensors = {
        f"lora_unet_input_blocks_1_1_proj_in.lora_{way}.weight": torch.ones(4, 4)
        for way in ("down", "up")
    }
    save_file(tensors, tmp_path / "k.safetensors")
    with pytest.raises(CheckpointError, match="lora_unet_input_blocks_1_1_proj_in is not a layer"):
        factors_of(tmp_path / "k.safetensors", 8.0)


@pytest.mark.parametrize("prefix", ["", "unet."])
@pytest.mark.parametrize("processor", ["processor.", ""])
def test_diffusers_old_attention_processors(
    prefix: str, processor: str, base: UNet2DConditionModel, tmp_path: Path
) -> None:
    attention = ["to_q", "to_k", "to_v", "to_out.0"]
    path = diffusers_file(tmp_path, base, r=4, lora_alpha=4, target_modules=attention)
    old = {}
    for name, tensor in load_file(path).items():
        module, factor = name.removeprefix("unet.").rsplit(".lora_", 1)
        layer, projection = module.rsplit(".to_", 1)
        ending = {"A.weight": "down.weight", "B.weight": "up.weight"}[factor]
        projection = projection.removesuffix(".0")
        old[f"{prefix}{layer}.{processor}to_{projection}_lora.{ending}"] = tensor
    save_file(old, tmp_path / "old.safetensors")
    found = ours(tmp_path / "old.safetensors", base, 4.0)
    assert relative(found, by_diffusers(path, base)) < 1e-6
    if prefix and not processor:  # diffusers has lost its reader of the other spellings
        assert relative(found, by_diffusers(tmp_path / "old.safetensors", base)) < 1e-6


@pytest.mark.parametrize(
    "rename",
    [
        lambda n: n.replace("base_model.model.", "base_model.model._orig_mod."),
        lambda n: "_orig_mod." + n,
        lambda n: n.replace("base_model.model.", "_orig_mod.unet."),
        lambda n: n.replace("base_model.model.", "unet._orig_mod."),
        lambda n: n.replace("base_model.model.", "module.unet."),
        lambda n: n.replace("base_model.model.", "module.base_model.model."),
    ],
)
def test_prefixes_of_compiled_and_parallel_models(
    rename: Callable[[str], str], base: UNet2DConditionModel, tmp_path: Path
) -> None:
    folder = peft_folder(tmp_path / "p", base, r=4, lora_alpha=8)
    expected = by_peft(folder, base)
    tensors = load_file(folder / "adapter_model.safetensors")
    path = tmp_path / "x.safetensors"
    save_file({rename(name): tensor for name, tensor in tensors.items()}, path)
    assert relative(ours(path, base, 8.0), expected) < 1e-6


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ("unet.conv_in.dora_scale", "belongs to DoRA"),
        ("base_model.model.conv_in.lora_magnitude_vector", "belongs to DoRA"),
        ("lora_unet_conv_in.hada_w1_a", "belongs to LoHa"),
        ("lora_unet_conv_in.lokr_w1", "belongs to LoKr"),
        ("lora_unet_conv_in.lora_mid.weight", "three factors"),
        ("base_model.model.conv_in.modules_to_save.weight", "whole trained layers"),
        ("lora_te_text_model_encoder_layers_0_mlp_fc1.alpha", "adapts the text encoder"),
        ("text_encoder.text_model.x.lora_A.weight", "adapts the text encoder"),
        ("unet.conv_in.lora_B.bias", r"conv_in\.lora_B\.bias is no LoRA key"),
    ],
)
def test_what_is_no_plain_lora_is_refused_by_name(
    extra: str, words: str, base: UNet2DConditionModel, tmp_path: Path
) -> None:
    path = diffusers_file(tmp_path, base, r=4, lora_alpha=8, target_modules=["conv_in"])
    save_file(load_file(path) | {extra: torch.ones(1)}, tmp_path / "x.safetensors")
    with pytest.raises(CheckpointError, match=rf"x\.safetensors: .*{words}") as caught:
        factors_of(tmp_path / "x.safetensors", 8.0)
    assert "\n" not in str(caught.value)


def test_peft_writes_a_dora_and_it_is_refused(
    base: UNet2DConditionModel, glesam_export: Run, tmp_path: Path
) -> None:
    folder = peft_folder(tmp_path, base, r=4, lora_alpha=8, use_dora=True, target_modules=["to_q"])
    with pytest.raises(CheckpointError, match=r"use_dora is True|belongs to DoRA"):
        factors_of(folder)
    _, out, _ = glesam_export("info", folder)
    assert "no plain LoRA" in out
