"""A resumed training is the one that was saved: what changes its result cannot be exchanged."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from PIL import Image
from safetensors.torch import load_file, save_file

from glesam_evaluation.datasets import open_dataset
from glesam_export.checkpoints.random import RandomCheckpoint
from glesam_export.presets import sam_preset, unet_preset
from glesam_runtime.console import exit_code_of
from glesam_runtime.errors import InputError
from glesam_training.cli import app
from glesam_training.examples import ExampleOptions
from glesam_training.nano import steps
from glesam_training.nano.recipe import QUICK
from glesam_training.nano.scenes import Varied, store_scenes
from glesam_training.saved_state import STATE_FILE
from glesam_training.settings import TrainingSettings
from glesam_training.train import Job, train_decoder, train_enhancer
from glesam_training.trained_checkpoint import TrainedCheckpoint
from glesam_training.training_record import checkpoint_record, data_fingerprint

from ..export.conftest import random_nano
from ..released import Released, write_released

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def train(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run `glesam-train` in this process: exit code and stderr."""

    def run(*arguments: object) -> tuple[int, str]:
        capsys.readouterr()
        code = exit_code_of(app, "glesam-train", [str(argument) for argument in arguments])
        return code, capsys.readouterr().err

    return run


def write_pictures(folder: Path, count: int = 2, right: int = 50) -> Path:
    folder.mkdir()
    for number in range(count):
        Image.fromarray(np.full((40, 60, 3), 120, np.uint8)).save(folder / f"{number}.png")
        mask = np.zeros((40, 60), np.uint8)
        mask[10:30, 20:right] = 255
        Image.fromarray(mask).save(folder / f"{number}_mask.png")
    return folder


class Saved:
    """A folder with the state of a training of two steps, and the command that made it."""

    def __init__(self, home: Path) -> None:
        self.home, self.run = home, home / "run"
        self.files: Released = write_released(home / "files", random_nano(0, 0.5, 1))
        self.data = write_pictures(home / "data")

    def command(self, **others: object) -> list[object]:
        """Return the command with other values; None leaves an option out."""
        given: dict[str, object] = {
            "data": self.data,
            "output": self.run,
            "preset": "nano",
            "sam": self.files.sam,
            "sd": self.files.sd,
            "prompt_embeds": self.files.prompt_embeds,
            "gamma": 0.5,
            "timestep": 1,
            "iterations": 2,
            "batch": 2,
            "workers": 0,
            "masks": 2,
            "levels": "1,2,3",
        } | others
        words: list[object] = ["enhancer", given.pop("data")]
        for name, value in given.items():
            if value is not None:
                words += [f"--{name.replace('_', '-')}", value]
        return words


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Saved:
    made = Saved(tmp_path_factory.mktemp("saved"))
    assert exit_code_of(app, "glesam-train", [str(word) for word in made.command()]) == 0
    return made


@pytest.fixture
def saved(made: Saved, tmp_path: Path) -> Saved:
    """The same in a folder of its own, so that a resume changes no other test's."""
    own = object.__new__(Saved)
    own.__dict__ = made.__dict__ | {"home": tmp_path, "run": tmp_path / "run"}
    shutil.copytree(made.run, own.run)
    return own


