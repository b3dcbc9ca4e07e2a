"""The memory of this process: what it holds itself, sampled while it works, against a budget."""

from __future__ import annotations

import ctypes
import re
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from secateurs.errors import BadInput

__all__ = ["MemoryUse", "PeakAnonymous", "anonymous_bytes", "give_back_freed", "parse_bytes"]

_STATUS = Path("/proc/self/status")
_UNITS = {"b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12, "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40}


def parse_bytes(text: str) -> int:
    """``"2GB"`` (10^9), ``"1.5 GiB"`` (2^30) or ``"800000000 B"`` as a number of bytes.

    Raises:
        BadInput: no number above zero, or no unit.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]+)\s*", text.lower())
    size = int(float(found[1]) * _UNITS[found[2]]) if found and found[2] in _UNITS else 0
    if size < 1:
        raise BadInput(f"memory {text!r}: give a number and a unit, as 2GB, 512MB or 1.5GiB")
    return size


def anonymous_bytes() -> int | None:
    """What this process holds in memory that no file stands behind, shared memory included; None where nothing tells.

    Pages of files that are only read (weights that safetensors maps) are not counted: the system takes them back at will.
    """
    try:
        text = _STATUS.read_text(encoding="ascii")
    except OSError:
        return None
    found = dict(re.findall(r"^(RssAnon|RssShmem):\s+(\d+) kB$", text, re.MULTILINE))
    return sum(map(int, found.values())) * 1024 if "RssAnon" in found else None


def give_back_freed() -> None:
    """Have the C library return to the system what has been freed: glibc keeps most of it, in pieces between what is used.

    Nothing happens with another library.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


@dataclass(frozen=True)
class MemoryUse:
    """A ``budget`` and the ``peak`` that was measured, in bytes; the peak is None where it cannot be measured."""

    budget: int
    peak: int | None

    @property
    def kept(self) -> bool | None:
        """Whether the peak stayed within the budget; None where that is not known."""
        return None if self.peak is None else self.peak <= self.budget


class PeakAnonymous:
    """Watches :func:`anonymous_bytes` every few milliseconds from a thread, while the block inside ``with`` runs.

    What rises and falls between two looks is not seen.

    Attributes:
        peak: the most that was seen, in bytes; None where it cannot be measured.
    """

    def __init__(self, every: float = 0.005):
        self._every = every
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.peak: int | None = None

    def __enter__(self) -> PeakAnonymous:
        self._look()
        if self.peak is not None:
            self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()
        self._look()

    def _watch(self) -> None:
        while not self._stop.wait(self._every):
            self._look()

    def _look(self) -> None:
        now = anonymous_bytes()
        if now is not None:
            self.peak = max(self.peak or 0, now)
