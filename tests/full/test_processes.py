"""A training by several processes gives the weights of one process with the same batch.

The processes run on the CPU, through torch's gloo, in the way of `accelerate launch`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import glesam_export

pytestmark = pytest.mark.full

NANO = Path(glesam_export.__file__).parent / "nano.safetensors"
"""What `--preset nano` starts from, in the format of the result."""


def write_pictures(folder: Path) -> Path:
    folder.mkdir()
    for number, (left, top) in enumerate([(5, 5), (30, 8), (12, 20), (25, 25)]):
        rng = np.random.default_rng(number)
        Image.fromarray(rng.integers(0, 255, (48, 64, 3), np.uint8)).save(folder / f"{number}.png")
        mask = np.zeros((48, 64), np.uint8)
        mask[top : top + 20, left : left + 25] = 255
        Image.fromarray(mask).save(folder / f"{number}_mask.png")
    return folder


def train(
    data: Path, out: Path, processes: int, *words: str
) -> tuple[dict[str, torch.Tensor], str]:
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    command = [sys.executable, *(torchrun if processes > 1 else []), "-m", "glesam_training"]
    options = ["--preset", "nano", "--iterations", "3", "--batch", "2", "--workers", "0"]
    done = subprocess.run(
        [*command, *words, str(data), "-o", str(out), *options],
        env=os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    return load_file(out / "checkpoint.safetensors"), done.stdout


@pytest.mark.parametrize("words", [("decoder", "--all"), ("decoder", "--tokens"), ("enhancer",)])
def test_two_processes_train_as_one(words: tuple[str, ...], tmp_path: Path) -> None:
    data = write_pictures(tmp_path / "data")
    one, _ = train(data, tmp_path / "one", 1, *words)
    two, printed = train(data, tmp_path / "two", 2, *words)
    assert printed.count("wrote") == 1
    start = load_file(NANO)
    assert one.keys() == two.keys() == start.keys()
    moved, apart = 0.0, 0.0
    for name, tensor in start.items():
        moved += float((one[name].double() - tensor.double()).square().sum())
        apart += float((one[name].double() - two[name].double()).square().sum())
    # AdamW divides by the gradient's size, so where that is small, rounding moves a weight.
    assert moved > 0
    assert (apart / moved) ** 0.5 < 0.1
