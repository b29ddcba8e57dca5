"""SAMs that transformers saves give the outputs of transformers' own models."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import Sam2Config, Sam2Model, Sam2VideoConfig, Sam2VideoModel, SamConfig, SamModel

from glesam_export.checkpoints import formats, sam
from glesam_export.families import FAMILIES, family_of
from glesam_export.presets import sam_preset
from glesam_export.weight_options import WeightOptions
from glesam_export.weights import make_checkpoint
from glesam_runtime.errors import CheckpointError

from ..released import Released

Tensors = dict[str, Tensor]

SAM = {
    "vision_config": {
        "hidden_size": 128,
        "num_hidden_layers": 6,
        "num_attention_heads": 4,
        "global_attn_indexes": [1, 3, 5],
        "window_size": 8,
        "image_size": 256,
    },
    "prompt_encoder_config": {"image_size": 256},
    # Meta's models have 1e-5 in this place; transformers' default is 1e-6.
    "mask_decoder_config": {"mlp_dim": 256, "layer_norm_eps": 1e-5},
}
SAM2 = {
    "vision_config": {
        "backbone_config": {
            "model_type": "sam2_hiera_det_model",
            "hidden_size": 32,
            "image_size": [256, 256],
            "blocks_per_stage": [1, 2, 3, 2],
            "embed_dim_per_stage": [32, 64, 128, 256],
            "window_size_per_stage": [8, 4, 6, 3],
            "global_attention_blocks": [4],
        },
        "backbone_channel_list": [256, 128, 64, 32],
        "backbone_feature_sizes": [[64, 64], [32, 32], [16, 16]],
    },
    "prompt_encoder_config": {"image_size": 256},
    "mask_decoder_config": {"mlp_dim": 256},
}
"""The sizes of nano and nano2 in the words of transformers."""

PRESETS = {"sam": "nano", "sam2": "nano2", "sam2_video": "nano2"}


@pytest.fixture(autouse=True)
def no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


def with_random_weights(model: Any) -> Any:
    """Draw weights that keep activations near 1, because transformers' are nearly zero."""
    generator = torch.Generator().manual_seed(0)
    for name, weight in model.named_parameters():
        drawn = torch.randn(weight.shape, generator=generator)
        if weight.ndim > 1 and "embed" not in name and "token" not in name:
            drawn /= weight[0].numel() ** 0.5
        elif "norm" in name and name.endswith("weight"):
            drawn = 1 + 0.1 * drawn
        weight.data.copy_(drawn)
    # Published files hold this tensor twice.
    encoding = model.shared_image_embedding.positional_embedding
    model.prompt_encoder.shared_embedding.positional_embedding.data.copy_(encoding)
    return model.eval()


@pytest.fixture(scope="module")
def models() -> dict[str, Any]:
    """Build the three models of transformers."""
    return {
        "sam": with_random_weights(SamModel(SamConfig(**SAM))),
        "sam2": with_random_weights(Sam2Model(Sam2Config(**SAM2))),
        "sam2_video": with_random_weights(Sam2VideoModel(Sam2VideoConfig(**SAM2, image_size=256))),
    }


