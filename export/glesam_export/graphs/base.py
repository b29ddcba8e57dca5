"""What the three graphs have in common."""

from __future__ import annotations

import torch
from torch import nn


class Graph(nn.Module):
    """A stage written for export: float32 at both ends, `dtype` in between."""

    dtype: torch.dtype = torch.float32
    """What flows inside; `precision.apply` sets it."""
