"""Find the image that ends its process, so that a job loses that image alone.

A process that is killed for memory, or that crashes in a decoder, reports nothing: the scheduler
starts the chunk again, for ever. So each stage leaves a file for each chunk that it starts. A chunk
whose file exists is worked on with care: each image is noted before it starts, and an image that
was noted `_STRIKES` times fails. An image is only noted that often by ending its process, or by
as many kills of a whole machine within its own milliseconds.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
Result = TypeVar("Result")

_STRIKES = 3


class Started:
    """The note of one chunk in one stage. The folder is shared by all nodes."""

    def __init__(self, folder: Path, stage: str, chunk: int) -> None:
        """Start a chunk."""
        self._path = folder / f"{chunk // 1000:06}" / f"{chunk:09}.{stage}"
        self.is_careful = self._path.exists()
        """Whether each image is noted, because the chunk was started before."""
        self._noted: list[int] = []
        if self.is_careful:
            self._noted = [int(line) for line in self._path.read_text().split()]
        else:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._path.touch()

    def run(self, row: int, work: Callable[[], Result], failed: Callable[[str], Result]) -> Result:
        """Do the work of an image, or call `failed` with the reason if it ends its process.

        Args:
            row: the image's number in the job.
            work: does the work.
            failed: makes the result of an image that is not tried again.
        """
        if self._noted.count(row) >= _STRIKES:
            return failed(
                f"ended its process {_STRIKES + 1} times, for example for lack of memory; try the "
                "image alone with glesam-run"
            )
        if not self.is_careful:
            return work()
        with self._path.open("a") as file:
            file.write(f"{row}\n")
        result = work()
        self._noted = [noted for noted in [*self._noted, row] if noted != row]
        self._path.write_text("".join(f"{noted}\n" for noted in self._noted))
        return result

    def done(self) -> None:
        """Forget the chunk: all of its images are worked on."""
        self._path.unlink(missing_ok=True)