@pytest.fixture(scope="module")
def saved(models: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Save the models with `save_pretrained`; tests must not change the folders."""
    root = tmp_path_factory.mktemp("hugging_face")
    for name, model in models.items():
        model.save_pretrained(root / name)
    return {name: root / name for name in models}


def parts(path: Path, name: str) -> tuple[Any, Any]:
    """Return our reference encoder and decoder with the weights of a file."""
    preset = sam_preset(PRESETS[name])
    state = sam.open_file(path).read()
    sam.check(state, preset, str(path))
    family = family_of(preset)
    return family.load_encoder(state, preset), family.load_decoder(state, preset)


POINTS = torch.tensor([[[60.0, 90.0], [200.0, 30.0]], [[10.0, 250.0], [128.0, 128.0]]])
LABELS = torch.tensor([[1, 0], [1, 1]])
BOXES = torch.tensor([[[20.0, 30.0, 200.0, 220.0], [100.0, 5.0, 250.0, 90.0]]])


def prompts(kind: str) -> tuple[dict[str, Tensor], tuple[Tensor, Tensor]]:
    """Return two prompts as transformers and as the bundle contract take them."""
    if kind == "box":
        coords, labels = BOXES[0].reshape(2, 2, 2), torch.tensor([[2, 3], [2, 3]])
        theirs = {"input_boxes": BOXES}
    else:
        coords, labels = POINTS, LABELS
        theirs = {"input_points": POINTS[None], "input_labels": LABELS[None]}
    padded = torch.cat([coords, torch.zeros(2, 1, 2)], 1)
    return theirs, (padded, torch.cat([labels, torch.full((2, 1), -1)], 1).float())


@pytest.mark.parametrize("kind", ["points", "box", "mask"])
@pytest.mark.parametrize("name", ["sam", "sam2"])
def test_masks_are_those_of_transformers(
    name: str, kind: str, models: dict[str, Any], saved: dict[str, Path]
) -> None:
    torch.manual_seed(0)
    model, (encoder, decoder) = models[name], parts(saved[name], name)
    pixels = torch.randn(1, 3, 256, 256)
    theirs = model.get_image_embeddings(pixels)
    ours = encoder(pixels)
    if name == "sam":
        close(ours, theirs)
        features = {"image_embeddings": theirs}
    else:
        close(ours[0], theirs[2])
        close(ours[1], theirs[0])
        close(ours[2], theirs[1])
        names = ("high_res_feats_0", "high_res_feats_1", "image_embeddings")
        features = dict(zip(names, theirs, strict=True))
        model.mask_decoder.dynamic_multimask_via_stability = False  # a rule of the runtime
    given, (coords, labels) = prompts(kind)
    mask = torch.randn(1, 1, 64, 64)
    if kind == "mask":
        given["input_masks"] = mask
    masks, iou = decoder(
        **features,
        point_coords=coords,
        point_labels=labels,
        mask_input=mask.expand(2, -1, -1, -1),
        has_mask_input=torch.tensor([float(kind == "mask")]),
    )
    outputs = [
        model(image_embeddings=theirs, multimask_output=many, **given) for many in (False, True)
    ]
    close(masks, torch.cat([each.pred_masks[0] for each in outputs], 1))
    close(iou, torch.cat([each.iou_scores[0] for each in outputs], 1))


def close(ours: Tensor, theirs: Tensor) -> None:
    assert float(theirs.std()) > 1e-2, "comparing zeros shows nothing"
    assert float((ours - theirs).norm() / theirs.norm()) < 1e-5


def test_a_video_model_gives_the_same_image_model(
    saved: dict[str, Path], models: dict[str, Any]
) -> None:
    """It has every tensor of Sam2Model under the same name."""
    image, video = models["sam2"].state_dict(), models["sam2_video"].state_dict()
    assert image.keys() < video.keys()
    state = sam.open_file(saved["sam2_video"]).read()
    used = dict(FAMILIES["sam2"].used(state))
    assert used.keys() == sam.open_file(saved["sam2"]).read().keys()
    assert formats.identify(saved["sam2_video"]).fits == ("nano2",)
    without = {n: t for n, t in state.items() if n != "no_obj_embed_spatial"}
    misfits = FAMILIES["sam2"].misfits(without, sam_preset("nano2"))
    assert misfits == ["no_obj_embed_spatial is missing, which release 2.1 has"]


@pytest.mark.parametrize("name", ["sam", "sam2"])
def test_every_tensor_of_the_file_is_used_once(name: str, saved: dict[str, Path]) -> None:
    theirs = load_file(saved[name] / "model.safetensors")
    points = theirs.pop("prompt_encoder.point_embed.weight", None)
    if points is not None:
        theirs |= {f"point{i}": row[None] for i, row in enumerate(points)}
    if name == "sam2":  # stores the positional encoding twice
        theirs.pop("shared_image_embedding.positional_embedding")
    ours = sam.open_file(saved[name]).read()
    as_bytes = [
        sorted((tuple(t.shape), t.numpy().tobytes()) for t in tensors.values())
        for tensors in (ours, theirs)
    ]
    assert as_bytes[0] == as_bytes[1]


def sharded(source: Path, target: Path, model: Any) -> Path:
    model.save_pretrained(target, max_shard_size="2MB")
    assert len([*target.glob("model-*.safetensors")]) > 1
    return target


def as_bin(source: Path, target: Path, model: Any) -> Path:
    target.mkdir()
    shutil.copyfile(source / "config.json", target / "config.json")
    torch.save(load_file(source / "model.safetensors"), target / "pytorch_model.bin")
    return target


def both_encodings(source: Path, target: Path, model: Any) -> Path:
    target.mkdir()
    tensors = load_file(source / "model.safetensors")
    tensors["prompt_encoder.shared_embedding.positional_embedding"] = tensors[
        "shared_image_embedding.positional_embedding"
    ].clone()
    save_file(tensors, target / "m.safetensors")
    return target / "m.safetensors"


def prefixed(source: Path, target: Path, model: Any) -> Path:
    target.mkdir()
    tensors = load_file(source / "model.safetensors")
    torch.save({"state_dict": {f"model.{n}": t for n, t in tensors.items()}}, target / "m.ckpt")
    return target / "m.ckpt"


Store = Callable[[Path, Path, Any], Path]


@pytest.mark.parametrize("name", ["sam", "sam2"])
@pytest.mark.parametrize(
    "store",
    [
        sharded,
        lambda *a: sharded(*a) / "model.safetensors.index.json",
        as_bin,
        both_encodings,
        prefixed,
        lambda source, target, model: source / "model.safetensors",
    ],
    ids=["shards", "index", "bin", "both encodings", "trainer", "file"],
)
def test_however_it_is_stored(
    name: str, store: Store, saved: dict[str, Path], models: dict[str, Any], tmp_path: Path
) -> None:
    path = store(saved[name], tmp_path / "m", models[name])
    found, expected = sam.open_file(path).read(), sam.open_file(saved[name]).read()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[n], expected[n]) for n in expected)
    title = {"sam": "SAM", "sam2": "SAM 2"}[name]
    assert formats.identify(path).words == f"{title} from Hugging Face, whole: {PRESETS[name]}"


@pytest.mark.parametrize("name", ["sam", "sam2"])
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda t: t.pop("mask_decoder.iou_prediction_head.proj_in.weight"),
            r"mask_decoder\.iou_prediction_head\.layers\.0\.weight is missing",
        ),
        (lambda t: t.pop("prompt_encoder.no_mask_embed.weight"), "no_mask_embed.weight is missing"),
        (lambda t: t.update({"mask_decoder.hq_token.weight": torch.ones(1, 256)}), "hq_token.* is"),
        (lambda t: t.update({"classifier.weight": torch.ones(1)}), "classifier.weight is unknown"),
        (
            lambda t: t.update(
                {"prompt_encoder.shared_embedding.positional_embedding": torch.ones(2, 128)}
            ),
            "positional_embedding differs|differs from another tensor",
        ),
        (
            lambda t: t.update({"mask_decoder.iou_token.weight": torch.ones(1, 128)}),
            r"iou_token.weight is \[1, 128\], not \[1, 256\]",
        ),
        (lambda t: t["vision_encoder.neck." + NECK[len(t) > 250]].fill_(torch.nan), "holds NaN"),
    ],
    ids=["head", "no mask", "unknown", "foreign", "encodings", "shape", "NaN"],
)
def test_a_file_that_lacks_or_adds_tensors_is_refused_by_name(
    name: str,
    change: Callable[[Tensors], object],
    words: str,
    saved: dict[str, Path],
    tmp_path: Path,
) -> None:
    tensors = load_file(saved[name] / "model.safetensors")
    change(tensors)
    save_file(tensors, tmp_path / "m.safetensors")
    with pytest.raises(CheckpointError, match=words) as caught:
        parts(tmp_path / "m.safetensors", name)
    assert "m.safetensors" in str(caught.value)
    assert "\n" not in str(caught.value)


NECK = {False: "conv1.weight", True: "convs.0.bias"}
"""A tensor of the encoder's neck, in a SAM and in the larger SAM 2."""


def with_config(source: Path, folder: Path, change: dict[str, Any]) -> Path:
    """Copy a model and change entries of its config.json, named with dots."""
    shutil.copytree(source, folder)
    config = json.loads((folder / "config.json").read_text())
    for name, value in change.items():
        *path, last = name.split(".")
        place = config
        for key in path:
            place = place[key]
        place[last] = value
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        (
            "sam",
            {"vision_config.image_size": 512},
            "of no preset; next is nano (config.json: vision_config.image_size is 512, not 256)",
        ),
        ("sam", {"vision_config.hidden_act": "relu"}, "vision_config.hidden_act is relu, not gelu"),
        ("sam", {"vision_config": []}, "vision_config.image_size is [], not 256"),
        (
            "sam2",
            {"vision_config.backbone_config.global_attention_blocks": [3]},
            "global_attention_blocks is [3], not [4]",
        ),
        (
            "sam2",
            {"vision_config.backbone_config.window_size_per_stage": None},
            "window_size_per_stage is [8, 4, 14, 7], not [8, 4, 6, 3]",
        ),
        (
            "sam2_video",
            {"mask_decoder_config.dynamic_multimask_via_stability": False},
            "dynamic_multimask_via_stability is False, not True",
        ),
    ],
)
def test_a_config_that_says_another_model(
    name: str,
    change: dict[str, Any],
    words: str,
    saved: dict[str, Path],
    released: Released,
    glesam_export: Callable[..., tuple[int, str, str]],
    tmp_path: Path,
) -> None:
    """Most of these entries change no tensor, so only config.json says them."""
    folder = with_config(saved[name], tmp_path / "m", change)
    assert words in formats.identify(folder).words
    options = released.options()
    options[1] = str(folder)
    for preset in ((), ("--preset", PRESETS[name])):
        code, _, err = glesam_export("onnx", *options, *preset, "-o", tmp_path / "b")
        assert code == 2
        assert "no preset fits it" in err
        assert words.split("config.json: ")[-1].rstrip(")") in err
        assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"model_type": "sam_hq"}', "model_type is 'sam_hq', but the tensors.* are of SAM; supp"),
        ('{"model_type": "sam2"}', "model_type is 'sam2', but"),
        ("{", "not readable JSON"),
    ],
)
def test_a_config_that_cannot_be_used(
    text: str, words: str, saved: dict[str, Path], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(saved["sam"], tmp_path / "m"))
    (folder / "config.json").write_text(text)
    with pytest.raises(CheckpointError, match=rf"config\.json: .*{words}"):
        formats.identify(folder)


