"""Time a bundle on ONNX Runtime with buffers that stay on the device, with and without CUDA graphs.

The runtime's own engine runs the self-test. The figures are of sessions whose inputs and outputs
are bound once: each stage reads what the one before left on the device.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from glesam_benchmark.gpu import seeded_bundles
from glesam_benchmark.gpu.device_rates import memory_in_use
from glesam_benchmark.gpu.findings import Check, Finding, Remark, Streams, Timed
from glesam_benchmark.gpu.plan import Device, RunOnnx
from glesam_benchmark.timing import PROMPT_INPUTS, GoldenInputs, golden_inputs
from glesam_runtime.backends.onnxruntime import session_options
from glesam_runtime.bundle import Bundle, open_bundle
from glesam_runtime.chain import EMBEDDINGS
from glesam_runtime.engine_libraries import import_onnxruntime
from glesam_runtime.engine_options import EngineOptions
from glesam_runtime.errors import GlesamError
from glesam_runtime.manifest import STAGES, StageName
from glesam_runtime.selftest import run_selftest
from glesam_runtime.timestep_levels import LEVEL, level_tensor

_ENHANCED = "enhanced_embeddings"
_PROVIDERS = {"cuda": "CUDAExecutionProvider", "cpu": "CPUExecutionProvider"}
_NO_GRAPH = ("gpu_graph_id", "-1")
"""A run with this setting neither records nor replays a CUDA graph."""


def measure(
    task: RunOnnx, work: Path, device: Device, repeats: int, report: Callable[[Finding], None]
) -> None:
    """Check a bundle, then time it at each batch size, then with several streams."""
    if device == "cuda":
        import_onnxruntime().preload_dlls()
    if task.precision == "int8":
        folder = seeded_bundles.folder_of(task.preset, "int8", work)
    else:
        folder = seeded_bundles.assemble(task.preset, task.precision, work)
    if task.attention_nodes:
        folder = seeded_bundles.with_attention_nodes(folder)
    bundle = open_bundle(folder)
    try:
        tested = run_selftest(bundle, "onnxruntime", device)
    except GlesamError as error:
        about = f"{task.preset} {task.precision}, onnxruntime {device}{task.form}"
        report(Remark(about, str(error)[:300]))
        raise
    errors = {f"{each.stage} {each.output}": each.relative_l2 for each in tested.errors}
    report(
        Check(
            task.preset,
            f"onnxruntime {device}{task.form}",
            task.precision,
            tested.passed,
            errors,
            tested.mask_iou_mean,
            tested.failures,
        )
    )
    inputs = golden_inputs(bundle)
    for batch in task.batches:
        chain = _open_chain(task, bundle, inputs, device, batch, report)
        _report_timed(task, chain, repeats, report)
        if batch == 1:
            report(_streams(task, chain, repeats))
        del chain


def _open_chain(
    task: RunOnnx,
    bundle: Bundle,
    inputs: GoldenInputs,
    device: Device,
    batch: int,
    report: Callable[[Finding], None],
) -> BoundChain:
    """Load the stages for one batch size, on a GPU for CUDA graphs if they can be recorded."""
    if device == "cuda":
        try:
            return BoundChain(bundle, inputs, device, batch, graphs=True, nhwc=task.nhwc)
        # ONNX Runtime's exceptions have no common base class.
        except Exception as error:  # noqa: BLE001
            about = f"{task.preset} {task.precision} batch {batch}{task.form}, CUDA graphs"
            report(Remark(about, str(error)[:300]))
    return BoundChain(bundle, inputs, device, batch, graphs=False, nhwc=task.nhwc)


def _report_timed(
    task: RunOnnx, chain: BoundChain, repeats: int, report: Callable[[Finding], None]
) -> None:
    """Time a loaded chain without CUDA graphs, then with them: loading takes longer than both."""
    with_graphs, chain.graphs = chain.graphs, False
    name = f"onnxruntime {chain.device}{task.form}"
    report(_timed(task, chain, name, repeats))
    if with_graphs:
        chain.graphs = True
        try:
            report(_timed(task, chain, f"{name}, CUDA graphs", repeats))
        except Exception as error:  # noqa: BLE001 - as above
            chain.graphs = False
            about = f"{task.preset} {task.precision} batch {chain.batch}{task.form}, CUDA graphs"
            report(Remark(about, str(error)[:300]))


@dataclass
class BoundChain:
    """The three stages with bound buffers, for one batch size and one prompt an image.

    Attributes:
        bundle: an ONNX bundle.
        inputs: the image, repeated over the batch, and the prompt.
        device: where it runs.
        batch: images per call of encoder and enhancer. The decoder takes the first one.
        graphs: whether CUDA graphs are recorded and replayed. False may follow True.
        nhwc: whether the CUDA provider computes convolutions in NHWC.
    """

    bundle: Bundle
    inputs: GoldenInputs
    device: Device
    batch: int
    graphs: bool
    nhwc: bool
    sessions: dict[StageName, Any] = field(init=False)
    buffers: dict[str, Any] = field(init=False)
    """By name; `enhanced_embeddings` is the decoder's `image_embeddings`."""

    def __post_init__(self) -> None:
        self.sessions = {stage: self._session(stage) for stage in STAGES}
        host: dict[str, Any] = {name: self.inputs.first[name] for name in PROMPT_INPUTS}
        host["image"] = np.repeat(self.inputs.image, self.batch, 0)
        level = level_tensor(self.bundle.manifest, None, self.batch)
        host |= {} if level is None else {LEVEL: level}
        ort = import_onnxruntime()
        self.buffers = {
            name: ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(value), self.device, 0)
            for name, value in host.items()
        }
        self.image = host["image"]
        sizes = {"N": self.batch, "B": 1, "P": host["point_labels"].shape[1]}
        for stage in STAGES:
            for spec in self.bundle.manifest.stages[stage].outputs:
                shape = [sizes[a] if isinstance(a, str) else a for a in spec.shape]
                self.buffers[spec.name] = ort.OrtValue.ortvalue_from_shape_and_type(
                    shape, np.float32, self.device, 0
                )
        self._first = self._first_image()
        self._bindings = {stage: self._binding(stage) for stage in STAGES}
        self._plain, self._recorded = ort.RunOptions(), ort.RunOptions()
        self._plain.add_run_config_entry(*_NO_GRAPH)

    def run(self, stage: StageName) -> None:
        """Run one stage on what its buffers hold, and wait for it."""
        options = self._recorded if self.graphs else self._plain
        self.sessions[stage].run_with_iobinding(self._bindings[stage], options)

    def prompt(self) -> Any:
        """Copy the second prompt to the device, decode it, and return the logits."""
        for name in PROMPT_INPUTS:
            self.buffers[name].update_inplace(np.ascontiguousarray(self.inputs.second[name]))
        self.run("decoder")
        return self.buffers["low_res_masks"].numpy()

    def image_to_masks(self) -> Any:
        """Copy the images to the device, run all stages, and return the first image's logits."""
        self.buffers["image"].update_inplace(self.image)
        self.run("encoder")
        self.run("enhancer")
        return self.prompt()

    def _session(self, stage: StageName) -> Any:
        ort = import_onnxruntime()
        options = session_options(EngineOptions())
        # Fixed sizes leave no arithmetic on shapes, which CUDA graphs cannot hold.
        points = self.inputs.first["point_labels"].shape[1]
        for axis, size in (("N", self.batch), ("B", 1), ("P", points)):
            options.add_free_dimension_override_by_name(axis, size)
        settings = {"device_id": "0"} if self.device == "cuda" else {}
        if self.graphs:
            settings["enable_cuda_graph"] = "1"
        if self.nhwc:
            settings["prefer_nhwc"] = "1"
        providers = [(_PROVIDERS[self.device], settings)]
        path = str(self.bundle.graph_path(stage))
        session = ort.InferenceSession(path, options, providers=providers)
        if session.get_providers()[0] != _PROVIDERS[self.device]:
            raise RuntimeError(
                f"runs on {session.get_providers()[0]}: CUDA's libraries are missing"
            )
        return session

    def _first_image(self) -> Mapping[str, tuple[Any, list[int]]]:
        """Return where the decoder finds the first image's features, and their shapes."""
        outputs = self.bundle.manifest.stages["encoder"].outputs
        found = {}
        for spec in outputs:
            name = _ENHANCED if spec.name == EMBEDDINGS else spec.name
            value = self.buffers[name]
            found[spec.name] = value.data_ptr(), [1, *value.shape()[1:]]
        return found

    def _binding(self, stage: StageName) -> Any:
        binding = self.sessions[stage].io_binding()
        for spec in self.bundle.manifest.stages[stage].inputs:
            if stage == "decoder" and spec.name in self._first:
                pointer, shape = self._first[spec.name]
                binding.bind_input(spec.name, self.device, 0, np.float32, shape, pointer)
            else:
                binding.bind_ortvalue_input(spec.name, self.buffers[spec.name])
        for spec in self.bundle.manifest.stages[stage].outputs:
            binding.bind_ortvalue_output(spec.name, self.buffers[spec.name])
        return binding


