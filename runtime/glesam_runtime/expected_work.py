"""Say how much work an engine is loaded for, and estimate how long a small bundle needs for it.

`--backend auto` weighs what an engine costs to start against what it saves with every image and
prompt (docs/adr/0035).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from glesam_runtime.errors import InputError

if TYPE_CHECKING:
    from glesam_runtime.backends import Costs

_NO_END = 1_000_000
"""Stands for work without a known end: only the rate counts then."""


@dataclass(frozen=True)
class ExpectedWork:
    """The work that a program expects, for which `auto` selects the engine.

    Attributes:
        images: number of images to encode, the crops of everything-mode included; None is a
            program that runs for long, such as a server.
        prompts: number of prompts to decode on all images together; None as for `images`.
        measure: whether the choice may depend on a measurement of this machine. Otherwise it
            depends on these numbers alone, so that programs that are to agree make the same choice.

    Raises:
        InputError: a number is negative.
    """

    images: int | None = 1
    prompts: int | None = 1
    measure: bool = True

    def __post_init__(self) -> None:
        for name, number in (("images", self.images), ("prompts", self.prompts)):
            if number is not None and number < 0:
                raise InputError(f"work: {number} {name}; give a number that is not negative")

    def seconds(self, costs: Costs) -> float:
        """Return how long a backend of these costs is expected to take."""
        images = _NO_END if self.images is None else self.images
        prompts = _NO_END if self.prompts is None else self.prompts
        return costs.start + images * costs.image + prompts * costs.prompt

    @property
    def has_end(self) -> bool:
        """Return whether both numbers are known."""
        return self.images is not None and self.prompts is not None

    def __str__(self) -> str:
        if not self.has_end:
            return "a program that runs for long"
        images = "1 image" if self.images == 1 else f"{self.images} images"
        return f"{images} and {'1 prompt' if self.prompts == 1 else f'{self.prompts} prompts'}"


LASTING = ExpectedWork(None, None)
"""The work of a server, and of any program that does not know its end."""
