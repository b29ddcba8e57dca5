"""Writes ONNX graphs, weights beside them where they are too many for one file."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import onnx_ir as ir

EXTERNAL_DATA_FROM = 1 << 30
"""Bytes of weights past which they go into a file of their own (ONNX ends at 2 GiB a file)."""


def save_graph(model: ir.Model, path: Path) -> Path | None:
    """Write a graph and, past EXTERNAL_DATA_FROM, its weights as `<name>.onnx.data` beside it.

    Weights that the model reads from another graph's file are written like any other.

    Returns:
        The data's path, if there is any.

    Raises:
        OSError: it cannot be written; ENOSPC of a full disk.
    """
    weights = sum(v.const_value.nbytes for v in model.graph.initializers.values() if v.const_value)
    data = path.with_name(path.name + ".data") if weights > EXTERNAL_DATA_FROM else None
    if data is None:
        ir.external_data.load_to_model(model)  # what stays external would name a file left behind
    try:
        ir.save(model, path, external_data=data.name if data else None)
    except OSError as error:
        if error.errno is not None:
            raise
        # NumPy writes the data, and of a full disk says no more than how many numbers went in.
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(data or path)) from error
    return data
