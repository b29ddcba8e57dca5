"""What `--cache` keeps is used only if nobody has changed it, and gives the results without it."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import glesam_runtime
from glesam_runtime import engine_selection, golden, open_bundle
from glesam_runtime.backends import graph_cache, onnxruntime
from glesam_runtime.backends.base import Engine
from glesam_runtime.backends.loading import load_engine
from glesam_runtime.bundle import Bundle
from glesam_runtime.engine_options import EngineOptions
from glesam_runtime.engine_selection import select_engine
from glesam_runtime.errors import InputError

BACKENDS = ["onnxruntime", "openvino"]
IMAGE = np.random.default_rng(0).normal(size=(1, 3, 64, 64)).astype(np.float32)


def load(bundle: Path, backend: str, cache: Path | None) -> Engine:
    return load_engine(
        open_bundle(bundle), backend, stages=["encoder"], options=EngineOptions(cache=cache)
    )


def answer(engine: Engine) -> np.ndarray:
    return engine.to_host(engine.run("encoder", {"image": IMAGE})["image_embeddings"])


def contents(cache: Path) -> dict[str, tuple[int, int]]:
    """Return inode and time of change of all files, which show whether one was written again."""
    found = ((str(p), p.lstat()) for p in sorted(cache.rglob("*")) if not p.is_dir())
    return {name: (status.st_ino, status.st_mtime_ns) for name, status in found}


def only(folder: Path) -> Path:
    (path,) = folder.iterdir()
    return path


def graph_of(folder: Path) -> Path:
    """Return the largest file, which has the graph or its weights."""
    files = [path for path in folder.iterdir() if path.name != graph_cache.RECORD]
    return max(files, key=lambda path: path.stat().st_size)


def flip(position: float) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = graph_of(folder)
        data = bytearray(path.read_bytes())
        data[int(position * (len(data) - 1))] ^= 1
        path.write_bytes(data)

    return change


def truncate(folder: Path) -> None:
    os.truncate(graph_of(folder), graph_of(folder).stat().st_size // 2)


def empty(folder: Path) -> None:
    graph_of(folder).write_bytes(b"")


def remove(folder: Path) -> None:
    graph_of(folder).unlink()


def remove_record(folder: Path) -> None:
    (folder / graph_cache.RECORD).unlink()


def add_foreign(folder: Path) -> None:
    (folder / "foreign.blob").write_bytes(b"x")


def add_folder(folder: Path) -> None:
    (folder / "foreign").mkdir()


def link(folder: Path) -> None:
    path = graph_of(folder)
    moved = path.rename(folder.parent.parent / "moved")
    path.symlink_to(moved)


def fifo(folder: Path) -> None:
    path = graph_of(folder)
    path.unlink()
    os.mkfifo(path)


def fifo_record(folder: Path) -> None:
    remove_record(folder)
    os.mkfifo(folder / graph_cache.RECORD)


def link_folder(folder: Path) -> None:
    moved = folder.rename(folder.parent.parent / "moved")
    folder.symlink_to(moved)


def folder_as_file(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.write_bytes(b"")


def let_others_write(folder: Path) -> None:
    graph_of(folder).chmod(0o666)


def record_text(text: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / graph_cache.RECORD).write_text(text)

    return change


def record_without_files(folder: Path) -> None:
    record = json.loads((folder / graph_cache.RECORD).read_bytes())
    (folder / graph_cache.RECORD).write_text(json.dumps({**record, "files": {}}))


def record_of_another(folder: Path) -> None:
    record = json.loads((folder / graph_cache.RECORD).read_bytes())
    record["made_of"]["program"] = "0.0.1"
    (folder / graph_cache.RECORD).write_text(json.dumps(record))


CHANGES = {
    "first bit": flip(0),
    "bit in the middle": flip(0.5),
    "last bit": flip(1),
    "truncated": truncate,
    "empty": empty,
    "removed": remove,
    "no record": remove_record,
    "foreign file": add_foreign,
    "foreign folder": add_folder,
    "link": link,
    "FIFO": fifo,
    "FIFO as record": fifo_record,
    "link as folder": link_folder,
    "file as folder": folder_as_file,
    "others may write": let_others_write,
    "record is a list": record_text("[]"),
    "record is no JSON": record_text("{"),
    "record is deep": record_text("[" * 60_000),
    "record is large": record_text(" " * 70_000 + "{}"),
    "record of strings": record_text('{"made_of": "x", "files": "y"}'),
    "record without files": record_without_files,
    "record of another version": record_of_another,
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_what_was_changed_is_compiled_again(
    backend: str,
    change: Callable[[Path], None],
    toy_bundle: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    cache = tmp_path / "kept"
    wanted = answer(load(toy_bundle, backend, None))
    np.testing.assert_array_equal(answer(load(toy_bundle, backend, cache)), wanted)
    change(only(cache))
    capfd.readouterr()
    np.testing.assert_array_equal(answer(load(toy_bundle, backend, cache)), wanted)
    printed = capfd.readouterr().err
    assert printed.startswith(f"note: {cache}/{backend}-encoder-")
    assert printed.endswith(": does not match its record; the graph is compiled again\n")
    assert printed.count("\n") == 1
    made = contents(cache)
    np.testing.assert_array_equal(answer(load(toy_bundle, backend, cache)), wanted)
    assert contents(cache) == made, "what matches is loaded, not compiled"
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_graph_of_another_bundle(
    backend: str, toy_bundle: Path, nano_bundle: Path, tmp_path: Path
) -> None:
    """A whole graph with a record that matches it does not pass for that of another bundle."""
    caches = tmp_path / "first", tmp_path / "second"
    wanted = answer(load(toy_bundle, backend, caches[0]))
    load(nano_bundle, backend, caches[1])
    kept = only(caches[0])
    shutil.rmtree(kept)
    shutil.copytree(only(caches[1]), kept)
    np.testing.assert_array_equal(answer(load(toy_bundle, backend, caches[0])), wanted)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("what", ["program", "cpu"])
def test_another_version_or_cpu_compiles_again(
    backend: str, what: str, toy_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load(toy_bundle, backend, tmp_path / "kept")
    if what == "program":
        monkeypatch.setattr(glesam_runtime, "__version__", "0.0.9", raising=False)
    else:
        monkeypatch.setattr(graph_cache, "cpu_name", lambda: "another")
    load(toy_bundle, backend, tmp_path / "kept")
    assert len(list((tmp_path / "kept").iterdir())) == 2


def test_a_bundle_that_was_moved(
    toy_bundle: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """OpenVINO names what it keeps by the path of the graph."""
    shutil.copytree(toy_bundle, tmp_path / "copy")
    for bundle in (toy_bundle, tmp_path / "copy", toy_bundle, tmp_path / "copy"):
        load(bundle, "openvino", tmp_path / "kept")
    assert "note" not in capfd.readouterr().err
    assert len(list(only(tmp_path / "kept").iterdir())) == 3  # two graphs and the record


def test_a_graph_that_its_engine_refuses_is_made_again(
    toy_bundle: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """It matches its record, as after another build of the same version of the engine."""
    cache = tmp_path / "kept"
    wanted = answer(load(toy_bundle, "onnxruntime", cache))
    record = only(cache) / graph_cache.RECORD
    made_of = json.loads(record.read_bytes())["made_of"]
    (only(cache) / "graph.onnx").write_bytes(b"no graph")
    graph_cache.KeptGraph(only(cache), made_of).write_record()
    np.testing.assert_array_equal(answer(load(toy_bundle, "onnxruntime", cache)), wanted)
    printed = capfd.readouterr().err
    assert "onnxruntime cannot load it (" in printed
    assert printed.count("\n") == 1


@pytest.mark.parametrize("backend", BACKENDS)
def test_folders_are_for_the_user_alone(backend: str, toy_bundle: Path, tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        load(toy_bundle, backend, tmp_path / "above" / "kept")
    finally:
        os.umask(before)
    assert (tmp_path / "above/kept").stat().st_mode & 0o777 == 0o700
    for path in (tmp_path / "above/kept").rglob("*"):
        assert path.stat().st_mode & 0o022 == 0, path


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("mode", [0o777, 0o775, 0o757, 0o1777])
def test_a_folder_that_others_may_write_to(
    backend: str, mode: int, toy_bundle: Path, tmp_path: Path
) -> None:
    cache = tmp_path / "kept"
    cache.mkdir()
    cache.chmod(mode)
    with pytest.raises(InputError, match=r"kept: belongs .* other users may write.*chmod go-w"):
        load(toy_bundle, backend, cache)
    assert list(cache.iterdir()) == []
    cache.chmod(0o755)
    load(toy_bundle, backend, cache)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root may chown")
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_folder_of_another_user(backend: str, toy_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    os.chown(tmp_path / "kept", 12345, 12345)
    with pytest.raises(InputError, match="belongs to another user"):
        load(toy_bundle, backend, tmp_path / "kept")


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_read_only_folder(
    backend: str, toy_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is kept there is loaded; without it, the error names the folder, not the bundle."""
    cache = tmp_path / "kept"
    wanted = answer(load(toy_bundle, backend, cache))
    mkdir, before = Path.mkdir, contents(cache)

    def refuse(
        self: Path, mode: int = 0o777, parents: bool = False, exist_ok: bool = False
    ) -> None:
        if self.exists():
            mkdir(self, mode, parents, exist_ok)
        elif self.is_relative_to(cache):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(self))

    monkeypatch.setattr(Path, "mkdir", refuse)
    np.testing.assert_array_equal(answer(load(toy_bundle, backend, cache)), wanted)
    assert contents(cache) == before
    shutil.rmtree(only(cache))
    with pytest.raises(InputError, match=r"kept.*(read-only|Read-only)"):
        load(toy_bundle, backend, cache)


