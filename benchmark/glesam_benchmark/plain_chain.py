"""The plain export as a contender, on the session that its user would make."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from glesam_benchmark.contenders import Plain
from glesam_benchmark.inputs import Prompt
from glesam_runtime.chain import EMBEDDINGS
from glesam_runtime.engine_options import EngineOptions
from glesam_runtime.manifest import STAGES, StageName

Arrays = dict[str, NDArray[np.float32]]
Session = Callable[[Mapping[str, NDArray[np.float32]]], Arrays]


@dataclass(frozen=True)
class PlainChain:
    """Three graphs; the decoder's inputs are the points without the contract's padding."""

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


def load(how: Plain) -> PlainChain:
    """Load the three graphs of `how.folder`."""
    make = _onnxruntime if how.engine == "onnxruntime" else _openvino
    made = {stage: make(Path(how.folder) / f"{stage}.onnx", how) for stage in STAGES}
    version = next(iter(made.values()))[1]
    engine = {"engine": how.engine, "version": version, "device": "cpu"}
    return PlainChain(
        {stage: session for stage, (session, _) in made.items()}, engine, how.precision
    )


def _onnxruntime(path: Path, how: Plain) -> tuple[Session, str]:
    """A session with defaults."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 3
    if how.threads is not None:
        options.intra_op_num_threads = how.threads
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def run(inputs: Mapping[str, NDArray[np.float32]]) -> Arrays:
        return dict(zip(names, session.run(names, dict(inputs)), strict=True))

    return run, ort.__version__


def _openvino(path: Path, how: Plain) -> tuple[Session, str]:
    """A compiled graph with the properties that ours has."""
    import openvino as ov

    from glesam_runtime.backends.openvino import properties_of

    properties = properties_of(EngineOptions(threads=how.threads), how.precision)
    request = ov.Core().compile_model(path, "CPU", properties).create_infer_request()

    def run(inputs: Mapping[str, NDArray[np.float32]]) -> Arrays:
        results = request.infer(dict(inputs), share_inputs=True, share_outputs=False)
        return {port.any_name: array for port, array in results.items()}

    return run, ov.__version__.partition("-")[0]
