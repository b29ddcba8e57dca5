"""The run on a GPU: its plan, its time limits, its JSON, and the page made from it."""

from __future__ import annotations

import sys
import textwrap
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from glesam_benchmark.gpu import findings, pack, page, run, start
from glesam_benchmark.gpu.findings import Check, Operations, Rates, Record, Remark, Timed
from glesam_benchmark.gpu.plan import CountOperations, Part, Plan, dry_plan, full_plan
from glesam_benchmark.gpu.run import Runner, main

PAGE = Path(__file__).parents[2] / "docs" / "gpu.md"
TASK = CountOperations(())


def make_runner(tmp_path: Path, scripts: dict[str, str], plan: Plan) -> Runner:
    """Return a runner whose parts are Python scripts that know `say(text)` and `path`."""
    head = """
        import sys, time, os, pathlib, subprocess
        path = pathlib.Path(sys.argv[1])
        def say(text):
            with path.open("a") as file:
                file.write('{"type":"remark","about":"a","text":"%s"}\\n' % text)
    """

    def command(part: Part, found: Path) -> Sequence[str]:
        script = textwrap.dedent(head) + textwrap.dedent(scripts[part.name])
        return [sys.executable, "-S", "-c", script, str(found)]

    return Runner(plan, tmp_path / "out", command, "a test")


def make_plan(*parts: Part, seconds: float = 60.0) -> Plan:
    return Plan(parts, "cpu", 1, seconds, preparing=1, threads=1)


def texts(record: Record) -> list[str]:
    return [found.text for found in record.findings if isinstance(found, Remark)]


@pytest.mark.parametrize("plan", [full_plan(450), dry_plan(450)], ids=["full", "dry"])
def test_every_need_is_a_part_that_prepares(plan: Plan) -> None:
    lanes = {part.name: part.lane for part in plan.parts}
    assert len(lanes) == len(plan.parts)
    for part in plan.parts:
        assert part.limit > 0
        for need in part.needs:
            assert lanes[need] == "cpu", f"{part.name} would wait for a measurement"


def test_what_is_worth_most_is_not_cut_off() -> None:
    """What the issue's first target compares comes before everything of other models."""
    names = [part.name for part in full_plan(450).parts if part.lane == "gpu"]
    first = ("device", "sam_vit_b fp16 onnxruntime", "PyTorch compile bf16")
    assert max(map(names.index, first)) < names.index("sam_vit_h fp16 onnxruntime")
    assert max(map(names.index, first)) < 6


def test_a_part_that_hangs_or_crashes_costs_only_itself(tmp_path: Path) -> None:
    scripts = {
        "crashes": "say('before'); os.kill(os.getpid(), 9)",
        "hangs": """
            say('before')
            child = subprocess.Popen([sys.executable, '-S', '-c', 'import time; time.sleep(60)'])
            say(str(child.pid))
            time.sleep(60)
        """,
        "fails": "say('one'); sys.exit('no such kernel')",
        "works": "say('measured')",
        "after hangs": "say('never')",
        "after works": "say('too')",
    }
    plan = make_plan(
        Part("crashes", "gpu", 20, TASK),
        Part("hangs", "gpu", 1.5, TASK),
        Part("fails", "gpu", 20, TASK),
        Part("works", "gpu", 20, TASK),
        Part("after hangs", "gpu", 20, TASK, ("hangs",)),
        Part("after works", "gpu", 20, TASK, ("works",)),
    )
    found = {each.name: each for each in make_runner(tmp_path, scripts, plan).run().parts}
    assert {name: each.status for name, each in found.items()} == {
        "crashes": "failed",
        "hangs": "cut off",
        "fails": "failed",
        "works": "done",
        "after hangs": "left out",
        "after works": "done",
    }
    assert texts(found["crashes"]) == ["before"]
    assert found["crashes"].reason.startswith("exit code -9")
    assert found["fails"].reason == "exit code 1: no such kernel"
    assert found["after hangs"].reason == "needs 'hangs'"
    before, child = texts(found["hangs"])
    assert before == "before"
    assert not Path(f"/proc/{child}").exists() or _is_zombie(int(child))


def _is_zombie(process: int) -> bool:
    return " Z " in Path(f"/proc/{process}/stat").read_text()


def test_the_file_is_complete_while_parts_run(tmp_path: Path) -> None:
    """A part waits until gpu.json holds its own finding: the file does not come at the end."""
    script = """
        say('early')
        results = path.parent / 'gpu.json'
        for _ in range(300):
            if results.exists() and 'early' in results.read_text():
                sys.exit(0)
            time.sleep(0.05)
        sys.exit('gpu.json never held it')
    """
    plan = make_plan(Part("one", "gpu", 30, TASK))
    runner = make_runner(tmp_path, {"one": script}, plan)
    assert [each.status for each in runner.run().parts] == ["done"]
    written = findings.read_results(tmp_path / "out" / "gpu.json")
    assert written.parts == runner.results().parts


