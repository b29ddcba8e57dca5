"""A stage as an engine that puts out any tensor of its graph, for `layers`: needs a GPU."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from glesam_export.engines import network
from glesam_export.engines.compile import make_config
from glesam_export.engines.plan import Plan
from glesam_export.engines.polygraph import driving
from glesam_export.layers import Tensors
from glesam_runtime.backends.tensorrt_api import Api
from glesam_runtime.manifest import Stage


class EngineSide:
    """Compiles the graph anew for each group of tensors: what is put out is not fused away."""

    def __init__(self, api: Api, graph: Path, spec: Stage, plan: Plan) -> None:
        self._api, self._graph, self._spec, self._plan = api, graph, spec, plan

    def run(self, names: Sequence[str], inputs: Tensors) -> Tensors:
        """Compile and run the graph for those of the tensors that the network has.

        Raises:
            BackendError: the library failed.
        """
        with (
            tempfile.TemporaryDirectory() as folder,
            driving(self._api, f"{self._graph.name}: {len(names)} tensors"),
        ):
            from polygraphy.backend.trt import (
                EngineFromNetwork,
                ModifyNetworkOutputs,
                TrtRunner,
            )

            graph, _ = network.rewrite(self._graph, Path(folder), self._spec.precision)
            parsed = network.parse(self._api, graph)
            known = set(tensor_names(parsed.definition))
            asked = [name for name in names if name in known]
            if not asked:
                return {}
            parts = parsed.builder, parsed.definition, parsed.parser
            marked = ModifyNetworkOutputs(parts, outputs=asked)
            config = make_config(self._api, self._spec.inputs, self._plan, None)
            with TrtRunner(EngineFromNetwork(marked, config)) as runner:
                wanted = {spec.name: inputs[spec.name] for spec in self._spec.inputs}
                found = runner.infer(wanted)
            return {name: np.asarray(found[name], np.float32) for name in asked}


def tensor_names(definition: Any) -> list[str]:
    """Every tensor that a layer of a network puts out."""
    layers = (definition.get_layer(index) for index in range(definition.num_layers))
    return [layer.get_output(i).name for layer in layers for i in range(layer.num_outputs)]
