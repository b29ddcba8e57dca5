"""The GPU measurement runs from start to end with nano on this CPU."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from glesam_benchmark.gpu import findings, pack, page, start
from glesam_benchmark.gpu.plan import dry_plan

pytestmark = pytest.mark.gpu_dry


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> findings.Results:
    """Run the script as on a GPU machine."""
    output = tmp_path_factory.mktemp("gpu")
    command = [sys.executable, "-m", "glesam_benchmark.gpu.run", "--dry-run"]
    command += ["--output", str(output), "--seconds", "1500"]
    subprocess.run(command, check=True)
    return findings.read_results(output / "gpu.json")


def test_every_part_ends_well(results: findings.Results) -> None:
    ended = {part.name: (part.status, part.reason) for part in results.parts}
    assert ended == {part.name: ("done", "") for part in dry_plan(1).parts}
    assert results.dry_run


def test_every_bundle_passes_its_self_test(results: findings.Results) -> None:
    checks = {
        (each.model, each.precision, each.contender): each for each in results.of(findings.Check)
    }
    assert set(checks) == {
        *(("nano", precision, "onnxruntime cpu") for precision in ("fp32", "int8")),
        *(("nano2", "fp16", f"onnxruntime cpu{form}") for form in ("", ", attention nodes")),
    }
    assert all(each.passed for each in checks.values()), checks
    assert checks["nano", "fp32", "onnxruntime cpu"].mask_iou_mean > 0.9999


def test_every_step_has_a_time(results: findings.Results) -> None:
    rows = page._latest(results.of(findings.Timed), "nano")
    steps = {"encoder", "enhancer", "second_prompt", "end_to_end"}
    assert {(row.contender, row.precision, row.batch) for row in rows} == {
        ("PyTorch eager, LoRA unmerged", "fp32", 1),
        ("torch.compile max-autotune, our folded modules", "bf16", 1),
        *(("onnxruntime cpu", "fp32", batch) for batch in (1, 2)),
        ("onnxruntime cpu", "int8", 1),
    }
    for row in rows:
        assert steps <= row.seconds.keys()
        assert all(seconds > 0 for seconds in row.seconds.values())
        assert row.finite
    (rates,) = results.of(findings.Rates)
    assert set(rates.matrix) == {"bf16", "fp16", "tf32", "fp32"}
    assert {each.model for each in results.of(findings.Operations)} == {"nano", "nano2"}
    assert all(each.images_per_second > 0 for each in results.of(findings.Streams))


def test_the_page_takes_them_but_not_as_a_gpus(results: findings.Results) -> None:
    text = page.figures(results)
    assert "### nano2" in text
    assert "passed" in text
    with pytest.raises(ValueError, match="dry run"):
        page.filled(f"{page.BEGIN}{page.END}", results)


def test_pieces_make_a_whole_that_imports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `make gpu` collects, without its wheels, holds our packages and all they import."""
    pieces = tmp_path / "pieces"
    archive = tmp_path / start.ARCHIVE
    pack.write_archive(archive, [])
    found = pack.cut(archive, pieces, 5 * 10**6)
    assert len(found) > 1
    assert all(piece.stat().st_size <= 5 * 10**6 for piece in found)
    site = start.unpack(pieces)
    for path in site.rglob("*.py"):
        assert str(Path(__file__).parents[2]) not in path.read_text(errors="replace")
    program = "import glesam_benchmark.gpu.part, glesam_export.build, sam2, diffusers; " + (
        "print(glesam_export.__file__, diffusers.__file__)"
    )
    monkeypatch.setenv("PYTHONPATH", str(site))
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert all(word.startswith(str(site)) for word in ran.stdout.split())