def test_measurements_run_alone_and_wait_for_what_they_need(tmp_path: Path) -> None:
    mark = "say('%.3f' % time.time()); time.sleep(0.4); say('%.3f' % time.time())"
    names = ("measure a", "measure b", "prepare")
    plan = make_plan(
        Part("measure a", "gpu", 20, TASK, ("prepare",)),
        Part("measure b", "gpu", 20, TASK),
        Part("prepare", "cpu", 20, TASK),
    )
    found = make_runner(tmp_path, dict.fromkeys(names, mark), plan).run().parts
    a, b, prepare = ([float(text) for text in texts(each)] for each in found)
    assert prepare[1] < a[0]
    assert b[1] < a[0]
    assert found[0].beside == ()


def test_the_run_ends_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "LEAST_SECONDS", 0.2)
    scripts = {"slow": "say('first'); time.sleep(60)", "later": "say('never')"}
    plan = make_plan(Part("slow", "gpu", 50, TASK), Part("later", "gpu", 50, TASK), seconds=2)
    start = time.monotonic()
    slow, later = make_runner(tmp_path, scripts, plan).run().parts
    assert time.monotonic() - start < 15
    assert (slow.status, texts(slow)) == ("cut off", ["first"])
    assert (later.status, later.reason) == ("left out", "no time was left")


def test_half_a_line_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    findings.add_finding(path, Remark("a", "b"))
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:-5])
    assert findings.read_findings(path) == (Remark("a", "b"),)


def results(*found: findings.Finding, dry_run: bool = False) -> findings.Results:
    record = Record("all", "done", 10.0, 20.0, findings=found)
    lost = Record("sam_vit_h", "cut off", 80.0, 80.0, "after 80 s")
    device, versions = "NVIDIA X, 1.2", {"torch": "2"}
    return findings.Results(
        "glesam-gpu", 1, dry_run, "2026-11-30T09:00:00", 440.0, device, versions, (record, lost)
    )


def timed(contender: str, precision: str, batch: int, each: float, click: float) -> Timed:
    steps = {"encoder": each, "enhancer": each, "second_prompt": click, "end_to_end": 2 * each}
    return Timed("sam_vit_b", contender, precision, batch, steps, steps, 20, 2 * 10**9)


def test_the_page_holds_the_figures_and_the_targets() -> None:
    found = results(
        Rates({"bf16": 700e12, "fp16": 750e12}, 4.3e12, 8192),
        Operations("sam_vit_b", {"encoder": 900 * 10**9, "enhancer": 600 * 10**9, "decoder": 1}),
        timed("torch.compile max-autotune, LoRA merged", "bf16", 1, 0.006, 0.004),
        timed("onnxruntime cuda, CUDA graphs", "fp16", 1, 0.004, 0.002),
        timed("onnxruntime cuda", "fp16", 4, 0.010, 0.0025),
        Check("sam_vit_b", "onnxruntime cuda", "fp16", True, {"encoder z": 1e-3}, 0.99, ()),
    )
    text = page.figures(found)
    assert "| At least 1.5 times torch.compile in bf16, end to end | 1.50 times |" in text
    # 4 images of 1.5 TFLOP in 20 ms are 300 TFLOP/s, of 750 measured.
    assert "batch 4 | 0.40 |" in text
    assert "less than 3 ms | 2.00 ms |" in text
    assert "| sam_vit_h | cut off: after 80 s |" in text
    assert "2.0 GB" in text


def test_the_page_refuses_a_dry_run() -> None:
    with pytest.raises(ValueError, match="dry run on a CPU"):
        page.filled(f"{page.BEGIN}{page.END}", results(dry_run=True))


def test_the_page_is_made_from_the_file() -> None:
    """docs/gpu.md holds what docs/gpu.json says; without that file, that nothing was measured."""
    source = PAGE.with_name("gpu.json")
    found = findings.read_results(source) if source.is_file() else None
    text = PAGE.read_text(encoding="utf-8")
    assert page.filled(text, found) == text
    if found is None:
        assert page.NOT_MEASURED in text
        assert "TFLOP/s" not in text


def test_the_file_is_json_that_survives(tmp_path: Path) -> None:
    found = results(timed("onnxruntime cuda", "fp16", 1, 0.004, 0.002), Remark("a", "b"))
    path = tmp_path / "gpu.json"
    path.write_bytes(msgspec.json.encode(found))
    assert findings.read_results(path) == found


def test_a_damaged_piece_is_named(tmp_path: Path) -> None:
    archive = tmp_path / start.ARCHIVE
    archive.write_bytes(bytes(range(250)))
    pieces = pack.cut(archive, tmp_path / "pieces", 100)
    assert start.join(tmp_path / "pieces").read_bytes() == bytes(range(250))
    pieces[1].write_bytes(bytes(100))
    pieces[2].unlink()
    with pytest.raises(SystemExit, match="piece-01, piece-02; copy them again"):
        start.join(tmp_path / "pieces")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--dry-run", "the following arguments are required: --output"),
        ("--output out --dry-run --seconds nan", "--seconds nan: must be a number of at least 5"),
        ("--output out --dry-run --seconds -1", "--seconds -1: must be a number of at least 5"),
        ("--output file --dry-run", "--output file: is a file or lies in one"),
        ("--output out", "this machine has no NVIDIA GPU; --dry-run runs nano on the CPU"),
    ],
)
def test_a_wrong_option_is_one_line(
    options: str,
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr("glesam_benchmark.gpu.run._DEVICES", ("absent",))
    monkeypatch.setattr("sys.argv", ["run.py", *options.split()])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    err = capsys.readouterr().err
    assert words in err
    assert err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