@pytest.mark.parametrize(
    ("config", "name", "others"),
    [
        (SamConfig(), "sam_vit_b", ("nano", "sam_vit_h")),
        (Sam2Config(), "sam2.1_hiera_t", ("nano2", "sam2_hiera_l")),
        (Sam2VideoConfig(), "sam2.1_hiera_t", ("nano2", "sam2_hiera_b+")),
    ],
)
def test_omitted_entries_mean_what_transformers_takes(
    config: Any, name: str, others: tuple[str, ...]
) -> None:
    preset = sam_preset(name)
    rules = family_of(preset).hugging_face
    assert rules is not None
    assert config.model_type in rules.model_types
    assert rules.differences(config.to_dict(), preset) == rules.differences({}, preset) == []
    for other in map(sam_preset, others):
        found = rules.differences({}, other)
        assert rules.differences(config.to_dict(), other) == found != []


LARGE = {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "global_attn_indexes": [5, 11, 17, 23],
}
LARGE2 = {
    "model_type": "sam2_hiera_det_model",
    "hidden_size": 144,
    "num_attention_heads": 2,
    "blocks_per_stage": [2, 6, 36, 4],
    "embed_dim_per_stage": [144, 288, 576, 1152],
    "num_attention_heads_per_stage": [2, 4, 8, 16],
    "window_size_per_stage": [8, 4, 16, 8],
    "global_attention_blocks": [23, 33, 43],
}


