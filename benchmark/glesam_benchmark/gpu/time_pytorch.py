"""Time the reference and our folded modules in PyTorch, eager and compiled, in half precision.

The reference is measured as a user would run it fastest: weights cast once, products in half
precision, Eq. 4 in float32, and no autocast except in the decoder, whose points need float32.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from glesam_benchmark.gpu import seeded_bundles
from glesam_benchmark.gpu.device_rates import memory_in_use, wait
from glesam_benchmark.gpu.findings import Finding, Remark, Timed
from glesam_benchmark.gpu.plan import Device, RunTorch
from glesam_benchmark.gpu.time_onnxruntime import time_calls
from glesam_benchmark.plain_export import POINTS, PlainDecoder
from glesam_benchmark.pytorch_chain import merge_adapters
from glesam_benchmark.timing import PROMPT_INPUTS, Prompt
from glesam_export import stages
from glesam_export.checkpoints import Checkpoint
from glesam_export.enhancer.reference import Enhancer
from glesam_export.families import named_features
from glesam_export.precision import DTYPES, cast_graph
from glesam_export.verify.cases import make_cases
from glesam_runtime.chain import EMBEDDINGS
from glesam_runtime.manifest import StageName

_COMPILING: Mapping[Device, dict[str, Any]] = {
    "cuda": {"mode": "max-autotune", "dynamic": False},
    "cpu": {"backend": "aot_eager", "dynamic": False},  # a dry run traces, but compiles no code
}


@torch.no_grad()
def measure(
    task: RunTorch, device: Device, repeats: int, report: Callable[[Finding], None]
) -> None:
    """Time encoder, enhancer and decoder, and all three in a row, at each batch size.

    Compiling takes most of the time, so each stage's figure is reported as soon as it is there.
    """
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = True
    checkpoint = seeded_bundles.checkpoint_of(task.preset)
    case = make_cases(checkpoint.preset)[0]
    prompts = {name: case.prompts["points"][name] for name in PROMPT_INPUTS}
    prompt = {n: v if n == "has_mask_input" else v[:1] for n, v in prompts.items()}
    modules = _modules(checkpoint, task, device)
    for batch in task.batches:
        image = torch.from_numpy(np.repeat(case.prepared.tensor, batch, 0))
        chain = _Chain(modules, image.to(device), prompt, device, task)
        seconds: dict[str, list[float]] = {}
        try:
            for step, call in chain.steps():
                seconds[step] = time_calls(call, repeats)
                report(_timed(task, batch, seconds, repeats, device, chain.finite))
        except Exception as error:  # noqa: BLE001 - compilers raise all kinds
            about = f"{task.preset} {_contender(task)} {task.precision}, batch {batch}"
            report(Remark(about, f"{type(error).__name__}: {str(error)[:300]}"))


@dataclass
class _Chain:
    """Three modules and their inputs on the device."""

    modules: Mapping[StageName, nn.Module]
    image: Tensor
    prompt: Prompt
    device: Device
    task: RunTorch
    finite: bool = True
    """Whether every output so far is finite."""

    def steps(self) -> Iterator[tuple[str, Callable[[], Any]]]:
        """Yield what is timed, by step. Each call waits for the device.

        A module is first called, and so compiled, when its step's turn comes.
        """
        # Copies, because the next call of a compiled module overwrites its outputs.
        encoded = {name: self._checked(value) for name, value in self._encode().items()}
        yield "encoder", lambda: self._waited(self._encode)
        z_l = encoded[EMBEDDINGS]
        z_h = self._checked(self.modules["enhancer"](z_l))
        yield "enhancer", lambda: self._waited(lambda: self.modules["enhancer"](z_l))
        features = {name: value[:1].clone() for name, value in encoded.items()}
        features[EMBEDDINGS] = z_h[:1].clone()
        self.finite &= bool(np.isfinite(self._decode(features)).all())
        yield "second_prompt", lambda: self._decode(features)
        yield "end_to_end", self._whole

    def _checked(self, value: Tensor) -> Tensor:
        self.finite &= bool(value.isfinite().all())
        return value.clone()

    def _whole(self) -> Any:
        features = self._encode()
        z_h = self.modules["enhancer"](features[EMBEDDINGS])
        first = {name: value[:1] for name, value in features.items()}
        return self._decode({**first, EMBEDDINGS: z_h[:1]})

    def _encode(self) -> dict[str, Tensor]:
        torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        return named_features(self.modules["encoder"](self.image))

    def _decode(self, features: Mapping[str, Tensor]) -> Any:
        """Copy the prompt to the device, decode it, and copy the logits back."""
        tensors = {
            name: torch.from_numpy(value).to(self.device) for name, value in self.prompt.items()
        }
        if self.task.folded:
            low_res, _ = self.modules["decoder"](*features.values(), *tensors.values())
        else:
            half = self.task.precision != "fp32"
            points = (tensors[name][:, :-1].contiguous() for name in POINTS)
            with torch.autocast(self.device, DTYPES[self.task.precision], enabled=half):
                low_res, _ = self.modules["decoder"](dict(features), *points)
        return low_res.float().cpu().numpy()

    def _waited(self, call: Callable[[], object]) -> None:
        call()
        wait(self.device)


class _InHalf(nn.Module):
    """Run an encoder in half precision with float32 inputs and outputs."""

    def __init__(self, inner: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.inner, self.dtype = inner.to(dtype), dtype

    def forward(self, image: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Encode a batch."""
        out = self.inner(image.to(self.dtype))
        if isinstance(out, tuple):
            return tuple(value.float() for value in out)
        result: Tensor = out.float()
        return result


