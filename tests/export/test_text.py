"""The embedding of the empty prompt: files, and the text encoder of a diffusers folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModel

from glesam_export.checkpoints import text_embedding
from glesam_export.checkpoints.separate_files import FileCheckpoint, WeightFiles
from glesam_export.families.sam.presets import SAM_PRESETS
from glesam_export.presets import unet_preset
from glesam_runtime.bundle import sha256_of
from glesam_runtime.errors import CheckpointError

from ..released import Released

NANO = unet_preset("nano")
WIDTH = NANO.text_dim
PAD, START, END = 0, 2, 3


@pytest.fixture(autouse=True)
def no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


def numbers(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape)


@pytest.mark.parametrize("dtype", ["<f4", ">f4", "f2", "f8", "g"])
def test_npy(dtype: str, tmp_path: Path) -> None:
    """Read every float type, in either byte order."""
    embedding = numbers(1, 77, WIDTH).astype(dtype)
    np.save(tmp_path / "c.npy", embedding)
    found = text_embedding.read(tmp_path / "c.npy", NANO)
    assert found.dtype == torch.float32
    np.testing.assert_array_equal(found.numpy(), embedding.astype(np.float32))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_safetensors(dtype: torch.dtype, tmp_path: Path) -> None:
    embedding = torch.from_numpy(numbers(1, 77, WIDTH)).to(dtype)
    save_file({"anything": embedding}, tmp_path / "c.safetensors")
    found = text_embedding.read(tmp_path / "c.safetensors", NANO)
    assert found.dtype == torch.float32
    assert torch.equal(found, embedding.float())


def holed() -> np.ndarray:
    embedding = numbers(1, 77, WIDTH)
    embedding[0, 3, 5] = np.nan
    return embedding


@pytest.mark.parametrize(
    ("embedding", "words"),
    [
        (numbers(77, WIDTH), r"shape is \[77, 64\], nano takes \[1, 77, 64\]"),
        (numbers(1, 76, WIDTH), r"shape is \[1, 76, 64\]"),
        (numbers(1, 77, 1024), r"shape is \[1, 77, 1024\]"),
        (np.float32(1), r"shape is \[\]"),
        (np.ones((1, 77, WIDTH), np.int64), "not a .npy of floats"),
        (np.ones((1, 77, WIDTH), np.complex64), "not a .npy of floats"),
        (np.asarray(["a"]), "not a .npy of floats"),
        (np.asarray([{}]), "not a .npy of numbers"),
        (holed(), "holds NaN or infinity"),
    ],
    ids=["no batch", "tokens", "width", "scalar", "int", "complex", "words", "pickle", "NaN"],
)
def test_npy_that_is_no_embedding(embedding: np.ndarray, words: str, tmp_path: Path) -> None:
    np.save(tmp_path / "c.npy", embedding, allow_pickle=True)
    with pytest.raises(CheckpointError, match=rf"--prompt-embeds .*c\.npy: .*{words}"):
        text_embedding.read(tmp_path / "c.npy", NANO)


@pytest.mark.parametrize("raw", [b"", b"\x93NUMPY", b"not numpy at all"])
def test_npy_that_is_none(raw: bytes, tmp_path: Path) -> None:
    (tmp_path / "c.npy").write_bytes(raw)
    with pytest.raises(CheckpointError, match="numbers"):
        text_embedding.read(tmp_path / "c.npy", NANO)


def test_archives_missing_files_and_integers(tmp_path: Path) -> None:
    with (tmp_path / "archive.npy").open("wb") as file:
        np.savez(file, c=numbers(1, 77, WIDTH))
    embedding = torch.ones(1, 77, WIDTH)
    save_file({"c": embedding, "d": embedding.clone()}, tmp_path / "two.safetensors")
    save_file({"c": embedding.int()}, tmp_path / "int.safetensors")
    for name, words in (
        ("archive.npy", "not a .npy of floats"),
        ("none.npy", "no such file"),
        ("none.safetensors", "no such file"),
        ("two.safetensors", "holds 2 tensors"),
        ("int.safetensors", "not a float"),
    ):
        with pytest.raises(CheckpointError, match=words):
            text_embedding.read(tmp_path / name, NANO)


def tiny_model() -> CLIPTextModel:
    torch.manual_seed(0)
    config = CLIPTextConfig(
        vocab_size=6,
        hidden_size=WIDTH,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        bos_token_id=START,
        eos_token_id=END,
        pad_token_id=PAD,
    )
    return CLIPTextModel(config).eval()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Write tokenizer and text encoder as in Stable Diffusion 2, which pads with "!"."""
    tokenizer = tmp_path / "sd" / "tokenizer"
    tokenizer.mkdir(parents=True)
    words = ["!", "!</w>", "<|startoftext|>", "<|endoftext|>", "a", "a</w>"]
    (tokenizer / "vocab.json").write_text(json.dumps({w: i for i, w in enumerate(words)}))
    (tokenizer / "merges.txt").write_text("#version: 0.2\n")
    special = {"bos_token": words[START], "eos_token": words[END], "unk_token": words[END]}
    special["pad_token"] = words[PAD]
    (tokenizer / "special_tokens_map.json").write_text(json.dumps(special))
    settings = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77, **special}
    (tokenizer / "tokenizer_config.json").write_text(json.dumps(settings))
    tiny_model().save_pretrained(tmp_path / "sd" / "text_encoder")
    return tmp_path / "sd"