def refused(result: tuple[int, str], *words: str) -> None:
    code, err = result
    assert code == 2, err
    (line,) = [line for line in err.splitlines() if line.startswith("error: ")]
    assert "Traceback" not in err
    for word in words:
        assert word in line


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("gamma", 0.25, "--gamma 0.5, not 0.25"),
        ("timestep", 2, "--timestep 1 (alpha_bar 0.998296), not 2 (alpha_bar 0.997438)"),
        ("levels", "3,2,1", "--levels 1,2,3, not 3,2,1"),
        ("levels", "1,2", "--levels 1,2,3, not 1,2"),
        ("masks", 3, "--masks 2, not 3"),
        ("mask_loss", 0.5, "--mask-loss 0.0, not 0.5"),
        ("seed", 1, "--seed 0, not 1"),
        ("rank", 4, "--rank 8, not 4"),
        ("alpha", 4, "--alpha as --rank, not 4"),
        ("lr", 0.5, "--lr 0.0001, not 0.5"),
        ("warmup", 5, "--warmup 0, not 5"),
        ("loss_weights", "1:1", "--loss-weights 1:20, not 1:1"),
        ("input", "released", "--input sam, not released"),
        ("recipe", "released", "--recipe paper, not released"),
        ("batch", 1, "--batch 2, not 1"),
        ("mixed_precision", "bf16", "--mixed-precision no, not bf16"),
        ("iterations", 1, "has done 2 iterations already, more than --iterations 1"),
        ("data", "scenes:2", "DATA a folder of 2 images"),
    ],
)
def test_another_option(option: str, value: object, words: str, train: Run, saved: Saved) -> None:
    before = (saved.run / STATE_FILE).read_bytes()
    result = train(*saved.command(**{option: value}))
    refused(result, str(saved.run / STATE_FILE), words, "remove it to start again")
    if option not in ("iterations", "data"):
        named = result[1].split("was saved with ")[1].split("; resume with")[0]
        assert named == words, "it names this option alone"
    assert (saved.run / STATE_FILE).read_bytes() == before
    AcceleratorState._reset_state(reset_partial_state=True)
    assert train(*saved.command())[0] == 0, "the saved training can still be resumed"


def test_every_option_that_differs_is_named(train: Run, saved: Saved) -> None:
    result = train(*saved.command(gamma=0.25, masks=1, lr=0.5))
    refused(result, "--gamma 0.5, not 0.25", "--masks 2, not 1", "--lr 0.0001, not 0.5")


def test_latents_are_not_encoded_for_another_training(train: Run, saved: Saved) -> None:
    latents = saved.home / "latents"
    result = train(*saved.command(keep_latents=latents, gamma=0.25))
    refused(result, "--gamma", "--keep-latents no, not yes")
    assert not latents.exists()


def changed_sam(saved: Saved) -> dict[str, object]:
    state = torch.load(saved.files.sam)
    state["mask_decoder.iou_token.weight"] += 1
    torch.save(state, saved.home / "other.pth")
    return {"sam": saved.home / "other.pth"}


def changed_base(saved: Saved) -> dict[str, object]:
    folder = shutil.copytree(saved.files.sd, saved.home / "other-sd")
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(path)
    tensors["conv_in.bias"] = tensors["conv_in.bias"] + 1
    save_file(tensors, path)
    return {"sd": folder}


def changed_text(saved: Saved) -> dict[str, object]:
    tensors = {name: tensor + 1 for name, tensor in load_file(saved.files.prompt_embeds).items()}
    save_file(tensors, saved.home / "other.safetensors")
    return {"prompt_embeds": saved.home / "other.safetensors"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (changed_sam, ["--sam", "other.pth (sha256 "]),
        (changed_base, ["--sd diffusion_pytorch_model.safetensors (sha256 "]),
        (changed_text, ["--prompt-embeds", "other.safetensors (sha256 "]),
        (
            lambda saved: {"lora": saved.files.lora, "lora_alpha": 8},
            ["--lora a new LoRA, not", "sha256"],
        ),
    ],
)
def test_another_base_file(
    change: Callable[[Saved], dict[str, object]], words: list[str], train: Run, saved: Saved
) -> None:
    refused(train(*saved.command(**change(saved))), *words)


def test_another_alpha(train: Run, saved: Saved) -> None:
    """A released LoRA says no alpha, so its file is the same with each."""
    given = {"lora": saved.files.lora, "output": saved.home / "from-lora"}
    code, err = train(*saved.command(**given, lora_alpha=8))
    assert code == 0, err
    AcceleratorState._reset_state(reset_partial_state=True)
    refused(train(*saved.command(**given, lora_alpha=16)), "--lora-alpha 8, not 16")


@pytest.mark.parametrize("change", ["one more", "another mask", "another name", "a COCO file"])
def test_other_data(change: str, train: Run, saved: Saved) -> None:
    folder = saved.home / "other"
    if change == "one more":
        write_pictures(folder, count=3)
    elif change == "another mask":
        write_pictures(folder, right=59)
    else:
        write_pictures(folder)
    data: Path = folder
    if change == "another name":
        for ending in (".png", "_mask.png"):
            (folder / f"1{ending}").rename(folder / f"2{ending}")
    if change == "a COCO file":
        data = write_coco(folder, [[20, 10, 50, 10, 50, 30, 20, 30]])
    refused(train(*saved.command(data=data)), "DATA a folder of 2 images", "not a")