@pytest.mark.parametrize("backend", BACKENDS)
def test_damage_that_cannot_be_deleted(
    backend: str, toy_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load(toy_bundle, backend, tmp_path / "kept")
    flip(0.5)(only(tmp_path / "kept"))

    def refuse(path: Path) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    monkeypatch.setattr(shutil, "rmtree", refuse)
    with pytest.raises(InputError, match="does not match its record and cannot be deleted"):
        load(toy_bundle, backend, tmp_path / "kept")


@pytest.mark.parametrize("backend", BACKENDS)
def test_processes_that_start_at_once(backend: str, toy_bundle: Path, tmp_path: Path) -> None:
    """Two find a damaged cache, and neither takes away what the other has made of it."""
    load(toy_bundle, backend, tmp_path / "kept")
    flip(0.5)(only(tmp_path / "kept"))
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "from glesam_runtime import open_bundle\n"
        "from glesam_runtime.backends.loading import load_engine\n"
        "from glesam_runtime.engine_options import EngineOptions\n"
        "options = EngineOptions(cache=Path(sys.argv[3]))\n"
        "load_engine(open_bundle(sys.argv[1]), sys.argv[2], stages=['encoder'], options=options)\n"
    )
    command = [sys.executable, "-c", script, str(toy_bundle), backend, str(tmp_path / "kept")]
    running = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    printed = [process.communicate(timeout=120)[1] for process in running]
    assert [process.returncode for process in running] == [0, 0], printed
    assert "".join(printed).count("is compiled again") == 1


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_golden_check_judges_what_runs(
    backend: str, toy_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another graph in the cache, even with a record that matches it, is compared again."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    judged: list[Engine] = []
    check = golden.check

    def noted(bundle: Bundle, engine: Engine) -> golden.SelftestResult:
        judged.append(engine)
        return check(bundle, engine)

    monkeypatch.setattr(golden, "check", noted)
    monkeypatch.setattr(engine_selection, "_SMALL", 0 if backend == "openvino" else 2**20)
    bundle = open_bundle(toy_bundle)
    options = EngineOptions(cache=tmp_path / "kept")
    for _ in range(2):
        select_engine(bundle, options=options)
    assert [engine.name for engine in judged] == [backend]
    assert judged[0].kept.count(" ") == 2  # type: ignore[attr-defined]
    (folder,) = (tmp_path / "kept").glob(f"{backend}-encoder-*")
    record = json.loads((folder / graph_cache.RECORD).read_bytes())
    record["note"] = "written by another"
    (folder / graph_cache.RECORD).write_text(json.dumps(record))
    select_engine(bundle, options=options)
    assert len(judged) == 2


def test_a_failure_leaves_nothing(
    toy_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(tmp_path / "kept/x"))

    monkeypatch.setattr(onnxruntime, "_write_optimized", fail)
    with pytest.raises(InputError, match="no space left"):
        load(toy_bundle, "onnxruntime", tmp_path / "kept")
    assert list((tmp_path / "kept").iterdir()) == []
