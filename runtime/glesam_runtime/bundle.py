"""Opening a bundle folder: nothing reaches an engine before every byte is the one exported."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from glesam_runtime import manifest as contract
from glesam_runtime import manifest_file
from glesam_runtime.errors import BundleError
from glesam_runtime.manifest import FileRef, Manifest, Stage, StageName
from glesam_runtime.onnx_files import external_data_locations

if TYPE_CHECKING:
    import os

    import numpy as np
    from numpy.typing import NDArray

_CHUNK = 1 << 20


@dataclass(frozen=True)
class Bundle:
    """A bundle whose files have been checked against its manifest."""

    path: Path
    manifest: Manifest
    sha256: str
    """Of manifest.json, which holds the hashes of all the others: it names the whole bundle."""

    def graph_path(self, stage: StageName) -> Path:
        """The file an engine loads for `stage`."""
        return self.path / self.manifest.stages[stage].graph.file

    def weights_path(self, stage: StageName) -> Path | None:
        """The ONNX graph that an engine without weights takes them from; None where it has them."""
        weights = self.manifest.stages[stage].weights
        return self.path / weights.file if weights is not None else None

    def stage_sha256(self, stage: StageName) -> str:
        """Of a stage's graph and of the weights beside it, without which graphs may be alike."""
        record = self.manifest.stages[stage]
        hashes = [file.sha256 for file in (record.graph, record.data) if file is not None]
        return hashlib.sha256("".join(hashes).encode()).hexdigest()

    @property
    def golden_path(self) -> Path:
        """One image, its prompts and every stage's output from the reference."""
        return self.path / self.manifest.golden.file


def builtin_bundle_path() -> Path:
    """The folder of the nano bundle that ships inside the package."""
    return Path(__file__).parent / "nano"


def open_bundle(path: str | os.PathLike[str] | None = None) -> Bundle:
    """Open a bundle and verify all of it: manifest, sizes, hashes, external data.

    Args:
        path: a bundle folder; None is the built-in nano bundle.

    Raises:
        BundleError: anything missing, altered, of another version, or reaching outside the folder.
    """
    if path is None:
        folder = builtin_bundle_path()
        if not (folder / contract.MANIFEST_FILE).is_file():
            raise BundleError(
                "this installation holds no built-in bundle; make one with "
                "'glesam-export onnx --preset nano -o nano' and pass --bundle nano"
            )
    else:
        folder = Path(path)
    if not folder.is_dir():
        state = "is a file, not a bundle folder" if folder.exists() else "no such bundle folder"
        raise BundleError(f"{folder}: {state}; make one with glesam-export")
    manifest_path = folder / contract.MANIFEST_FILE
    if not manifest_path.is_file():
        raise BundleError(f"{folder}: not a bundle, it has no {contract.MANIFEST_FILE}")
    try:
        raw = manifest_path.read_bytes()
    except OSError as error:
        raise BundleError(f"{manifest_path}: cannot be read ({error.strerror})") from error
    manifest = manifest_file.parse(raw, str(manifest_path))
    for ref in manifest_file.file_refs(manifest):
        verify_file(folder, ref)
    for stage in manifest.stages.values():
        _verify_external_data(folder, stage)
    return Bundle(folder, manifest, hashlib.sha256(raw).hexdigest())


def load_golden(bundle: Bundle) -> dict[str, NDArray[np.generic]]:
    """The golden tensors by name: `image` uint8 [H,W,3], all others float32.

    Raises:
        BundleError: the file is not safetensors or lacks a tensor.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        tensors: dict[str, NDArray[np.generic]] = load_file(bundle.golden_path)
    except (SafetensorError, OSError) as error:
        raise BundleError(f"{bundle.golden_path}: not a golden file ({error})") from error
    features = {spec.name for spec in bundle.manifest.stages["encoder"].outputs}
    missing = sorted((GOLDEN_TENSORS | features) - tensors.keys())
    if missing:
        raise BundleError(f"{bundle.golden_path}: lacks {', '.join(missing)}; export again")
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
"""What every golden.safetensors holds, beside the encoder's further outputs where it has any; the
decoder's inputs go by their names in the graph."""


def file_ref(path: Path) -> FileRef:
    """Describe a file for the manifest: name, bytes, sha256."""
    return FileRef(file=path.name, bytes=path.stat().st_size, sha256=sha256_of(path))


def sha256_of(path: Path) -> str:
    """Hex SHA-256 of a file, read in pieces."""
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(_CHUNK))
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            digest.update(buffer[:count])
    return digest.hexdigest()


def verify_file(folder: Path, ref: FileRef) -> None:
    """Refuse a file that is missing or is not byte for byte the one the manifest names.

    Raises:
        BundleError: naming the file and what is wrong with it.
    """
    path = folder / ref.file
    try:
        # A link could lead out of the folder, where another program may change what it points to.
        if path.is_symlink():
            raise BundleError(f"{path}: is a link; a bundle holds its own files")
        if not path.is_file():
            raise BundleError(f"{path}: missing from the bundle; export or copy it again")
        size = path.stat().st_size
        if size != ref.bytes:
            raise BundleError(f"{path}: {size} bytes, the manifest says {ref.bytes}; copy it again")
        if sha256_of(path) != ref.sha256:
            raise BundleError(
                f"{path}: altered, its sha256 is not the manifest's; copy or export it again"
            )
    except OSError as error:
        raise BundleError(f"{path}: cannot be read ({error.strerror})") from error


def require_own_weights(bundle: Bundle) -> None:
    """Refuse hard links in place of weights.

    An engine reads them, but onnx-ir, by which graphs are changed, takes them for an attack and
    says so where it first needs a weight. (No bundle opens with symbolic ones.)

    Raises:
        BundleError: a file of weights has another name too.
    """
    for stage in contract.STAGES:
        data = bundle.manifest.stages[stage].data
        if data is not None and (bundle.path / data.file).stat().st_nlink > 1:
            raise BundleError(
                f"{bundle.path / data.file}: is a hard link, which onnx-ir refuses to read weights "
                "from; copy the bundle and use the copy"
            )


def _verify_external_data(folder: Path, stage: Stage) -> None:
    """A graph may take weights from its declared data file and from nowhere else."""
    onnx = stage.weights or stage.graph
    path = folder / onnx.file
    if path.suffix == ".engine":
        return
    declared = stage.data.file if stage.data is not None else None
    for location in sorted(external_data_locations(path)):
        if location != declared:
            raise BundleError(
                f"{path}: takes weights from {location!r}, the manifest declares "
                f"{declared or 'no data file'}; refused"
            )
