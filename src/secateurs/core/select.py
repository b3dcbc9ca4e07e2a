"""Exact selection: remove precisely the promised number of entries, in every dtype, ties to the lower index.

The k-th smallest score is found by radix selection on the scores' own bits: histograms of 16 bits at a time, added up over
chunks and over tensors. So a global ranking streams over layers, needs no copy of any of them, and does not depend on the
order in which the histograms are added.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from secateurs.errors import BadInput, NotFinite

__all__ = ["Cut", "check_finite", "cut_mask", "find_cut", "keep_mask", "keep_mask_grouped"]

_CHUNK = 1 << 22  # entries looked at together: temporaries stay near 32 MB
_KEY = {torch.float64: torch.int64, torch.float32: torch.int32, torch.bfloat16: torch.int16, torch.float16: torch.int16}


@dataclass(frozen=True)
class Cut:
    """Where a ranking is cut: every score above ``value`` stays, and the first ``ties_kept`` of those equal to it."""

    value: float
    ties_kept: int


def check_finite(scores: Tensor, name: str) -> None:
    """Raise :class:`NotFinite` naming the tensor if any entry is NaN or infinite."""
    for part in _chunks(scores):
        if not torch.isfinite(part).all():
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
        counts = None
        for scores in streams():
            for key in _keys(scores):
                bits = torch.iinfo(key.dtype).bits
                here = _digits(key, digit, prefix, bits)
                found = torch.bincount(here, minlength=1 << 16)
                counts = found.cpu() if counts is None else counts + found.cpu()
                dtype = scores.dtype
        if counts is None:
            raise BadInput("nothing to rank: the selection is empty")
        total = torch.cumsum(counts, 0)
        if rank >= int(total[-1]):  # everything goes: only possible on the first digit
            return Cut(float("inf"), 0)
        bucket = int(torch.searchsorted(total, rank, right=True))  # the digit of the lowest score that stays
        below = int(total[bucket - 1]) if bucket else 0
        rank, prefix, digit = rank - below, (prefix << 16) | bucket, digit + 1
        if digit * 16 == bits:
            return Cut(_value(prefix, bits, dtype), int(counts[bucket]) - rank)


def cut_mask(scores: Tensor, cut: Cut) -> Tensor:
    """The boolean mask of ``scores`` under ``cut``: True above the value, and for the first ``ties_kept`` equal entries."""
    kept = scores > cut.value
    if not cut.ties_kept:
        return kept
    flat, missing, offset = kept.view(-1), cut.ties_kept, 0
    for part in _chunks(scores):
        ties = (part == cut.value).nonzero().view(-1)[:missing]
        flat[offset : offset + part.numel()][ties] = True
        missing, offset = missing - ties.numel(), offset + part.numel()
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
    rule = _rank_by_pairs if units <= 16 else _rank_by_sort
    for start in range(0, groups, step):
        kept[start : start + step] = rule(scores[start : start + step], units - remove)
    return kept


def _rank_by_pairs(scores: Tensor, keep: int) -> Tensor:
    """For short rows: an entry's rank is how many beat it, counted pair by pair (no sort of millions of fours)."""
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


def _chunks(scores: Tensor) -> Iterator[Tensor]:
    flat = scores.detach().reshape(-1)
    for start in range(0, flat.numel(), _CHUNK):
        yield flat[start : start + _CHUNK]


def _keys(scores: Tensor) -> Iterator[Tensor]:
    """Signed integers in the order of the scores: a negative float's bits run backwards, so they are turned round."""
    if scores.dtype not in _KEY:
        raise BadInput(f"scores of dtype {scores.dtype} cannot be ranked; use one of {[str(d) for d in _KEY]}")
    integer = _KEY[scores.dtype]
    for part in _chunks(scores):
        key = part.view(integer) if part.is_contiguous() else part.contiguous().view(integer)
        negative = key < 0
        if negative.any():
            key = torch.where(negative, torch.iinfo(integer).min - key, key)  # -0.0 becomes 0, -x becomes -bits(x)
        yield key


def _digits(key: Tensor, digit: int, prefix: int, bits: int) -> Tensor:
    """The ``digit``-th 16 bits (0 = highest, offset so that they are unsigned) of the keys that begin with ``prefix``."""
    if digit:
        key = key[((key >> (bits - 16 * digit)) + (1 << (16 * digit - 1))) == prefix]
    shifted = key >> (bits - 16 * (digit + 1))
    return (shifted.to(torch.int32) + (1 << 15)) if digit == 0 else (shifted & 0xFFFF)


def _value(prefix: int, bits: int, dtype: torch.dtype) -> float:
    """The score whose key has the (offset) digits ``prefix``."""
    key = prefix - (1 << (bits - 1))
    if key < 0:
        key = torch.iinfo(_KEY[dtype]).min - key
    return float(torch.tensor([key], dtype=_KEY[dtype]).view(dtype))
