"""List the cases of all kinds. Each module defines one kind and the list `CASES`."""

from __future__ import annotations

from ..case import Case
from . import manifests

CASES: list[Case] = [
    *manifests.CASES,
]