def write_coco(folder: Path, polygons: list[list[float]]) -> Path:
    images = [{"id": n, "height": 40, "width": 60, "file_name": f"{n}.png"} for n in range(2)]
    objects = [{"image_id": n, "segmentation": polygons} for n in range(2)]
    path = folder / "instances.json"
    path.write_text(json.dumps({"images": images, "annotations": objects}))
    return path


@pytest.mark.parametrize(
    "others",
    [
        {},
        {"gamma": "5e-1"},
        {"levels": " 1, 2,3 "},
        {"workers": 1, "save_every": 1},
        {"lr": "1e-4", "seed": "00"},
        {"mask_loss": 0},
        {"rank": 8},
        {"alpha": "8.0"},
        {"loss_weights": "1.0:2e1", "warmup": 0},
    ],
)
def test_the_same_training_in_other_words(
    others: dict[str, object], train: Run, saved: Saved
) -> None:
    code, err = train(*saved.command(**others))
    assert code == 0, err
    assert "warning" not in err


def test_the_same_files_under_other_names(train: Run, saved: Saved) -> None:
    others = {
        "data": shutil.copytree(saved.data, saved.home / "moved-data"),
        "sd": shutil.copytree(saved.files.sd, saved.home / "moved-sd"),
        "sam": shutil.copy(saved.files.sam, saved.home / "renamed.pth"),
        "output": saved.run.rename(saved.home / "moved-run"),
    }
    code, err = train(*saved.command(**others))
    assert code == 0, err


def test_more_iterations(train: Run, saved: Saved) -> None:
    """Two steps and two more are the training of four steps."""
    assert train(*saved.command(iterations=4))[0] == 0
    assert train(*saved.command(iterations=4, output=saved.home / "whole"))[0] == 0
    lora = "pytorch_lora_weights.safetensors"
    halves, whole = (load_file(folder / lora) for folder in (saved.run, saved.home / "whole"))
    assert halves.keys() == whole.keys()
    assert all(torch.equal(halves[name], whole[name]) for name in whole)


def test_the_other_stage(train: Run, saved: Saved) -> None:
    given = saved.command(lora=saved.files.lora, lora_alpha=8)[1:]
    refused(train("decoder", *given, "--all"), "stage enhancer, not decoder")


NEW = ("--warmup", "--recipe", "--input", "--loss-weights", "--alpha")
"""Facts that states of the version before do not record, or record under another name."""


def test_a_state_from_before_there_were_these_options(train: Run, saved: Saved) -> None:
    state = torch.load(saved.run / STATE_FILE, weights_only=True)
    for name in NEW:
        del state["made_of"][name]
    state["made_of"]["warmup"] = [0, "0"]
    torch.save(state, saved.run / STATE_FILE)
    refused(train(*saved.command(loss_weights="1:1")), "--loss-weights 1:20, not 1:1;")
    refused(train(*saved.command(warmup=3)), "--warmup 0, not 3;")
    code, err = train(*saved.command())
    assert code == 0, err


def test_a_prediction_type_that_the_base_does_not_have(train: Run, saved: Saved) -> None:
    sd = shutil.copytree(saved.files.sd, saved.home / "v")
    scheduler = sd / "scheduler" / "scheduler_config.json"
    schedule = json.loads(scheduler.read_text()) | {"prediction_type": "v_prediction"}
    scheduler.write_text(json.dumps(schedule))
    given = {"sd": sd, "prediction_type": "epsilon"}
    words = "--prediction-type epsilon, not epsilon instead of v_prediction;"
    refused(train(*saved.command(**given)), words)


def make_old(saved: Saved) -> None:
    """Turn the state into one of the version that recorded the loop's settings alone."""
    state = torch.load(saved.run / STATE_FILE, weights_only=True)
    del state["made_of"]
    state["plan"] = vars(TrainingSettings(iterations=2, batch=2, workers=0))
    torch.save(state, saved.run / STATE_FILE)