class _EnhancerInHalf(nn.Module):
    """Run the reference's U-Net in half precision, and Eq. 4 in float32."""

    def __init__(self, inner: Enhancer, dtype: torch.dtype) -> None:
        super().__init__()
        self.inner, self.dtype = inner.to(dtype), dtype

    def forward(self, z_l: Tensor) -> Tensor:
        """Enhance a batch."""
        inner = self.inner
        noise = (1 - inner.alpha_bar) ** 0.5 * inner.eps(z_l.to(self.dtype)).float()
        z_h: Tensor = (inner.gamma * z_l - noise) / (inner.gamma * inner.alpha_bar**0.5)
        return z_h


def _modules(checkpoint: Checkpoint, task: RunTorch, device: Device) -> dict[StageName, nn.Module]:
    """Build the three modules on the device, and compile them if the task says so."""
    made: dict[StageName, nn.Module]
    if task.folded:
        made = {}
        for stage in ("encoder", "enhancer", "decoder"):
            graph = stages.graph(checkpoint, stage)
            cast_graph(graph, stage, task.precision, stages.presets_of(checkpoint))
            made[stage] = graph
    else:
        made = reference_modules(checkpoint, task, device)
    for module in made.values():
        module.to(device).eval().requires_grad_(False)
        if task.compiled:
            module.compile(**_COMPILING[device])
    return made


def reference_modules(
    checkpoint: Checkpoint, task: RunTorch, device: Device
) -> dict[StageName, nn.Module]:
    """Build the reference. Random weights are drawn on the device: on the CPU it takes 20 s."""
    drawn = torch.device(device if not checkpoint.trained else "cpu")
    with drawn:
        encoder, enhancer = checkpoint.encoder(), checkpoint.enhancer()
        decoder = checkpoint.decoder()
    if task.merged:
        merge_adapters(enhancer)
    dtype = DTYPES[task.precision]
    return {
        "encoder": _InHalf(encoder, dtype),
        "enhancer": _EnhancerInHalf(enhancer, dtype),
        "decoder": PlainDecoder(decoder),
    }


def _contender(task: RunTorch) -> str:
    how = "torch.compile max-autotune" if task.compiled else "PyTorch eager"
    if task.folded:
        return f"{how}, our folded modules"
    return f"{how}, LoRA {'merged' if task.merged else 'unmerged'}"


def _timed(
    task: RunTorch,
    batch: int,
    seconds: Mapping[str, list[float]],
    repeats: int,
    device: Device,
    finite: bool,
) -> Timed:
    return Timed(
        task.preset,
        _contender(task),
        task.precision,
        batch,
        {step: statistics.median(values) for step, values in seconds.items()},
        {step: min(values) for step, values in seconds.items()},
        repeats,
        memory_in_use(device),
        finite,
    )
