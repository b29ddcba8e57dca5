"""Open a bundle folder and verify every byte before an engine sees any of them."""

from __future__ import annotations

import hashlib
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from glesam_runtime import manifest as contract
from glesam_runtime import manifest_file
from glesam_runtime.errors import BundleError
from glesam_runtime.limits import GOLDEN_BYTES, MANIFEST_BYTES, POINTS, check_picture
from glesam_runtime.manifest import FileRef, Manifest, Stage, StageName
from glesam_runtime.onnx_files import external_data_locations
from glesam_runtime.timestep_levels import golden_name, levels_of

if TYPE_CHECKING:
    import os

    import numpy as np
    from numpy.typing import NDArray

    from glesam_runtime.hub import Snapshot

_CHUNK = 1 << 20
_MOST_GOLDEN_PROMPTS = 64
"""Prompts of a golden file, which are decoded together. Exports write up to 3."""


@dataclass(frozen=True)
class Bundle:
    """A bundle whose files match its manifest."""

    path: Path
    manifest: Manifest
    sha256: str
    """The hash of manifest.json. It identifies the bundle, because the manifest contains the hashes
    of all other files."""
    snapshot: Snapshot | None = None
    """The repository of the Hugging Face Hub and the commit that the files are from."""

    def graph_path(self, stage: StageName) -> Path:
        """Return the file that an engine loads for `stage`."""
        return self.path / self.manifest.stages[stage].graph.file

    def weights_path(self, stage: StageName) -> Path | None:
        """Return the ONNX graph with the weights of a stripped engine, or None for other graphs."""
        weights = self.manifest.stages[stage].weights
        return self.path / weights.file if weights is not None else None

    def stage_sha256(self, stage: StageName) -> str:
        """Return a hash of a stage's graph and external weights."""
        return manifest_file.stage_sha256(self.manifest.stages[stage])

    @property
    def golden_path(self) -> Path:
        """Return the file with one image, its prompts and the reference's output of every stage."""
        return self.path / self.manifest.golden.file


def builtin_bundle_path() -> Path:
    """Return the folder of the nano bundle that ships inside the package."""
    return Path(__file__).parent / "nano"


def open_bundle(path: str | os.PathLike[str] | None = None) -> Bundle:
    """Open a bundle and verify its manifest and the size, hash and external data of every file.

    Args:
        path: a bundle folder; a string may also name a repository of the Hugging Face Hub,
            "org/name" or "org/name@revision". None opens the built-in nano bundle.

    Raises:
        BundleError: the hub does not give the files, a file is missing or altered, the manifest is
            malformed, has another version or requires an unknown feature, or a graph refers to data
            outside the folder.
    """
    snapshot = None
    if path is None:
        folder = builtin_bundle_path()
        if not (folder / contract.MANIFEST_FILE).is_file():
            raise BundleError(
                "this installation contains no built-in bundle; export one with "
                "'glesam-export onnx --preset nano -o nano' and pass --bundle nano"
            )
    elif isinstance(path, str) and (snapshot := _from_hub(path)) is not None:
        folder = snapshot.folder
    else:
        folder = Path(path)
    if not folder.is_dir():
        state = "is a file, not a bundle folder" if folder.exists() else "no such bundle folder"
        raise BundleError(
            f"{folder}: {state}; check the path or export a bundle with glesam-export"
        )
    manifest_path = folder / contract.MANIFEST_FILE
    if not manifest_path.is_file():
        raise BundleError(
            f"{folder}: not a bundle, because it has no {contract.MANIFEST_FILE}; check the path "
            "or export a bundle with glesam-export"
        )
    try:
        with manifest_path.open("rb") as file:
            raw = file.read(MANIFEST_BYTES.value + 1)
    except OSError as error:
        raise BundleError(
            f"{manifest_path}: cannot be read ({error.strerror}); check its permissions"
        ) from error
    MANIFEST_BYTES.check(len(raw), f"{manifest_path}: too long")
    manifest = manifest_file.parse(raw, str(manifest_path))
    for ref in manifest_file.file_refs(manifest):
        verify_file(folder, ref)
    for stage in manifest.stages.values():
        _verify_external_data(folder, stage)
    return Bundle(folder, manifest, hashlib.sha256(raw).hexdigest(), snapshot)


