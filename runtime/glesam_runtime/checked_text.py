"""Define types of text in manifest.json."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta


def whole(pattern: str) -> Meta:
    r"""Return the check that a pattern matches all of a string.

    `$` alone accepts a final line break, and `\Z` is no part of JSON Schema's patterns.
    """
    return Meta(pattern=rf"^{pattern}$(?!\n)")


Sha256 = Annotated[str, whole("[0-9a-f]{64}")]
