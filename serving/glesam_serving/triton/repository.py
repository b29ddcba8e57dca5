"""Write a Triton model repository from a bundle: three graphs, and two models in Python."""

from __future__ import annotations

import filecmp
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from glesam_runtime.bundle import Bundle, load_golden
from glesam_runtime.chain import EMBEDDINGS
from glesam_runtime.errors import InputError
from glesam_runtime.image import preprocess
from glesam_runtime.manifest import IMAGE_INDEX, MANIFEST_FILE, STAGES, StageName
from glesam_runtime.manifest_file import file_refs
from glesam_runtime.staging import check_folder
from glesam_runtime.timestep_levels import LEVEL, level_tensor
from glesam_serving.triton.config import (
    GraphModel,
    graph_config,
    graph_model,
    model_name,
    python_config,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from glesam_runtime.enhancing import Mode

_CONFIG, _BUNDLE = "config.pbtxt", "bundle"
_MODEL_PY = '''"""Answer requests with the GleSAM bundle beside this file."""

from glesam_serving.triton.{module} import TritonPythonModel

__all__ = ["TritonPythonModel"]
'''


@dataclass(frozen=True)
class Wanted:
    """What a repository is to hold."""

    graphs: bool
    """Whether the stages are models of Triton's own backends, which the model in Python calls.
    Without them it runs the graphs itself."""
    onnx_backend: str
    """"onnxruntime" or "openvino"."""
    device: str
    """"cpu" or "gpu"."""
    instances: int
    cache_mib: int
    """Memory for the embeddings of images, in each process of the model in Python."""
    enhance: Mode
    timestep: int | None = None
    """The timestep that the enhancer runs; None is the bundle's default."""


def write_repository(bundle: Bundle, folder: Path, wanted: Wanted) -> int:
    """Write a bundle into a repository as its next version, and return the version.

    A version is complete in a hidden folder before it gets its number, and `glesam`, which needs
    the others, gets it last.

    Raises:
        InputError: the folder holds something else, the bundle is in it already, or its inputs and
            outputs differ from those of the version that is there.
    """
    _refuse_foreign(folder)
    version = _next_version(folder, bundle)
    models = {stage: graph_model(bundle.manifest, stage, wanted.onnx_backend) for stage in STAGES}
    stages: tuple[StageName, ...] = ()
    if wanted.graphs:
        stages = STAGES if wanted.enhance is not False else ("encoder", "decoder")
    warmups = {stage: warmup_tensors(bundle, stage) for stage in stages}
    configs = {
        model_name(stage): graph_config(
            stage,
            bundle.manifest.stages[stage],
            models[stage],
            wanted.instances,
            wanted.device,
            {name: value.shape for name, value in warmups[stage].items()},
        )
        for stage in stages
    }
    parameters = {
        "stages": "triton" if wanted.graphs else "runtime",
        "enhance": str(wanted.enhance).lower(),
        "device": "cuda" if wanted.device == "gpu" else "cpu",
        "cache_mib": str(wanted.cache_mib),
        **({} if wanted.timestep is None else {"timestep": str(wanted.timestep)}),
    }
    # Everything-mode runs the graphs itself: it needs a thousand decoder calls for an image.
    search = {**parameters, "stages": "runtime"}
    for name, everything in (("glesam_everything", True), ("glesam", False)):
        configs[name] = python_config(
            name,
            everything=everything,
            instances=wanted.instances,
            device=wanted.device,
            parameters=search if everything else parameters,
        )
    _refuse_other_configs(folder, configs)
    folder.mkdir(parents=True, exist_ok=True)
    for stage in stages:
        _write_graph(folder, version, bundle, stage, models[stage], warmups[stage])
    modules = {"glesam_everything": "everything_model", "glesam": "model"}
    for name, module in modules.items():
        _write_python(folder / name, version, bundle, module)
    for name, text in configs.items():
        _write_once(folder / name / _CONFIG, text)
    for name in configs:
        (folder / name / f".{version}.partial").rename(folder / name / str(version))
    return version


def warmup_tensors(bundle: Bundle, stage: StageName) -> dict[str, NDArray[np.float32]]:
    """Return the golden inputs of a stage by name."""
    golden = load_golden(bundle)
    if stage == "encoder":
        (source,) = bundle.manifest.stages[stage].inputs
        image = preprocess(golden["image"].astype(np.uint8), bundle.manifest.preprocessing)
        tensors = {source.name: image.tensor}
    elif stage == "enhancer":
        tensors = {EMBEDDINGS: np.asarray(golden[EMBEDDINGS], np.float32)}
        level = level_tensor(bundle.manifest, None, 1)
        tensors |= {} if level is None else {LEVEL: level}
    else:
        names = [spec.name for spec in bundle.manifest.stages[stage].inputs]
        if IMAGE_INDEX in names:  # the golden file has one image
            golden[IMAGE_INDEX] = np.zeros(len(golden["point_coords"]), np.float32)
        tensors = {name: np.asarray(golden[name], np.float32) for name in names}
        tensors[EMBEDDINGS] = np.asarray(golden["enhanced_embeddings"], np.float32)
    batch = bundle.manifest.target.batch
    if stage != "decoder" and isinstance(batch, int) and batch > 1:
        tensors = {name: np.repeat(value, batch, axis=0) for name, value in tensors.items()}
    return tensors


def _write_graph(
    folder: Path,
    version: int,
    bundle: Bundle,
    stage: StageName,
    model: GraphModel,
    warmup: Mapping[str, NDArray[np.float32]],
) -> None:
    base = folder / model_name(stage)
    partial = _partial(base, version)
    shutil.copyfile(bundle.graph_path(stage), partial / model.file)
    data = bundle.manifest.stages[stage].data
    if data is not None and model.file.endswith(".onnx"):
        shutil.copyfile(bundle.path / data.file, partial / data.file)
    (base / "warmup").mkdir(exist_ok=True)
    for name, value in warmup.items():
        (base / "warmup" / f"{name}.bin").write_bytes(np.ascontiguousarray(value).tobytes())


def _write_python(base: Path, version: int, bundle: Bundle, module: str) -> None:
    partial = _partial(base, version)
    (partial / "model.py").write_text(_MODEL_PY.format(module=module))
    (partial / _BUNDLE).mkdir()
    for name in (MANIFEST_FILE, *(ref.file for ref in file_refs(bundle.manifest))):
        shutil.copyfile(bundle.path / name, partial / _BUNDLE / name)


def _partial(base: Path, version: int) -> Path:
    """Return an empty hidden folder, without what a killed run left there."""
    partial = base / f".{version}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    return partial


def _write_once(path: Path, text: str) -> None:
    if not path.exists():
        path.write_text(text)


def _refuse_foreign(folder: Path) -> None:
    check_folder(folder)
    if folder.is_dir():
        foreign = sorted(each.name for each in folder.iterdir() if not _is_own(each.name))
        if foreign:
            raise InputError(
                f"-o {folder}: holds {foreign[0]}, which is no model of this program; choose "
                "another folder"
            )


def _is_own(name: str) -> bool:
    return name == "glesam" or name.startswith("glesam_")


def _next_version(folder: Path, bundle: Bundle) -> int:
    base = folder / "glesam"
    names = [each.name for each in base.iterdir()] if base.is_dir() else []
    versions = sorted(int(name) for name in names if re.fullmatch("[1-9][0-9]*", name))
    for version in versions:
        manifest = base / str(version) / _BUNDLE / MANIFEST_FILE
        if manifest.is_file() and filecmp.cmp(manifest, bundle.path / MANIFEST_FILE, False):
            raise InputError(
                f"-o {folder}: holds this bundle already, as version {version}; nothing to do"
            )
    return versions[-1] + 1 if versions else 1


def _refuse_other_configs(folder: Path, configs: Mapping[str, str]) -> None:
    """Refuse to add a version that differs from the ones that are there in more than weights."""
    if not (folder / "glesam" / _CONFIG).is_file():
        return
    there = {path.parent.name for path in folder.glob(f"*/{_CONFIG}")}
    if there != set(configs):
        raise InputError(
            f"-o {folder}: holds {', '.join(sorted(there))}, but this bundle would be "
            f"{', '.join(sorted(configs))}; use the same options, or another folder"
        )
    for name, text in configs.items():
        if (folder / name / _CONFIG).read_text() != text:
            raise InputError(
                f"-o {folder}: {name} has another configuration than this bundle needs, and all "
                "versions of a model share one; use the same options, or another folder"
            )
