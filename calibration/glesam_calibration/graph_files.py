"""Write ONNX graphs, with the weights in a second file if they are too large for one.

A file of its own because both calibration and export write graphs with it.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

import onnx_ir as ir

EXTERNAL_DATA_FROM = 1 << 30
"""Weights of more bytes than this go into a file of their own (ONNX allows 2 GiB per file)."""


def save_graph(model: ir.Model, path: Path) -> Path | None:
    """Write a graph; weights above EXTERNAL_DATA_FROM go to `<name>.onnx.data` beside it.

    Weights that the model reads from the file of another graph are written as well.

    Returns:
        The path of the data file, or None.

    Raises:
        OSError: a file cannot be written; with ENOSPC if the disk is full.
    """
    weights = sum(v.const_value.nbytes for v in model.graph.initializers.values() if v.const_value)
    data = path.with_name(path.name + ".data") if weights > EXTERNAL_DATA_FROM else None
    if data is None:
        ir.external_data.load_to_model(
            model
        )  # external weights would refer to a file that may be deleted
    try:
        ir.save(model, path, external_data=data.name if data else None)
    except OSError as error:
        if error.errno is not None:
            raise
        # NumPy writes the data, and its error for a full disk has no error number.
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(data or path)) from error
    return data