def test_a_state_of_an_earlier_version(train: Run, saved: Saved) -> None:
    make_old(saved)
    refused(train(*saved.command(lr=0.5)), "--lr 0.0001, not 0.5")
    code, err = train(*saved.command(iterations=3))
    assert code == 0
    (line,) = [line for line in err.splitlines() if line.startswith("warning: ")]
    for name in ("DATA", "--gamma", "--timestep", "--levels", "--mask-loss", "--sam", "--sd"):
        assert name in line
    code, err = train(*saved.command(iterations=3))
    assert "warning" not in err, "the state was saved again, with everything"
    refused(train(*saved.command(iterations=3, gamma=0.25)), "--gamma 0.5, not 0.25")


@pytest.mark.parametrize("record", [None, [], {"--gamma": 5}, {"--gamma": [5]}, {"--gamma": "ab"}])
def test_a_damaged_record(record: object, train: Run, saved: Saved) -> None:
    state = torch.load(saved.run / STATE_FILE, weights_only=True)
    torch.save(state | {"made_of": record}, saved.run / STATE_FILE)
    refused(train(*saved.command()), str(saved.run / STATE_FILE), "remove it to start again")


def test_an_output_that_is_the_start(train: Run, saved: Saved) -> None:
    """Every saved state would overwrite what a resume must find again."""
    before = sorted(path.name for path in saved.run.iterdir())
    own = ["--checkpoint", saved.run, "-o", saved.run]
    refused(train("enhancer", "scenes:2", *own), "would overwrite --checkpoint", "another folder")
    refused(train("decoder", "scenes:2", *own, "--all"), "would overwrite --checkpoint")
    lora = saved.run / "pytorch_lora_weights.safetensors"
    refused(train(*saved.command(lora=lora)), "would overwrite --lora")
    assert sorted(path.name for path in saved.run.iterdir()) == before


# Stages and steps that no option of the command line reaches.


def job(folder: Path, **given: object) -> Job:
    settings = TrainingSettings(**{"iterations": 1, "batch": 1, "workers": 0} | given)
    return Job(open_dataset("scenes:2"), settings, ExampleOptions(masks=1), folder)


def nano(seed: int = 0) -> RandomCheckpoint:
    return RandomCheckpoint(seed, sam_preset("nano"), unet_preset("nano"), 0.5, 1)


def test_what_a_decoder_is_trained_on(tmp_path: Path) -> None:
    learn = job(tmp_path)
    start = TrainedCheckpoint(nano(), nano(1).enhancer())
    train_decoder(start, learn, "tokens")
    train_decoder(TrainedCheckpoint(nano(), nano(1).enhancer()), learn, "tokens")
    for other, words in (
        (TrainedCheckpoint(nano(), nano(2).enhancer()), "weights of the trained enhancer sha256"),
        (TrainedCheckpoint(nano(), None, nano(1).decoder()), "weights of the decoder unset, not"),
        (TrainedCheckpoint(nano(3), nano(1).enhancer()), "--random-weights random, seed 0, not"),
    ):
        with pytest.raises(InputError, match=words):
            train_decoder(other, learn, "tokens")
    with pytest.raises(InputError, match="trained part tokens, not all"):
        train_decoder(start, learn, "all")
    with pytest.raises(InputError, match="--no-enhance False, not True"):
        train_decoder(start, learn, "tokens", enhance=False)
    with pytest.raises(InputError, match=r"alpha of the focal loss 0\.25, not 0\.5"):
        train_decoder(start, replace(learn, focal_alpha=0.5), "tokens")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"jitter": 0.1}, r"jitter of boxes 0\.2, not 0\.1"),
        ({"far": 0.5}, r"share of far points 0\.0, not 0\.5"),
        ({"variants": 2}, "degraded versions per image none, not 2"),
        ({"low_seed": 7}, "seed of the degradations as --seed, not 7"),
        ({"seed": 7, "low_seed": 0}, "seed of the examples as --seed, not 7"),
    ],
)
def test_other_examples(options: dict[str, float], words: str, tmp_path: Path) -> None:
    learn = job(tmp_path)
    train_enhancer(nano(), learn)
    train_enhancer(nano(), replace(learn, examples=ExampleOptions(masks=1, low_seed=0)))
    with pytest.raises(InputError, match=words):
        train_enhancer(nano(), replace(learn, examples=ExampleOptions(masks=1, **options)))


