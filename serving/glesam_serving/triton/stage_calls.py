"""Run the stages as models of the same Triton, by calls from inside the server (BLS)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from glesam_runtime.bundle import Bundle, open_bundle
from glesam_runtime.enhancing import Enhancing
from glesam_runtime.errors import BackendError
from glesam_runtime.image_index import OneImageEngine, takes_image_index
from glesam_runtime.one_thread import OneThread
from glesam_runtime.predictor import GleSamPredictor
from glesam_runtime.timestep_levels import LEVEL, check_timestep
from glesam_serving.triton.config import graph_model, model_name

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from glesam_runtime.backends.base import Engine, Value
    from glesam_runtime.enhancing import Mode
    from glesam_runtime.manifest import StageName


@dataclass(frozen=True)
class StageCalls:
    """An engine whose graphs are the models glesam_encoder, glesam_enhancer and glesam_decoder."""

    utils: Any
    """Triton's `triton_python_backend_utils`."""
    version: str
    outputs: Mapping[StageName, tuple[str, ...]] | None = None
    """The names of each stage's outputs; `predictor_on` sets them from the manifest."""
    joins: bool = False
    """Whether Triton joins calls of the enhancer. Then the level has an axis of one per image."""
    name: str = "triton"
    device: str = "cpu"

    def describe(self) -> dict[str, str]:
        """Return what runs the graphs."""
        return {"engine": "triton", "version": self.version, "device": "server"}

    def run(self, stage: StageName, inputs: Mapping[str, Value]) -> dict[str, Value]:
        """Ask Triton to run one graph.

        Raises:
            BackendError: the model is not loaded, or failed.
        """
        assert self.outputs is not None
        tensors = [
            self.utils.Tensor(name, self._shaped(name, np.ascontiguousarray(value, np.float32)))
            for name, value in inputs.items()
        ]
        request = self.utils.InferenceRequest(
            model_name=model_name(stage),
            model_version=int(self.version),
            requested_output_names=list(self.outputs[stage]),
            inputs=tensors,
            preferred_memory=self.utils.PreferredMemory(self.utils.TRITONSERVER_MEMORY_CPU, 0),
        )
        answer = request.exec()
        if answer.has_error():
            raise BackendError(f"{model_name(stage)}: {answer.error().message()}")
        return {
            name: self.utils.get_output_tensor_by_name(answer, name).as_numpy()
            for name in self.outputs[stage]
        }

    def _shaped(self, name: str, value: NDArray[np.float32]) -> NDArray[np.float32]:
        return value[:, None] if name == LEVEL and self.joins else value

    def to_host(self, value: Value) -> NDArray[np.float32]:
        """Return the values, which are on the host already."""
        return np.asarray(value, np.float32)

    def share(self) -> Engine:
        """Return this engine: Triton orders the calls."""
        return self


def predictor_on(
    folder: Path, engine: StageCalls, enhance: Mode, timestep: int | None = None
) -> GleSamPredictor:
    """Return a predictor that loads no graphs and runs on an engine that exists.

    Raises:
        BundleError: the folder is no bundle.
    """
    bundle = open_bundle(folder)
    outputs = {
        stage: tuple(spec.name for spec in record.outputs)
        for stage, record in bundle.manifest.stages.items()
    }
    joins = graph_model(bundle.manifest, "enhancer", "onnxruntime").max_batch > 0
    ready: Engine = StageCalls(engine.utils, engine.version, outputs, joins)
    if takes_image_index(bundle.manifest):
        ready = OneImageEngine(ready)
    return _OnEngine(bundle, ready, enhance, check_timestep(bundle.manifest, timestep))


class _OnEngine(GleSamPredictor):
    def __init__(self, bundle: Bundle, engine: Engine, enhance: Mode, timestep: int | None) -> None:
        OneThread.__init__(self)
        self.bundle, self.engine, self.engine_reason = bundle, engine, None
        self.timings = {}
        self.prompt_batch = 64
        self._folder, self._made_with = bundle.path, {}
        self.enhancing, self.timestep = Enhancing.of(bundle, enhance), timestep
        self._geometry, self._features, self._branch, self._images = None, None, None, ()