def expected(model: CLIPTextModel) -> torch.Tensor:
    return model(torch.tensor([[START, END] + [PAD] * 75])).last_hidden_state


def test_the_folders_own_text_encoder_is_run_on_nothing(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    capfd.readouterr()
    found = text_embedding.encode_empty_prompt(folder, NANO)
    assert capfd.readouterr() == ("", ""), "no progress bars, no reports"
    torch.testing.assert_close(found, expected(tiny_model()))
    with pytest.raises(CheckpointError, match="64 dimensions, sd21 takes 1024"):
        text_embedding.encode_empty_prompt(folder, unet_preset("sd21"))


@pytest.mark.parametrize("name", ["model.safetensors", "model.fp16.safetensors"])
def test_a_half_precision_encoder_computes_in_float32(name: str, folder: Path) -> None:
    model = tiny_model().half()
    model.save_pretrained(folder / "text_encoder")
    (folder / "text_encoder" / "model.safetensors").rename(folder / "text_encoder" / name)
    found = text_embedding.encode_empty_prompt(folder, NANO)
    torch.testing.assert_close(found, expected(model.float()), rtol=1e-6, atol=1e-6)


def without_a_layer(folder: Path) -> None:
    path = folder / "text_encoder" / "model.safetensors"
    tensors = {k: v for k, v in load_file(path).items() if "layers.1.mlp.fc1" not in k}
    save_file(tensors, path, {"format": "pt"})


def with_a_nan(folder: Path) -> None:
    path = folder / "text_encoder" / "model.safetensors"
    tensors = load_file(path)
    next(iter(tensors.values())).view(-1)[0] = torch.nan
    save_file(tensors, path, {"format": "pt"})


def with_another_shape(folder: Path) -> None:
    path = folder / "text_encoder" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"intermediate_size": 32}))


def cut_off(folder: Path) -> None:
    path = folder / "text_encoder" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:500])


def without(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (without_a_layer, r"layers\.1\.mlp\.fc1\.bias is missing"),
        (with_a_nan, "holds NaN"),
        (with_another_shape, "cannot be loaded"),
        (cut_off, "cannot be loaded"),
        (without("text_encoder/model.safetensors"), "text_encoder/ holds none.*--prompt-embeds"),
        (without("text_encoder/config.json"), "no text encoder configuration"),
        (without("tokenizer/vocab.json"), "tokenizer/ holds none.*--prompt-embeds"),
    ],
)
def test_an_incomplete_encoder_is_never_made_up(
    spoil: Callable[[Path], None], words: str, folder: Path
) -> None:
    """Check that missing parts are errors; transformers would use random weights in their place."""
    spoil(folder)
    with pytest.raises(CheckpointError, match=words):
        text_embedding.encode_empty_prompt(folder, NANO)


def test_a_checkpoint_without_an_embedding_runs_the_encoder(
    released_copy: Released, folder: Path
) -> None:
    files = WeightFiles(released_copy.sam, released_copy.sd, released_copy.lora, lora_alpha=8.0)
    with pytest.raises(CheckpointError, match="tokenizer/"):
        FileCheckpoint(files, SAM_PRESETS["nano"], NANO, 5.0, 999)
    for part in ("tokenizer", "text_encoder"):
        (folder / part).rename(released_copy.sd / part)
    checkpoint = FileCheckpoint(files, SAM_PRESETS["nano"], NANO, 5.0, 999)
    torch.testing.assert_close(checkpoint.enhancer().text, expected(tiny_model()))
    source = checkpoint.sources()[-1]
    path = released_copy.sd / "text_encoder" / "model.safetensors"
    assert (source.role, source.sha256) == ("text_encoder", sha256_of(path))