def test_precision_that_the_device_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The device may change, and with it what "auto" becomes; a precision by name may not."""
    train_enhancer(nano(), job(tmp_path))
    monkeypatch.setattr("glesam_training.settings._gains_from_bfloat16", lambda _: False)
    train_enhancer(nano(), job(tmp_path, mixed_precision="auto"))
    monkeypatch.setattr("glesam_training.settings._gains_from_bfloat16", lambda _: True)
    AcceleratorState._reset_state(reset_partial_state=True)
    with pytest.raises(InputError, match="--mixed-precision no, not auto"):
        train_enhancer(nano(), job(tmp_path, mixed_precision="auto"))


def test_steps_of_nano(tmp_path: Path) -> None:
    scenes = store_scenes(tmp_path, 2, 40, 256)
    settings = replace(QUICK.base, iterations=1, batch=2)
    done: list[str] = []

    def make(crop: int = 64, count: int = 2, **others: object) -> None:
        (tmp_path / "sd" / "scheduler" / "scheduler_config.json").unlink(missing_ok=True)
        steps.make_base(
            *(tmp_path, scenes.first_pictures(count), replace(settings, **others), crop),
            lambda step, *_: done.append(step),
        )

    make()
    make()
    assert done == ["base U-Net"], "the second call found it trained"
    with pytest.raises(InputError, match="crop 64, not 128"):
        make(crop=128)
    with pytest.raises(InputError, match="DATA scenes:2@40, not scenes:1@40"):
        make(count=1)
    with pytest.raises(InputError, match="--seed 0, not 1"):
        make(seed=1)
    with pytest.raises(InputError, match="--iterations 1, not 2"):
        make(iterations=2)


def test_fingerprints(tmp_path: Path) -> None:
    def of(spec: object) -> str:
        return data_fingerprint(open_dataset(str(spec)))

    assert of("scenes:3") == of("scenes:3@0") == "scenes:3@0"
    assert of("scenes:3@1") == "scenes:3@1"
    one = write_coco(write_pictures(tmp_path / "one"), [[20, 10, 50, 10, 50, 30, 20, 30]])
    shutil.copytree(tmp_path / "one", tmp_path / "moved")
    assert of(one) == of(tmp_path / "moved" / "instances.json")
    other = write_coco(write_pictures(tmp_path / "other"), [[20, 10, 51, 10, 51, 30, 20, 30]])
    assert of(one) != of(other), "the same images with other objects, such as LVIS's"
    stored = store_scenes(tmp_path, 2, 40, 256)
    varied = {
        data_fingerprint(Varied(stored, copies, seed)) for copies in (1, 2) for seed in (0, 1)
    }
    assert len(varied) == 4

    class Plain:
        names = ("a", "b")

        def __len__(self) -> int:
            return 2

    assert data_fingerprint(Plain()).startswith("2 samples, names ")  # type: ignore[arg-type]


def test_a_file_is_hashed_once(saved: Saved, monkeypatch: pytest.MonkeyPatch) -> None:
    from glesam_export.checkpoints import state_checkpoint
    from glesam_export.checkpoints.packed_file import PackedCheckpoint, pack

    path = saved.home / "packed.safetensors"
    pack(nano(), path)
    hashed: list[Path] = []
    real = state_checkpoint.sha256_of
    monkeypatch.setattr(
        state_checkpoint, "sha256_of", lambda path: hashed.append(path) or real(path)
    )
    records = [checkpoint_record(PackedCheckpoint(path), saved.run) for _ in range(2)]
    assert records[0] == records[1]
    assert hashed == [path]
    pack(nano(1), path)
    assert checkpoint_record(PackedCheckpoint(path), saved.run) != records[0]
    assert hashed == [path, path], "replaced, and hashed again"
