"""Say why a file of a job cannot be written, and what to do.

This needs no pyarrow, unlike `parts`, so a job can be planned and read without it.
"""

from __future__ import annotations

import errno


def remedy(error: OSError) -> str:
    """Return why a file of a job cannot be written, and what to do."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "no space left; free some and start the same command again, which resumes the job"
    if error.errno in (errno.EPERM, errno.ENOTSUP):
        return (
            "the file system refuses the file or a hard link to it; check the permissions, or "
            "choose a folder on a file system with hard links"
        )
    return f"cannot be written ({error.strerror or error})"
