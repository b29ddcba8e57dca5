"""A resumed training gives the same result as one that was not interrupted."""

from __future__ import annotations

import itertools
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader

from glesam_evaluation.datasets import open_dataset
from glesam_export.presets import sam_preset
from glesam_runtime.errors import InputError
from glesam_training.examples import ExampleOptions, Examples, with_prompts
from glesam_training.loop import Objective, run_training, worker_settings
from glesam_training.saved_state import STATE_FILE
from glesam_training.settings import TrainingSettings
from glesam_training.worker_errors import ErrorsAsItems, raise_errors

SETTINGS = TrainingSettings(
    iterations=12, batch=2, lr=0.05, warmup=3, decay=True, workers=0, log_every=5
)


class Numbers(torch.utils.data.Dataset[dict[str, Tensor]]):
    def __len__(self) -> int:
        return 1000

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(index)
        x = torch.randn(3, generator=generator)
        return {"x": x, "y": x.sum(0, keepdim=True)}


class Line(Objective):
    """An objective that learns to add three numbers."""

    def __init__(self, stop_at: int | None = None, poison_at: int | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(3, 1)
        self.frozen = nn.Linear(3, 1).requires_grad_(False)
        self.stop_at, self.poison_at, self.calls = stop_at, poison_at, 0

    def trained(self) -> nn.Module:
        return self

    def forward(self, batch: dict[str, Tensor], progress: float) -> dict[str, Tensor]:
        self.calls += 1
        if self.calls == self.stop_at:
            # Call the handler only: TensorRT-RTX, loaded next to OpenVINO, crashes on the signal.
            handler = signal.getsignal(signal.SIGINT)
            assert callable(handler)
            handler(signal.SIGINT, None)
        loss = (self.layer(batch["x"]) - batch["y"]).square().mean()
        if self.calls == self.poison_at:
            loss = loss * float("nan")
        return {"loss": loss}


def train(
    line: Line, folder: Path, settings: TrainingSettings = SETTINGS
) -> tuple[Tensor, list[tuple[int, float]]]:
    reports: list[tuple[int, float]] = []
    run_training(
        line, Numbers(), settings, folder, lambda n, _, losses: reports.append((n, losses["loss"]))
    )
    return line.layer.weight.detach().clone(), reports


def test_it_learns_and_reports(tmp_path: Path) -> None:
    _, reports = train(Line(), tmp_path, replace(SETTINGS, iterations=200))
    assert [n for n, _ in reports] == list(range(5, 201, 5))
    assert reports[-1][1] < 0.01 * reports[0][1]
    assert list(tmp_path.rglob("events.out.tfevents.*")), "TensorBoard logs"


def test_interrupted_and_taken_up_again_is_the_same_training(tmp_path: Path) -> None:
    whole, _ = train(Line(), tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(Line(stop_at=5), tmp_path / "halves")
    second = Line()
    halves, reports = train(second, tmp_path / "halves")
    assert second.calls == SETTINGS.iterations - 5
    assert torch.equal(whole, halves)
    assert [n for n, _ in reports] == [10, 12]


def test_finished_training_is_left_as_it_is(tmp_path: Path) -> None:
    first, _ = train(Line(), tmp_path)
    again = Line()
    assert torch.equal(train(again, tmp_path)[0], first)
    assert again.calls == 0


def test_only_what_changes_is_saved(tmp_path: Path) -> None:
    train(Line(), tmp_path)
    state = torch.load(tmp_path / STATE_FILE, weights_only=True)
    assert set(state["model"]) == {"layer.weight", "layer.bias"}


def test_other_settings(tmp_path: Path) -> None:
    train(Line(), tmp_path)
    with pytest.raises(InputError, match=r"was saved with --lr 0\.05, not 1\.0"):
        train(Line(), tmp_path, replace(SETTINGS, lr=1.0))


def test_another_model(tmp_path: Path) -> None:
    train(Line(), tmp_path)
    other = Line()
    other.layer = nn.Linear(3, 1, bias=False)
    with pytest.raises(InputError, match="belongs to another model"):
        train(other, tmp_path)


@pytest.mark.parametrize("content", [b"", b"no state", b"PK\x03\x04"])
def test_a_damaged_state(content: bytes, tmp_path: Path) -> None:
    (tmp_path / STATE_FILE).write_bytes(content)
    with pytest.raises(InputError, match="not a saved training state; remove it"):
        train(Line(), tmp_path)


def test_a_loss_that_is_no_number(tmp_path: Path) -> None:
    settings = replace(SETTINGS, save_every=2)
    with pytest.raises(InputError, match=r"NaN or infinite at iteration 4.*lower --lr"):
        train(Line(poison_at=5), tmp_path, settings)
    assert torch.load(tmp_path / STATE_FILE, weights_only=True)["iteration"] == 4


def test_nothing_to_train(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nothing to train"):
        train(Line().requires_grad_(False), tmp_path)


def test_learning_rate() -> None:
    rates = [SETTINGS.lr_at(i) for i in range(SETTINGS.iterations)]
    assert rates[0] == pytest.approx(0.05 / 4)
    assert max(rates) == rates[3] == pytest.approx(0.05)
    assert all(later < earlier for earlier, later in itertools.pairwise(rates[3:]))
    constant = replace(SETTINGS, decay=False, warmup=0)
    assert {constant.lr_at(i) for i in range(12)} == {0.05}


def unreadable(folder: Path) -> Examples:
    """Examples of a folder whose image is gone; a worker can import them, unlike a test's class."""
    for name in ("images", "masks"):
        (folder / name).mkdir()
        Image.new("L", (40, 30), "white").save(folder / name / "a.png")
    examples = Examples(open_dataset(str(folder)), sam_preset("nano"), 24, ExampleOptions())
    (folder / "images/a.png").unlink()
    return examples


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_in_a_worker_keeps_its_one_line(tmp_path: Path, workers: int) -> None:
    examples, settings = unreadable(tmp_path), replace(SETTINGS, workers=workers)
    with pytest.raises(InputError) as raised:
        run_training(
            Line(), examples, settings, tmp_path / "out", lambda *_: None, collate=with_prompts
        )
    assert str(raised.value) == f"{tmp_path}/images/a.png: no such file"


def test_an_error_of_a_worker_that_stores_latents_keeps_its_one_line(tmp_path: Path) -> None:
    loader = DataLoader(ErrorsAsItems(unreadable(tmp_path)), batch_size=None, **worker_settings(1))
    with pytest.raises(InputError) as raised:
        next(iter(raise_errors(loader)))
    assert str(raised.value) == f"{tmp_path}/images/a.png: no such file"


def test_a_constant_schedule_may_be_longer(tmp_path: Path) -> None:
    """Not if the learning rate falls, or if the losses depend on how far the training is."""
    constant = replace(SETTINGS, decay=False)
    train(Line(), tmp_path / "constant", constant)
    longer, _ = train(Line(), tmp_path / "constant", replace(constant, iterations=20))
    whole, _ = train(Line(), tmp_path / "whole", replace(constant, iterations=20))
    assert torch.equal(longer, whole)
    with pytest.raises(InputError, match="has done 20 iterations already"):
        train(Line(), tmp_path / "constant", constant)

    train(Line(), tmp_path / "falling")
    with pytest.raises(InputError, match="--iterations 12, not 20"):
        train(Line(), tmp_path / "falling", replace(SETTINGS, iterations=20))
    aware = Line()
    aware.uses_progress = True
    train(aware, tmp_path / "aware", constant)
    with pytest.raises(InputError, match="--iterations 12, not 20"):
        train(aware, tmp_path / "aware", replace(constant, iterations=20))
