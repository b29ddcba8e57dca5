"""Opens the tensors of several files, which an index names, as if they were in one file."""

from __future__ import annotations

import json
from pathlib import Path

from torch import Tensor

from glesam_export.checkpoints.tensor_file import TensorFile, first_line
from glesam_runtime.errors import CheckpointError
from glesam_runtime.input_paths import read_json_file


class ShardedFile(TensorFile):
    """The tensors of several files as if they were in one, as Hugging Face writes large models.

    Args:
        index: the JSON file that names each tensor's file, beside these files.
        option: the option that names the files, for messages.

    Raises:
        CheckpointError: the index cannot be read, a file is missing, or the files hold other
            tensors than the index says.
    """

    def __init__(self, index: Path, option: str = "") -> None:
        self.path, self.where = index, f"{option} {index}".strip()
        self.metadata = {}
        self._change = lambda tensors: tensors
        try:
            places = json.loads(read_json_file(index).decode())["weight_map"]
            names = sorted({str(name) for name in places.values()})
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise CheckpointError(
                f"{self.where}: no index of files ({first_line(error)}); fetch it again"
            ) from error
        if outside := [name for name in names if Path(name).name != name]:
            raise CheckpointError(f"{self.where}: names {outside[0]}, outside its folder")
        self._parts = [TensorFile(index.with_name(name), option) for name in names]
        self.files = [part.path for part in self._parts]
        self.shapes = {name: tensor for part in self._parts for name, tensor in part.shapes.items()}
        if differing := sorted(places.keys() ^ self.shapes.keys()):
            raise CheckpointError(
                f"{self.where}: {differing[0]} is only in the index or only in the files; "
                "fetch them again"
            )

    def _stored(self) -> dict[str, Tensor]:
        """Return the tensors of all files."""
        return {name: t for part in self._parts for name, t in part.read().items()}
