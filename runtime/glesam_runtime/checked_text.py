"""Define types of text in manifest.json."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

NO_FINAL_BREAK = r"(?!\n)"
"""What follows `$` in Python, where `$` alone accepts a final line break.

In JSON Schema it does not, and not every reader of schemas knows lookaheads, so
`manifest_file.json_schema` leaves it out.
"""


def whole(pattern: str) -> Meta:
    """Return the check that a pattern matches all of a string."""
    return Meta(pattern=f"^{pattern}${NO_FINAL_BREAK}")


Sha256 = Annotated[str, whole("[0-9a-f]{64}")]