@pytest.mark.parametrize(
    ("name", "kind", "config"),
    [
        ("sam_vit_b", SamModel, SamConfig()),
        ("sam_vit_l", SamModel, SamConfig(vision_config=LARGE)),
        ("sam2.1_hiera_t", Sam2VideoModel, Sam2VideoConfig()),
        (
            "sam2.1_hiera_l",
            Sam2VideoModel,
            Sam2VideoConfig(
                vision_config={
                    "backbone_config": LARGE2,
                    "backbone_channel_list": [1152, 576, 288, 144],
                }
            ),
        ),
    ],
)
def test_a_full_size_model_is_that_preset_alone(name: str, kind: Any, config: Any) -> None:
    with torch.device("meta"):
        state = kind(config).state_dict()
    family = family_of(sam_preset(name))
    rules = family.hugging_face
    assert rules is not None
    assert rules.unknown(state) == []
    found = rules.converted(state, "m.safetensors")
    assert [n for n, p in family.presets.items() if not family.misfits(found, p)] == [name]
    fits = [n for n, p in family.presets.items() if not rules.differences(config.to_dict(), p)]
    assert name in fits
    assert {each.split("_")[-1] for each in fits} == {name.split("_")[-1]}


@pytest.mark.parametrize("bare", [False, True])
@pytest.mark.parametrize("name", ["sam", "sam2"])
def test_a_decoder_from_transformers_is_laid_over_a_sam_of_meta(
    name: str, bare: bool, saved: dict[str, Path], tmp_path: Path
) -> None:
    """The whole SAM has Meta's names, and the decoder has transformers'."""
    whole = sam.open_file(saved[name]).read()
    part = "mask_decoder."
    decoder = {
        n.removeprefix(part) if bare else n: t + 1
        for n, t in load_file(saved[name] / "model.safetensors").items()
        if n.startswith(part)
    }
    save_file(decoder, tmp_path / "d.safetensors")
    file = sam.open_file(tmp_path / "d.safetensors")
    merged = sam.overlaid(whole, file.read(), "d")
    assert merged.keys() == whole.keys()
    for key, tensor in whole.items():
        expected = tensor + 1 if key.removeprefix("sam_").startswith(part) else tensor
        assert torch.equal(merged[key], expected), key
    if not bare:
        title = {"sam": "SAM", "sam2": "SAM 2"}[name]
        words = formats.identify(tmp_path / "d.safetensors").words
        assert words.startswith(f"part of a {title}, without image_encoder")
    with pytest.raises(CheckpointError, match="holds an image encoder"):
        sam.overlaid(whole, sam.open_file(saved[name]).read(), "d")