def _timed(task: RunOnnx, chain: BoundChain, contender: str, repeats: int) -> Timed:
    calls: dict[str, Callable[[], Any]] = {
        "encoder": lambda: chain.run("encoder"),
        "enhancer": lambda: chain.run("enhancer"),
        "decoder": lambda: chain.run("decoder"),
        "second_prompt": chain.prompt,
        "end_to_end": chain.image_to_masks,
    }
    chain.image_to_masks()  # so that each stage is timed on real values
    seconds = {step: time_calls(call, repeats) for step, call in calls.items()}
    return Timed(
        task.preset,
        contender,
        task.precision,
        chain.batch,
        {step: statistics.median(values) for step, values in seconds.items()},
        {step: min(values) for step, values in seconds.items()},
        repeats,
        memory_in_use(chain.device),
        bool(np.isfinite(chain.image_to_masks()).all()),
    )


def time_calls(call: Callable[[], Any], repeats: int, warm_up: int = 3) -> list[float]:
    """Return the seconds of `repeats` calls after a warm-up. The call waits for the device."""
    for _ in range(warm_up):
        call()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return seconds


def _streams(task: RunOnnx, first: BoundChain, repeats: int) -> Streams:
    """Run images end to end on chains in threads, each with its own sessions."""
    form = first.graphs, first.nhwc
    second = BoundChain(first.bundle, first.inputs, first.device, 1, *form)
    chains = [first, second]
    for chain in chains:
        for _ in range(3):  # CUDA graphs are recorded by one thread at a time
            chain.image_to_masks()

    def work(chain: BoundChain) -> None:
        for _ in range(repeats):
            chain.image_to_masks()

    threads = [threading.Thread(target=work, args=(chain,)) for chain in chains]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rate = len(chains) * repeats / (time.perf_counter() - start)
    graphs = ", CUDA graphs" if first.graphs else ""
    name = f"onnxruntime {first.device}{task.form}{graphs}"
    return Streams(task.preset, name, task.precision, len(chains), rate)
