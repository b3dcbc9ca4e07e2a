"""Exact selection: remove precisely the promised number of entries, in every dtype, ties to the lower index.

The k-th smallest score is found by radix selection on the scores' own bits: histograms of 16 bits at a time, added up over
chunks and over tensors. So a global ranking streams over layers, needs no copy of any of them, and does not depend on the
order in which the histograms are added.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from secateurs.errors import BadInput, NotFinite

__all__ = ["Cut", "check_finite", "cut_mask", "find_cut", "keep_mask", "keep_mask_grouped", "tally"]

_CHUNK = 1 << 17  # entries looked at together on a CPU: temporaries stay in its cache
_KEY = {torch.float64: torch.int64, torch.float32: torch.int32, torch.bfloat16: torch.int16, torch.float16: torch.int16}


@dataclass(frozen=True)
class Cut:
    """Where a ranking is cut: every score above ``value`` stays, and the first ``ties_kept`` of those equal to it."""

    value: float
    ties_kept: int


def check_finite(scores: Tensor, name: str) -> None:
    """Raise :class:`NotFinite` naming the tensor if any entry is NaN or infinite."""
    if not scores.numel():
        return
    low, high = torch.aminmax(scores.detach())  # both are NaN where one entry is
    if not (torch.isfinite(low) and torch.isfinite(high)):
        bad = int(torch.count_nonzero(~torch.isfinite(scores)))
        raise NotFinite(f"{name!r} has {bad} non-finite of {scores.numel()} entries (NaN or infinite): nothing can be ranked; "
                        "look for a diverged run or a bad batch before pruning")  # fmt: skip


def find_cut(streams: Callable[[], Iterable[Tensor]], remove: int) -> Cut:
    """The cut that removes exactly ``remove`` of all entries of ``streams()``, taken as one ranked group in the order given.

    ``streams`` is called once per 16-bit digit (once for 16-bit floats, twice for float32, four times for float64) and gives
    the score tensors afresh each time, so that scores may be computed on the fly. All have one floating dtype.
    Zero and minus zero are the same score. Scores must be finite (:func:`check_finite`).
    """
    prefix, rank, digit = 0, remove, 0
    while True:
        counts = np.zeros(1 << 16, dtype=np.int64)
        dtype = None
        for scores in streams():
            dtype = scores.dtype
            for part in _parts(scores):
                counts += _histogram(_key(part, dtype), digit, prefix)
        if dtype is None:
            raise BadInput("nothing to rank: the selection is empty")
        total = np.cumsum(counts)
        if rank >= total[-1]:  # everything goes: only possible on the first digit
            return Cut(float("inf"), 0)
        bucket = int(np.searchsorted(total, rank, side="right"))  # the digit of the lowest score that stays
        rank -= int(total[bucket - 1]) if bucket else 0
        prefix, digit = (prefix << 16) | bucket, digit + 1
        if digit * 16 == torch.finfo(dtype).bits:
            return Cut(_value(prefix, dtype), int(counts[bucket]) - rank)


def tally(scores: Tensor, value: float) -> tuple[int, int]:
    """How many scores lie below ``value``, and how many are equal to it."""
    key, below, ties = _key_of(value, scores.dtype), 0, 0
    for part in _parts(scores):
        keys = _key(part, scores.dtype)
        below += int((keys < key).sum())
        ties += int((keys == key).sum())
    return below, ties


def cut_mask(scores: Tensor, cut: Cut) -> Tensor:
    """The boolean mask of ``scores`` under ``cut``: True above the value, and for the first ``ties_kept`` equal entries."""
    kept = scores > cut.value
    flat, missing, offset = kept.view(-1), cut.ties_kept, 0
    for part in _parts(scores) if missing else ():
        ties = torch.as_tensor(part, device=scores.device).view(scores.dtype) == cut.value
        where = ties.nonzero().view(-1)[:missing]
        flat[offset + where] = True
        missing, offset = missing - where.numel(), offset + len(part)
        if not missing:
            break
    return kept


def keep_mask(scores: Tensor, remove: int, name: str = "scores") -> Tensor:
    """A boolean mask of ``scores``' shape with exactly ``remove`` False entries: the lowest; of equal ones the later go first.

    >>> keep_mask(torch.tensor([3.0, 1.0, 1.0, 2.0]), 2).tolist()
    [True, False, False, True]

    Raises:
        BadInput: ``remove`` is not between 0 and the number of entries.
        NotFinite: a score is NaN or infinite.
    """
    if not 0 <= remove <= scores.numel():
        raise BadInput(f"cannot remove {remove} of the {scores.numel()} entries of {name!r}")
    check_finite(scores, name)
    if remove == 0:
        return torch.ones_like(scores, dtype=torch.bool)
    scores = scores.contiguous()
    return cut_mask(scores, find_cut(lambda: [scores], remove))


def keep_mask_grouped(scores: Tensor, remove: int, name: str = "scores") -> Tensor:
    """As :func:`keep_mask` in every row of ``scores`` ``[groups, units]``: each row loses exactly ``remove`` entries."""
    groups, units = scores.shape
    if not 0 <= remove <= units:
        raise BadInput(f"cannot remove {remove} of every {units} entries of {name!r}")
    check_finite(scores, name)
    kept = torch.empty(groups, units, dtype=torch.bool, device=scores.device)
    step = max(1, _CHUNK // max(units, 1))
    rule = _rank_by_pairs if units <= 16 and groups > 2048 else _rank_by_sort
    for start in range(0, groups, step):
        kept[start : start + step] = rule(scores[start : start + step], units - remove)
    return kept


def _rank_by_pairs(scores: Tensor, keep: int) -> Tensor:
    """For many short rows: an entry's rank is how many beat it, counted pair by pair (no sort of millions of fours)."""
    columns = scores.unbind(1)
    rank = torch.zeros(scores.shape, dtype=torch.int8, device=scores.device)
    for i, mine in enumerate(columns):
        for j, other in enumerate(columns):
            if i != j:
                rank[:, i] += other >= mine if j < i else other > mine
    return rank < keep


def _rank_by_sort(scores: Tensor, keep: int) -> Tensor:
    order = torch.argsort(scores, dim=1, descending=True, stable=True)
    return torch.zeros_like(scores, dtype=torch.bool).scatter_(1, order[:, :keep], True)


# Keys are handled as numpy arrays on a CPU: its small serial loops are quick and, unlike parallel ones, do not wait for a
# core that is busy with something else. On other devices they are tensors, in larger parts.


def _parts(scores: Tensor) -> Iterator[Any]:
    """The scores' bits, in order, as integers."""
    if scores.dtype not in _KEY:
        raise BadInput(f"scores of dtype {scores.dtype} cannot be ranked; use one of {[str(d) for d in _KEY]}")
    flat = scores.detach().reshape(-1).view(_KEY[scores.dtype])
    here: Any = flat.numpy() if flat.device.type == "cpu" else flat
    size = _CHUNK if flat.device.type == "cpu" else _CHUNK << 7
    for start in range(0, len(here), size):
        yield here[start : start + size]


def _key(part: Any, dtype: torch.dtype) -> Any:
    """Signed integers in the order of the scores: a negative float's bits run backwards, so they are turned round."""
    if part.min() >= 0:
        return part
    lowest = torch.iinfo(_KEY[dtype]).min
    where = np.where if isinstance(part, np.ndarray) else torch.where
    return where(part < 0, lowest - part, part)  # -0.0 becomes 0, -x becomes -bits(x)


def _histogram(key: Any, digit: int, prefix: int) -> np.ndarray:
    """Counts of the ``digit``-th 16 bits (0 = highest, offset to be unsigned) of the keys that begin with ``prefix``."""
    bits = 8 * key.itemsize
    if digit:
        key = key[(key >> (bits - 16 * digit)) == prefix - (1 << (16 * digit - 1))]
    digits = key >> (bits - 16 * (digit + 1))
    if isinstance(key, np.ndarray):
        digits = digits.astype(np.int64)
        return np.bincount(digits & 0xFFFF if digit else digits + (1 << 15), minlength=1 << 16)
    digits = digits.long()
    return torch.bincount(digits & 0xFFFF if digit else digits + (1 << 15), minlength=1 << 16).cpu().numpy()


def _key_of(value: float, dtype: torch.dtype) -> int:
    key = int(torch.tensor([value], dtype=dtype).view(_KEY[dtype]))
    return torch.iinfo(_KEY[dtype]).min - key if key < 0 else key


def _value(prefix: int, dtype: torch.dtype) -> float:
    """The score whose key has the (offset) digits ``prefix``."""
    key = prefix - (1 << (torch.finfo(dtype).bits - 1))
    if key < 0:
        key = torch.iinfo(_KEY[dtype]).min - key
    return float(torch.tensor([key], dtype=_KEY[dtype]).view(dtype))
