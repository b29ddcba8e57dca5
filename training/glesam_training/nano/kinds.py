"""Name the small models, and what an ablation varies, without importing torch: --help reads it."""

from typing import Literal

NanoName = Literal["nano", "nano2"]
Kind = Literal["gamma", "rank", "levels", "parts", "recipe", "input"]