def test_the_command_line_takes_a_folder_and_records_its_files(
    saved: dict[str, Path],
    models: dict[str, Any],
    released2: Released,
    glesam_export: Callable[..., tuple[int, str, str]],
    tmp_path: Path,
) -> None:
    """The export stops at a missing image after it has opened the weights."""
    folder = sharded(saved["sam2"], tmp_path / "m", models["sam2"])
    code, out, _ = glesam_export("info", folder)
    assert code == 0
    assert f"{folder}: SAM 2 from Hugging Face, whole: nano2\n" in out
    options = released2.options()
    options[1] = str(folder)
    arguments = ("--image", tmp_path / "nowhere.png", "-o", tmp_path / "b")
    _, _, err = glesam_export("onnx", *options, *arguments)
    assert "nowhere.png" in err
    given = WeightOptions(
        sam=folder,
        **{key: getattr(released2, key) for key in ("sd", "prompt_embeds")},
        lora=[released2.lora],
        gamma=5.0,
        timestep=999,
        lora_alpha=8.0,
    )
    sources = make_checkpoint(given).sources()
    files = [source.file for source in sources if source.role == "sam"]
    assert files == sorted(path.name for path in folder.glob("model-*"))
    assert [s.file for s in sources if s.role == "sam_config"] == ["config.json"]
