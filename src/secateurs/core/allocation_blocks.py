"""Shares per block of a large model that add up to one total exactly: outliers (OWL) and water filling (ECoFLaP)."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Hashable, Sequence
from fractions import Fraction

import torch
from torch import Tensor

from secateurs.core.count import check_sparsity, largest_remainder, removed_count
from secateurs.errors import BadInput

__all__ = ["block_of", "group_scores", "outlier_ratio", "owl_counts", "staged_sparsities", "water_fill", "within_groups"]


def block_of(name: str) -> str:
    """The block a parameter lies in, by its name: everything up to the first number, or the name itself.

    >>> block_of("model.layers.3.mlp.up_proj.weight"), block_of("lm_head.weight")
    ('model.layers.3', 'lm_head.weight')
    """
    found = re.match(r"(?:.*?\.)??\d+(?=\.)", name)
    return found.group() if found else name


def outlier_ratio(scores: Sequence[Tensor], multiple: float = 5.0) -> float:
    """The share of all entries of ``scores``, a block's tensors, above ``multiple`` times their common mean (Yin et al. 2023).

    Scores below zero (weights that are zero already) count as 0.
    """
    flat = [s.detach().reshape(-1).clamp(min=0) for s in scores]
    entries = sum(s.numel() for s in flat)
    if not entries:
        raise BadInput("a block without scores has no outliers to count")
    bar = multiple * sum(float(s.sum(dtype=torch.float64)) for s in flat) / entries
    return sum(int(torch.count_nonzero(s.double() > bar)) for s in flat) / entries


def owl_counts(ratios: Sequence[float], sizes: Sequence[int], sparsity: float, spread: float = 0.08) -> list[int]:
    """How many of every block's weights go, more where outliers are fewer (OWL, Yin et al. 2023, section 3.2).

    The outlier ``ratios`` are scaled to [0, 1]; block l loses a share ``S_l = t - 2 spread d_l``, so shares lie within a range
    of ``2 spread``, and t makes ``sum S_l n_l`` the count ``floor(s N + 1/2)`` of all N weights. For blocks of one size that is
    the authors' rule (mean share s). Where a share would leave [0, 1] it is held there, and t moves on for the others.
    Integers by largest remainder; of blocks of one size, the one with more outliers keeps no less, the earlier one of equals.
    Equal ratios give the uniform share.

    Raises:
        BadInput: lengths, ratios, sparsity or spread that cannot work.
    """
    _check(ratios, sizes, "outlier ratios")
    if not 0 <= spread <= 0.5:
        raise BadInput(f"spread={spread!r}: blocks' shares differ by at most twice this, 0 to 0.5; 0.08 is the published one")
    remove = removed_count(sum(sizes), check_sparsity(sparsity))
    low, width = min(ratios), max(ratios) - min(ratios)
    dips = [2 * spread * (r - low) / width if width > 0 else 0.0 for r in ratios]

    def shares(t: float) -> list[float]:
        return [n * min(max(t - dip, 0.0), 1.0) for n, dip in zip(sizes, dips, strict=True)]

    counts = largest_remainder(shares(_meet(shares, remove, 1 + 2 * spread)), remove, _capacity(sizes, remove))
    return _minus(sizes, _in_order(_minus(sizes, counts), sizes, ratios))


def water_fill(scores: Sequence[float], sizes: Sequence[int], sparsity: float, most: float | None = None) -> list[int]:
    """How many of every group's weights go: what stays is poured in proportion to ``scores`` (ECoFLaP, Sung et al. 2024).

    A group of n keeps ``min(n, n (1 - most) + t score)``, with the t that makes these ``N - floor(s N + 1/2)`` together: what
    repeated proportional filling ends in. Integers by largest remainder, none below ``ceil(n (1 - most))``; of groups of one
    size, the one with the higher score keeps no less, the earlier one of equals. Groups of score 0 get what the full ones
    leave, by size. Where rounding alone puts the floors above the total (``most`` equal to ``sparsity``, or very small groups),
    every group loses the uniform share instead.

    Args:
        scores: one per group, 0 or more, for all of its weights together (:func:`group_scores`).
        sizes: weights per group.
        sparsity: share removed of all weights.
        most: largest share a group may lose; ``sparsity + 0.1`` unless told.

    Raises:
        BadInput: lengths or scores that cannot work, or ``most`` below ``sparsity``.
    """
    _check(scores, sizes, "scores")
    share = Fraction(str(check_sparsity(sparsity)))
    highest = min(share + Fraction(1, 10) if most is None else Fraction(str(float(most))), Fraction(1))
    if highest < share:
        raise BadInput(f"most={most!r} is below the sparsity {sparsity}: no group could lose as much as all do on average")
    keep = sum(sizes) - removed_count(sum(sizes), sparsity)
    whole = [max(1, math.ceil(n * (1 - highest))) if n else 0 for n in sizes]
    if sum(whole) > keep:
        kept = largest_remainder([float(n * (1 - share)) for n in sizes], keep, sizes)
    else:
        shares = _poured(list(scores), sizes, [float(n * (1 - highest)) for n in sizes], keep)
        kept = largest_remainder(shares, keep, sizes, whole)
    return _minus(sizes, _in_order(kept, sizes, scores))


def _poured(scores: list[float], sizes: Sequence[int], floors: list[float], keep: int) -> list[float]:
    """Real amounts kept: floors, and what is left in proportion to the scores; groups of score 0 wait for the others."""
    if math.fsum(n if s > 0 else f for s, n, f in zip(scores, sizes, floors, strict=True)) < keep:
        floors = [n if s > 0 else f for s, n, f in zip(scores, sizes, floors, strict=True)]
        scores = [0.0 if s > 0 else float(n) for s, n in zip(scores, sizes, strict=True)]

    def amounts(t: float) -> list[float]:
        return [min(float(n), f + t * s) for s, n, f in zip(scores, sizes, floors, strict=True)]

    enough = max(((n - f) / s for s, n, f in zip(scores, sizes, floors, strict=True) if s > 0), default=0.0)
    return amounts(_meet(amounts, keep, enough))


def group_scores(scores: Sequence[float], groups: Sequence[Hashable], sizes: Sequence[int], reduce: str = "sum") -> list[float]:
    """One score per group of tensors, in the order groups first appear: the sum, or ``"avg"``, the sum over its weights."""
    if reduce not in ("sum", "avg"):
        raise BadInput(f"reduce={reduce!r}: a group's score is the 'sum' of its tensors' or their 'avg' per weight")
    sums: dict[Hashable, float] = dict.fromkeys(groups, 0.0)
    weights: dict[Hashable, int] = dict.fromkeys(groups, 0)
    for score, group, n in zip(scores, groups, sizes, strict=True):
        sums[group] += score
        weights[group] += n
    return [sums[g] / max(weights[g], 1) if reduce == "avg" else sums[g] for g in sums]


def within_groups(counts: Sequence[int], groups: Sequence[Hashable], sizes: Sequence[int]) -> list[int]:
    """Counts per tensor that add up to ``counts`` per group: all tensors of a group lose its share, by largest remainder."""
    result = [0] * len(sizes)
    for count, group in zip(counts, dict.fromkeys(groups), strict=True):
        members = [i for i, g in enumerate(groups) if g == group]
        own = [sizes[i] for i in members]
        share = count / max(sum(own), 1)
        for i, k in zip(members, largest_remainder([n * share for n in own], count, _capacity(own, count)), strict=True):
            result[i] = k
    return result


def staged_sparsities(sparsity: float, stages: int = 3) -> list[float]:
    """Sparsities of an iterative run that re-scores after every stage, ``s^(stages / i)`` for i = 1 to ``stages``.

    >>> staged_sparsities(0.5)
    [0.125, 0.3535533905932738, 0.5]
    """
    return [check_sparsity(sparsity) ** (stages / i) for i in range(1, stages + 1)]


def _meet(amounts: Callable[[float], list[float]], total: int, high: float) -> float:
    """The t in [0, ``high``] at which ``amounts(t)``, which grow with t, add up to ``total``; to the last bit."""
    low = 0.0
    while low < (middle := (low + high) / 2) < high:
        if math.fsum(amounts(middle)) < total:
            low = middle
        else:
            high = middle
    return high


def _capacity(sizes: Sequence[int], total: int) -> list[int]:
    """A layer keeps at least one entry, where there is room for that."""
    less = [max(n - 1, 0) for n in sizes]
    return less if sum(less) >= total else list(sizes)


def _in_order(kept: Sequence[int], sizes: Sequence[int], scores: Sequence[float]) -> list[int]:
    """What rounding may have turned round, put right: among groups of one size, more is kept where the score is higher."""
    result = list(kept)
    for size in set(sizes):
        members = [i for i, n in enumerate(sizes) if n == size]
        counts = sorted((kept[i] for i in members), reverse=True)
        for i, count in zip(sorted(members, key=lambda i: -scores[i]), counts, strict=True):
            result[i] = count
    return result


def _minus(sizes: Sequence[int], kept: Sequence[int]) -> list[int]:
    return [n - k for n, k in zip(sizes, kept, strict=True)]


def _check(values: Sequence[float], sizes: Sequence[int], what: str) -> None:
    if not sizes or len(values) != len(sizes):
        raise BadInput(f"{len(values)} {what} for {len(sizes)} blocks; give one each")
    bad = [v for v in values if not 0 <= v < math.inf]
    if bad:
        raise BadInput(f"{what} must be finite and 0 or more; found {bad[0]!r}")
