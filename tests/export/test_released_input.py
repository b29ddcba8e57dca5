"""With `--input released` a bundle gives the masks of the released GleSAM code.

Its forward pass is written again here, from Pillow, torch, segment_anything, diffusers and peft. It
runs the user's files as they are: nothing is folded, and the adapters are not merged.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from peft import LoraConfig
from PIL import Image
from safetensors.torch import load_file, save_file
from torch.nn import functional

from glesam_evaluation.scenes import make_scene
from glesam_export import build, weights
from glesam_export.checkpoints import Checkpoint, write
from glesam_export.checkpoints.checkpoint_folder import open_folder, write_checkpoint_json
from glesam_export.checkpoints.formats import identify, open_checkpoint
from glesam_export.checkpoints.packed_file import pack
from glesam_export.checkpoints.random import RandomCheckpoint
from glesam_export.checkpoints.separate_files import WeightFiles
from glesam_export.families import family_of, with_input
from glesam_export.families.sam.reference import build_sam
from glesam_export.presets import sam_preset, unet_preset
from glesam_export.verify import cases
from glesam_export.weight_options import WeightOptions
from glesam_runtime import GleSamPredictor, InputError
from glesam_runtime.bundle import builtin_bundle_path, open_bundle
from glesam_runtime.compare import mask_iou, relative_l2
from glesam_runtime.manifest import MANIFEST_FILE, Stage, StageName
from glesam_runtime.manifest_file import dump

from ..released import Released, write_released

RANK, ALPHA = 64, 8
"""The defaults of the released trainer, whose LoRA file does not say alpha."""

SIDE = 256
TARGETS = [
    *("to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2"),
    *("conv1", "conv2", "conv_shortcut", "downsamplers.0.conv", "upsamplers.0.conv"),
    *("time_emb_proj", "conv_in", "conv_out"),
]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Released:
    """Write the built-in nano as released files, with a LoRA of rank 64 and alpha 8.

    Its product is that of nano's own LoRA, so the built-in graphs are the fold of these files.
    """
    nano = weights.make_checkpoint(WeightOptions(preset="nano"))
    released = write_released(tmp_path_factory.mktemp("released-input") / "files", nano)
    lora = {}
    for name, (a, b, alpha) in write.adapters(nano.enhancer().unet).items():
        times = RANK // len(a)
        same = b * (alpha / len(a)) / (ALPHA / RANK) / times
        lora[f"unet.{name}.lora.down.weight"] = torch.cat([a] * times).contiguous()
        lora[f"unet.{name}.lora.up.weight"] = torch.cat([same] * times, dim=1).contiguous()
    save_file(lora, released.lora)
    return released


class ReleasedCode:
    """The released demo at nano's size: its picture has 128 x 128 pixels instead of 512 x 512."""

    @torch.no_grad()
    def __init__(self, files: Released) -> None:
        nano = weights.make_checkpoint(WeightOptions(preset="nano"))
        decoder = nano.decoder()
        self.sam = build_sam(nano.encoder(), decoder.prompt_encoder, decoder.mask_decoder)
        self.sam.load_state_dict(torch.load(files.sam))
        base = UNet2DConditionModel.from_pretrained(files.sd / "unet")
        self.unet = UNet2DConditionModel.from_pretrained(
            files.sd / "unet",
            in_channels=256,
            out_channels=256,
            low_cpu_mem_usage=False,
            ignore_mismatched_sizes=True,
        )
        self.unet.requires_grad_(False)
        self.unet.conv_in.weight.copy_(base.conv_in.weight.repeat(1, 64, 1, 1))
        self.unet.conv_in.bias.copy_(base.conv_in.bias)
        self.unet.conv_out.weight.copy_(base.conv_out.weight.repeat(64, 1, 1, 1))
        self.unet.conv_out.bias.copy_(base.conv_out.bias.repeat(64))
        self.unet.add_adapter(LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=TARGETS))
        renamed = {
            name.removeprefix("unet.")
            .replace("lora.down.weight", "lora_A.default.weight")
            .replace("lora.up.weight", "lora_B.default.weight"): tensor
            for name, tensor in load_file(files.lora).items()
        }
        result = self.unet.load_state_dict(renamed, strict=False)
        assert not result.unexpected_keys
        self.text = next(iter(load_file(files.prompt_embeds).values())).reshape(1, 77, -1)
        self.gamma, self.timestep = files.gamma, files.timestep
        schedule = DDIMScheduler.from_pretrained(files.sd / "scheduler")
        self.alpha_bar = schedule.alphas_cumprod[self.timestep].double()

    @torch.no_grad()
    def encode(self, image: np.ndarray) -> torch.Tensor:
        """Return z_L of an image."""
        small = Image.fromarray(image).resize((SIDE // 2, SIDE // 2), Image.Resampling.BICUBIC)
        tensor = torch.tensor(np.array(small) / 255.0, dtype=torch.float32).permute(2, 0, 1)[None]
        large = functional.interpolate(
            tensor * 255.0, (SIDE, SIDE), mode="bilinear", align_corners=False, antialias=True
        )
        return self.sam.image_encoder(self.sam.preprocess(large))

    @torch.no_grad()
    def enhance(self, z_l: torch.Tensor) -> torch.Tensor:
        """Return z_H."""
        latent = z_l * self.gamma
        noise = self.unet(latent, torch.tensor([self.timestep]), self.text).sample.double()
        clean = (latent.double() - (1 - self.alpha_bar) ** 0.5 * noise) / self.alpha_bar**0.5
        return clean.float() / self.gamma

    @torch.no_grad()
    def masks(self, z_h: torch.Tensor, points: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """Return logits [B, 1, H, W] for points in pixels of the image, [B, N, 2]."""
        height, width = size
        in_picture = torch.tensor(points * (SIDE / 2 / np.asarray([width, height])))
        frames = in_picture.float() * (SIDE / (SIDE / 2))
        sparse, dense = self.sam.prompt_encoder((frames, torch.ones(frames.shape[:2])), None, None)
        low_res, _ = self.sam.mask_decoder(
            z_h, self.sam.prompt_encoder.get_dense_pe(), sparse, dense, multimask_output=False
        )
        stretched = functional.interpolate(low_res, size, mode="bilinear", align_corners=False)
        return stretched.numpy()


@pytest.fixture(scope="module")
def checkpoint(files: Released) -> Checkpoint:
    """Return the files as an export opens them."""
    options = WeightOptions(
        sam=files.sam,
        sd=files.sd,
        lora=[files.lora],
        lora_alpha=ALPHA,
        prompt_embeds=files.prompt_embeds,
        gamma=files.gamma,
        timestep=files.timestep,
        input="released",
    )
    return weights.make_checkpoint(options)


@pytest.fixture(scope="module")
def exported(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the built-in graphs with the manifest of an export of the files."""
    folder = tmp_path_factory.mktemp("released-bundle") / "bundle"
    shutil.copytree(builtin_bundle_path(), folder)
    own = open_bundle().manifest
    manifest = build.make_manifest(checkpoint, build.Options(), dict(own.stages), own.golden)
    (folder / MANIFEST_FILE).write_bytes(dump(manifest))
    return folder


SHAPES = {"4:3": (240, 320), "16:9": (216, 384), "tall": (500, 90), "a line": (1, 5000)}


def scene(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Return an image and three points in each of up to four objects."""
    rng = np.random.default_rng(height)
    if height < 16:
        points = np.floor(rng.uniform(size=(2, 3, 2)) * (width, height))
        return rng.integers(0, 256, (height, width, 3), dtype=np.uint8), points
    made = make_scene(4_000_000 + height, height, width)
    points = []
    for mask in made.masks[:4]:
        ys, xs = np.nonzero(mask)
        chosen = rng.integers(len(xs), size=3)
        points.append(np.stack([xs[chosen], ys[chosen]], axis=1))
    return made.image, np.asarray(points, np.float64)


def test_from_picture_to_mask_it_is_the_released_code(
    files: Released, checkpoint: Checkpoint, exported: Path
) -> None:
    code, ours = ReleasedCode(files), GleSamPredictor(exported, backend="onnxruntime")
    enhancer = checkpoint.enhancer()
    plain = GleSamPredictor(builtin_bundle_path(), backend="onnxruntime")
    own_input = []
    for size in SHAPES.values():
        image, points = scene(*size)
        ours.set_image(image)
        z_l = code.encode(image)
        z_h = code.enhance(z_l)
        assert relative_l2(ours.get_image_embedding(), z_h.numpy()) <= 1e-4
        assert relative_l2(enhancer(z_l).numpy(), z_h.numpy()) <= 1e-4
        expected = code.masks(z_h, points, size)
        prompts = {"point_coords": points, "point_labels": np.ones(points.shape[:2])}
        found, _, _ = ours.predict(**prompts, multimask_output=False, return_logits=True)
        assert found.shape == expected.shape
        assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()
        for mine, theirs in zip(found > 0, expected > 0, strict=True):
            assert mask_iou(mine, theirs) >= 0.9999
        plain.set_image(image)
        others, _, _ = plain.predict(**prompts, multimask_output=False)
        own_input += [mask_iou(m, t) for m, t in zip(others, expected > 0, strict=True)]
    assert np.mean(own_input) < 0.95, "with SAM's own input the masks would differ"


def released_nano() -> RandomCheckpoint:
    preset = with_input(sam_preset("nano"), "released")
    return RandomCheckpoint(0, preset, unet_preset("nano"), 5.0, 999)


@pytest.fixture
def built_in_stages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Export the built-in graphs instead of tracing them, and verify on the clear image only."""

    def copy(
        _: Checkpoint,
        stage: StageName,
        _precision: str,
        _batch: int,
        folder: Path,
        _more: object = (),
        **_kind: bool,
    ) -> Stage:
        made = open_bundle().manifest.stages[stage]
        shutil.copyfile(builtin_bundle_path() / made.graph.file, folder / made.graph.file)
        return made

    monkeypatch.setattr(build, "export_stage", copy)
    monkeypatch.setattr(cases, "EXTREMES", ("clear",))


@pytest.mark.usefixtures("built_in_stages")
def test_it_is_exported_recorded_and_verified(
    glesam_export: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    bundle = tmp_path / "b"
    code, _, err = glesam_export("onnx", "--preset", "nano", "--input", "released", "-o", bundle)
    assert code == 0
    assert "warning: --input released: nano's built-in checkpoint was trained with" in err
    manifest = open_bundle(bundle).manifest
    assert manifest.requires == ("released_input",)
    rules = msgspec.to_builtins(manifest.preprocessing)
    assert rules["first_resize"] == {"size": 128, "kernel": "pillow_bicubic"}
    assert (rules["resize"], rules["kernel"], rules["pad"]) == ("square", "float_bilinear", "none")
    assert manifest.postprocessing.upscale == "bilinear_direct"
    GleSamPredictor(bundle)  # `auto` checks the golden file
    code, out, err = glesam_export("verify", bundle)
    assert (code, err.count("error:")) == (0, 0)
    assert "passed" in out
    code, _, err = glesam_export("verify", bundle, "--input", "sam")
    assert code == 2
    assert "error: --input sam: the bundle was exported with released" in err
    code, _, err = glesam_export("verify", builtin_bundle_path(), "--input", "released")
    assert code == 2
    assert "error: --input released: the bundle was exported with sam" in err


def test_the_picture_of_the_released_models_has_512_pixels() -> None:
    preset = with_input(sam_preset("sam_vit_l"), "released")
    rules = msgspec.to_builtins(family_of(preset).preprocessing(preset))
    assert (rules["first_resize"]["size"], rules["image_size"]) == (512, 1024)


def test_another_input_than_that_of_the_training_is_a_warning() -> None:
    said: list[str] = []
    checkpoint = weights.make_checkpoint(WeightOptions("nano", input="released"), said.append)
    assert checkpoint.preset.input == "released"
    assert [s.startswith("--input released: nano's built-in checkpoint") for s in said] == [True]
    weights.make_checkpoint(WeightOptions("nano", input="sam"), said.append)
    assert len(said) == 1


def test_checkpoints_record_it(released: Released, tmp_path: Path) -> None:
    packed = tmp_path / "packed.safetensors"
    pack(released_nano(), packed)
    assert open_checkpoint(packed).preset.input == "released"
    assert identify(packed).words.endswith("timestep 999, input released")
    alpha = 8.0
    parts = WeightFiles(
        released.sam, released.sd, released.lora, released.prompt_embeds, None, alpha, None
    )
    for name in ("sam", "released"):
        folder = tmp_path / name
        folder.mkdir()
        write_checkpoint_json(folder, parts, "nano", "nano", 5.0, 999, name)
        assert open_folder(folder).preset.input == name
    with pytest.raises(InputError, match="nano2 has only the input 'sam'"):
        write_checkpoint_json(tmp_path, parts, "nano2", "nano", 5.0, 999, "released")


def test_info_recommends_it_for_the_released_files(
    released: Released, glesam_export: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    _, out, _ = glesam_export("info", released.sam, released.sd, released.lora)
    assert "recommended: --input released" in out
    pack(released_nano(), tmp_path / "packed.safetensors")
    _, out, _ = glesam_export("info", tmp_path / "packed.safetensors")
    assert "recommended" not in out


@pytest.mark.parametrize("given", [True, False])
def test_an_export_of_the_released_files_without_it_is_a_warning(
    given: bool,
    released: Released,
    glesam_export: Callable[..., tuple[int, str, str]],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    def stop(*_: object) -> None:
        raise InputError("stopped by the test")

    monkeypatch.setattr(build, "build_bundle", stop)
    choice = ("--input", "sam") if given else ()
    code, _, err = glesam_export("onnx", "-o", tmp_path / "b", *released.options(), *choice)
    assert code == 2
    assert ("warning: --input was not given: this bundle gets 'sam'" in err) is not given