def _from_hub(text: str) -> Snapshot | None:
    """Return the files of the repository that a string names, or None if it is a path."""
    if "/" not in text:
        return None
    from glesam_runtime.hub import fetch, repository_of

    repository = repository_of(text)
    return None if repository is None else fetch(repository)


def load_golden(bundle: Bundle) -> dict[str, NDArray[np.generic]]:
    """Return the golden tensors by name: `image` is uint8 [H, W, 3], all others are float32.

    Raises:
        BundleError: the file is not safetensors or too large, or a tensor is missing or has another
            dtype or shape.
    """
    _check_golden_file(bundle)
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        tensors: dict[str, NDArray[np.generic]] = load_file(bundle.golden_path)
    except (SafetensorError, OSError) as error:
        raise BundleError(
            f"{bundle.golden_path}: not a golden file ({error}); export the bundle again"
        ) from error
    features = {spec.name for spec in bundle.manifest.stages["encoder"].outputs}
    missing = sorted((GOLDEN_TENSORS | features | _golden_levels(bundle)) - tensors.keys())
    if missing:
        raise BundleError(
            f"{bundle.golden_path}: lacks {', '.join(missing)}; export the bundle again"
        )
    return tensors


GOLDEN_TENSORS = frozenset(
    {
        "image",
        "image_embeddings",
        "enhanced_embeddings",
        "point_coords",
        "point_labels",
        "mask_input",
        "has_mask_input",
        "low_res_masks",
        "iou_predictions",
    }
)
"""The tensors of every golden.safetensors. The decoder's inputs have their names from the graph.
An encoder with further outputs adds these."""


