"""Test that TensorRT-RTX reads the quantized graphs, without a GPU."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from glesam_runtime import open_bundle
from glesam_runtime.manifest import STAGES

# Run in a new process, because a library that finds no driver may crash the process.
BUILD = """
import sys
import tensorrt_rtx as trt

logger = trt.Logger(trt.Logger.ERROR)
builder = trt.Builder(logger)
network = builder.create_network(0)
parser = trt.OnnxParser(network, logger)
if not parser.parse_from_file(sys.argv[1]):
    sys.exit("; ".join(str(parser.get_error(i)) for i in range(parser.num_errors)))
config = builder.create_builder_config()
config.num_compute_capabilities = 1
config.set_compute_capability(trt.ComputeCapability.SM89, 0)
profile = builder.create_optimization_profile()
for index in range(network.num_inputs):
    tensor = network.get_input(index)
    shape = list(tensor.shape)
    if -1 in shape:
        profile.set_shape(
            tensor.name,
            *([most if axis == -1 else axis for axis in shape] for most in (1, 3, 8)),
        )
config.add_optimization_profile(profile)
sys.exit(0 if builder.build_serialized_network(network, config) is not None else "not built")
"""


@pytest.mark.parametrize(
    ("made", "stage"), [*(("int8_bundle", stage) for stage in STAGES), ("fp8_bundle", "decoder")]
)
def test_its_parser_and_builder_take_every_stage(
    made: str, stage: str, request: pytest.FixtureRequest
) -> None:
    pytest.importorskip("tensorrt_rtx")
    path: Path = request.getfixturevalue(made)
    graph = open_bundle(path).graph_path(stage)  # type: ignore[arg-type]
    done = subprocess.run(
        [sys.executable, "-c", BUILD, str(graph)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
