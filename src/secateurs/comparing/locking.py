"""One writer of a file at a time. The lock belongs to the open file: it goes with its process, however that ends."""

from __future__ import annotations

import errno
import sys
from pathlib import Path
from typing import BinaryIO

from secateurs.errors import BadInput

__all__ = ["lock"]

TAKEN = (errno.EACCES, errno.EAGAIN, errno.EDEADLK)


def lock(stream: BinaryIO, path: str | Path) -> str | None:
    """Keep other processes from locking the file too until ``stream`` is closed; they can still read it.

    Returns a warning where the file system has no locks.

    Raises:
        BadInput: another process has the lock.
    """
    try:
        _take(stream)
    except OSError as error:
        if error.errno in TAKEN:
            raise BadInput(f"results file {str(path)!r} is being written by another comparison; wait for it, or choose another "
                           "folder (--out)") from error  # fmt: skip
        return f"{path} cannot be locked ({error}): see to it that nothing else writes it"
    return None


if sys.platform == "win32":
    import msvcrt

    def _take(stream: BinaryIO) -> None:
        """Lock one byte far behind the end: what is locked there cannot be read by others."""
        stream.seek(1 << 40)
        msvcrt.locking(stream.fileno(), msvcrt.LK_NBLCK, 1)
        stream.seek(0, 2)

else:
    import fcntl

    def _take(stream: BinaryIO) -> None:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
