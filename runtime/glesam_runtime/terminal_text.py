"""Keep names and values of files from commanding the terminal that shows them."""

from __future__ import annotations

import re

_LONGEST = 2000
"""Characters of a line on stderr; the longest path of Linux has 4096 bytes, and few are near it."""

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""Control characters, line separators, and marks that turn the direction of text."""


def printable(text: str) -> str:
    """Escape the control characters of a line, so that a file name cannot command a terminal."""
    return _CONTROL.sub(lambda found: ascii(found[0])[1:-1], text)


def message_line(text: str) -> str:
    """Return a message as one line of at most 2000 characters, with control characters escaped.

    A message may repeat a name or a value of a file, and a hostile one has millions of characters.
    """
    if len(text) <= _LONGEST and len(line := printable(" ".join(text.split()))) <= _LONGEST:
        return line
    start = printable(" ".join(text[:_LONGEST].split()))
    end = printable(" ".join(text[-_LONGEST:].split()))
    half = _LONGEST // 2
    return f"{start[:half]} ... {end[-half:]}"


def print_line(text: str) -> None:
    """Print a line on stdout with control characters escaped."""
    print(printable(text))