def file_ref(path: Path) -> FileRef:
    """Return the name, size and hash of a file, for the manifest."""
    return FileRef(file=path.name, bytes=path.stat().st_size, sha256=sha256_of(path))


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file in hex digits. The file is read in pieces."""
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(_CHUNK))
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            digest.update(buffer[:count])
    return digest.hexdigest()


def verify_file(folder: Path, ref: FileRef) -> None:
    """Refuse a file that is missing or differs from the manifest's record of it.

    The file may be a link, as all are in a Hugging Face cache and on a Kubernetes volume: its bytes
    are checked, wherever they are, and its name in the manifest cannot lead out of the folder.

    Raises:
        BundleError: the file is missing or no regular file, unreadable, or has another size or
            hash.
    """
    path = folder / ref.file
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise FileNotFoundError
        size = status.st_size
        if size != ref.bytes:
            raise BundleError(
                f"{path}: {size} bytes, the manifest says {ref.bytes}; copy or export the bundle "
                "again"
            )
        if sha256_of(path) != ref.sha256:
            raise BundleError(
                f"{path}: altered, its sha256 is not the manifest's; copy or export the bundle "
                "again"
            )
    except FileNotFoundError as error:
        raise BundleError(
            f"{path}: missing from the bundle; copy or export the bundle again"
        ) from error
    except OSError as error:
        raise BundleError(
            f"{path}: cannot be read ({error.strerror}); check its permissions"
        ) from error


def require_own_weights(bundle: Bundle) -> None:
    """Refuse files of weights that are hard links, or links to another folder.

    Engines read most of them, but onnx-ir, which rewrites graphs, treats them as an attack and
    fails when it first reads a weight.

    Raises:
        BundleError: a file of weights is such a link.
    """
    for stage in contract.STAGES:
        data = bundle.manifest.stages[stage].data
        if data is not None and (bundle.path / data.file).stat().st_nlink > 1:
            raise BundleError(
                f"{bundle.path / data.file}: is a hard link, which onnx-ir refuses to read weights "
                "from; copy the bundle and use the copy"
            )
        if data is not None and _leads_away(bundle.path / data.file):
            raise BundleError(
                f"{bundle.path / data.file}: is a link to another folder, which onnx-ir refuses to "
                f"read weights from; {_FOLLOW_LINKS}"
            )


def remedy_for_links(bundle: Bundle, stage: StageName) -> str:
    """Return a remedy for an engine that refuses a graph whose weights are a link, "" for others.

    OpenVINO refuses weights that lie in another folder than the link to the graph, ONNX Runtime
    those that lie in another folder than the graph itself.
    """
    data = bundle.manifest.stages[stage].data
    if data is None or not _leads_away(bundle.path / data.file):
        return ""
    return f"; {data.file} is a link to another folder: {_FOLLOW_LINKS}"


_FOLLOW_LINKS = "copy the bundle with its links followed (cp -rL) and use the copy"


def _leads_away(path: Path) -> bool:
    """Return whether a file is a link that leaves its folder."""
    return not path.resolve().is_relative_to(path.parent.resolve())


def _verify_external_data(folder: Path, stage: Stage) -> None:
    """Refuse a graph that takes weights from anywhere but its declared data file."""
    onnx = stage.weights or stage.graph
    path = folder / onnx.file
    if path.suffix == ".engine":
        return
    declared = stage.data.file if stage.data is not None else None
    for location in sorted(external_data_locations(path)):
        if location != declared:
            raise BundleError(
                f"{path}: takes weights from {location!r}, the manifest declares "
                f"{declared or 'no data file'}; do not use it, export the bundle again"
            )


def _check_golden_file(bundle: Bundle) -> None:
    """Refuse a golden file that is too large, or whose tensors have another dtype or shape.

    Only the header is read. `load_golden` reports a file that is not safetensors.

    Raises:
        BundleError: naming the tensor.
    """
    path, size = bundle.golden_path, bundle.manifest.golden.bytes
    GOLDEN_BYTES.check(size, f"{path}: {size >> 20} MiB")
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            headers = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            found = {name: (each.get_dtype(), each.get_shape()) for name, each in headers.items()}
    except (SafetensorError, OSError):
        return
    sizes: dict[str, int] = {}
    shapes = _golden_shapes(bundle)
    for name, (dtype, shape) in found.items():
        declared = shapes.get(name)
        if declared is None:
            if dtype not in ("F32", "U8"):
                raise BundleError(
                    f"{path}: {name} is {dtype}, which no golden tensor is; export the bundle again"
                )
            continue
        want = "U8" if name == "image" else "F32"
        fits = len(shape) == len(declared) and all(
            have == (sizes.setdefault(axis, have) if isinstance(axis, str) else axis)
            for have, axis in zip(shape, declared, strict=True)
        )
        if dtype != want or not fits or 0 in shape:
            spelled = ", ".join(str(sizes.get(str(axis), axis)) for axis in declared)
            raise BundleError(
                f"{path}: {name} is {dtype} {shape}, but {want} [{spelled}] is needed; export the "
                "bundle again"
            )
    _check_golden_sizes(path, {name: shape for name, (_, shape) in found.items()})


def _check_golden_sizes(path: Path, shapes: dict[str, list[int]]) -> None:
    """Refuse an image or prompts that take far more memory than the golden file."""
    if "image" in shapes:
        height, width, _ = shapes["image"]
        check_picture(width, height, str(path))
    if "point_labels" in shapes:
        prompts, points = shapes["point_labels"]
        if prompts > _MOST_GOLDEN_PROMPTS:
            raise BundleError(
                f"{path}: holds {prompts} prompts, more than {_MOST_GOLDEN_PROMPTS}; export the "
                "bundle again"
            )
        POINTS.check(points, f"{path}: {points} points in one prompt")


def _golden_levels(bundle: Bundle) -> set[str]:
    """Return the names of the enhancer's outputs at the timesteps that are no default."""
    own = bundle.manifest.model.timestep
    steps = (level.timestep for level in levels_of(bundle.manifest))
    return {golden_name(step) for step in steps if step != own}


def _golden_shapes(bundle: Bundle) -> dict[str, tuple[int | str, ...]]:
    """Return the shape of each golden tensor; a name is an axis of any size."""
    stages = bundle.manifest.stages
    shapes: dict[str, tuple[int | str, ...]] = {"image": ("H", "W", 3)}
    for stage in ("encoder", "enhancer"):
        # The golden file has one image, whatever the batch of the graphs.
        for spec in stages[stage].outputs:
            shapes[spec.name] = (1, *spec.shape[1:])
    for name in _golden_levels(bundle):
        shapes[name] = shapes["enhanced_embeddings"]
    decoder = stages["decoder"]
    for spec in (*decoder.inputs, *decoder.outputs):
        shapes.setdefault(spec.name, spec.shape)
    return shapes
