"""Writing a file whole or not at all; folders that are left behind by processes that were killed."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["held_folder", "remove_abandoned", "write_whole"]


def write_whole(path: str | os.PathLike[str], content: bytes) -> None:
    """Write ``content`` beside ``path``, reach the disk, then rename: a reader finds the old file or the new one, never a part.

    The file gets the permissions any new file of this process gets.

    Raises:
        OSError: it could not be written; nothing is left behind and nothing replaced.
    """
    path = Path(path)
    beside = path.with_name(f".{path.name}.{os.urandom(4).hex()}")
    try:
        with beside.open("xb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(beside, path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


@contextmanager
def held_folder(folder: Path) -> Iterator[None]:
    """Inside, every process can tell that ``folder`` is in use; a process that is killed holds nothing."""
    descriptor = _lock(folder)
    try:
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)


def remove_abandoned(folders: Iterable[Path]) -> None:
    """Remove those of ``folders`` that no :func:`held_folder` holds, on systems that can tell."""
    for folder in folders:
        descriptor = _lock(folder)
        if descriptor is not None:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(descriptor)


def _lock(folder: Path) -> int | None:
    """A descriptor that locks ``folder`` until it is closed; None where another has it, or there are no such locks."""
    if sys.platform == "win32":
        return None
    import fcntl

    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return None  # gone meanwhile, or another user's
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor
