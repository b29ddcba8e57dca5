"""Find the graphs of a plain export in a folder, and run them as a contender; imports no torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from glesam_benchmark.contenders import PlainRunner
from glesam_benchmark.timing import Prompt
from glesam_runtime.bundle import Bundle
from glesam_runtime.chain import EMBEDDINGS
from glesam_runtime.engine_libraries import import_onnxruntime, import_openvino, openvino_core
from glesam_runtime.engine_options import EngineOptions
from glesam_runtime.errors import InputError
from glesam_runtime.manifest import STAGES, StageName

_RECORD = "plain.json"
"""This file is written last: without it the export in the folder is incomplete."""
_EXPORTER = Path(__file__).with_name("plain_export.py")


def holds_export(folder: Path, bundle: Bundle) -> bool:
    """Return whether the folder holds the plain export of a bundle's weights.

    Raises:
        InputError: the path is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"--work {folder}: is a file; pass a folder")
    record = folder / _RECORD
    return record.is_file() and record.read_text(encoding="utf-8") == _record_of(bundle)


def begin_export(folder: Path) -> None:
    """Create the folder and mark its export as incomplete until `finish_export`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / _RECORD).unlink(missing_ok=True)


def finish_export(folder: Path, bundle: Bundle) -> None:
    """Record whose weights the export in the folder holds."""
    (folder / _RECORD).write_text(_record_of(bundle), encoding="utf-8")


def _record_of(bundle: Bundle) -> str:
    """Return what identifies an export: the bundle's weights, torch, and the exporting code."""
    manifest = bundle.manifest
    facts = {
        "model": str(manifest.model),
        "weights": manifest.provenance.weights,
        "sources": sorted(source.sha256 for source in manifest.provenance.sources),
        "torch": version("torch"),
        "exporter": hashlib.sha256(_EXPORTER.read_bytes()).hexdigest(),
    }
    return json.dumps(facts, indent=2, sort_keys=True)


Arrays = dict[str, NDArray[np.float32]]
Session = Callable[[Mapping[str, NDArray[np.float32]]], Arrays]


@dataclass(frozen=True)
class PlainChain:
    """Run the three graphs; the decoder takes points without the contract's padding point."""

    sessions: Mapping[StageName, Session]
    engine: Mapping[str, str]
    precision: str

    def encode(self, image: NDArray[np.float32]) -> Arrays:
        """Run the encoder."""
        return self.sessions["encoder"]({"image": image})

    def enhance(self, features: Arrays) -> Arrays:
        """Run the enhancer."""
        enhanced = self.sessions["enhancer"]({EMBEDDINGS: features[EMBEDDINGS]})
        return {**features, EMBEDDINGS: enhanced["enhanced"]}

    def decode(self, features: Arrays, prompt: Prompt) -> NDArray[np.float32]:
        """Run the decoder."""
        points = {
            name: np.ascontiguousarray(prompt[name][:, :-1])
            for name in ("point_coords", "point_labels")
        }
        return self.sessions["decoder"]({**features, **points})["low_res_masks"]


def load_plain_chain(how: PlainRunner) -> PlainChain:
    """Load the three graphs of `how.folder`."""
    make = _onnxruntime if how.engine == "onnxruntime" else _openvino
    made = {stage: make(Path(how.folder) / f"{stage}.onnx", how) for stage in STAGES}
    version = next(iter(made.values()))[1]
    engine = {"engine": how.engine, "version": version, "device": "cpu"}
    return PlainChain(
        {stage: session for stage, (session, _) in made.items()}, engine, how.precision
    )


def _onnxruntime(path: Path, how: PlainRunner) -> tuple[Session, str]:
    """Return an ONNX Runtime session with default options, and the library's version."""
    ort = import_onnxruntime()

    options = ort.SessionOptions()
    options.log_severity_level = 3
    if how.threads is not None:
        options.intra_op_num_threads = how.threads
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def run(inputs: Mapping[str, NDArray[np.float32]]) -> Arrays:
        return dict(zip(names, session.run(names, dict(inputs)), strict=True))

    return run, ort.__version__


def _openvino(path: Path, how: PlainRunner) -> tuple[Session, str]:
    """Return a graph compiled with the properties that the backend sets, and the version."""
    ov = import_openvino()

    from glesam_runtime.backends.openvino import properties_of

    properties = properties_of(EngineOptions(threads=how.threads), how.precision)
    request = openvino_core().compile_model(path, "CPU", properties).create_infer_request()

    def run(inputs: Mapping[str, NDArray[np.float32]]) -> Arrays:
        results = request.infer(dict(inputs), share_inputs=True, share_outputs=False)
        return {port.any_name: array for port, array in results.items()}

    return run, ov.__version__.partition("-")[0]
