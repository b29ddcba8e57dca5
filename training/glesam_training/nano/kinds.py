"""Name what an ablation can vary, without importing torch: --help reads it."""

from typing import Literal

Kind = Literal["gamma", "rank", "levels", "parts", "recipe", "input"]
