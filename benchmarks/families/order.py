"""The order of the data as a pure function of (seed, step): a resumed run sees what the uninterrupted one would have seen."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

__all__ = ["epoch_order", "mixed", "shuffled"]


def mixed(seed: int, step: int) -> int:
    """One 63-bit seed for what is drawn at ``step`` (crops, flips, dropout)."""
    return int(np.random.SeedSequence([seed, step]).generate_state(2, np.uint32).view(np.uint64)[0] >> np.uint64(1))


@lru_cache(maxsize=4)
def epoch_order(n: int, seed: int, epoch: int) -> np.ndarray:
    """A permutation of ``n``, fresh for every epoch."""
    return np.random.default_rng([seed, epoch]).permutation(n)


def shuffled(n: int, batch: int, seed: int, step: int) -> np.ndarray:
    """The indices of the batch at ``step``: epoch after epoch, what does not fill a batch is left out of its epoch."""
    per_epoch = n // batch
    epoch, at = divmod(step, per_epoch)
    return epoch_order(n, seed, epoch)[at * batch : (at + 1) * batch]
