"""Everything random of a run, drawn from (seed, step): a resumed run needs no random state to go on as if never stopped."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from secateurs.errors import BadInput

__all__ = ["batch_at", "mixed", "own_randomness", "seed_all"]


def mixed(seed: int, step: int, *purpose: int) -> int:
    """One 63-bit seed for what is drawn at ``step``; another for every ``purpose`` (numbers from 1 on)."""
    words = np.random.SeedSequence([seed, step, *purpose]).generate_state(2, np.uint32)
    return int(words.view(np.uint64)[0] >> np.uint64(1))


def seed_all(seed: int) -> None:
    """Seed the global generators of torch, numpy and Python, as ``torch.manual_seed`` does, in a hundredth of its time.

    That one asks every kind of device, in use or not, and where one is not yet in use keeps a note of each call for ever.
    """
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)


@contextmanager
def own_randomness() -> Iterator[None]:
    """Inside, the global generators may be seeded at will; afterwards they are as they were."""
    ours, theirs = random.getstate(), np.random.get_state()
    with torch.random.fork_rng():
        try:
            yield
        finally:
            random.setstate(ours)
            np.random.set_state(theirs)


def batch_at(examples: int, batch: int, seed: int, step: int) -> Tensor:
    """Indices ``[batch]`` of the training batch at ``step`` (from 0), a pure function of its arguments.

    Every epoch is a fresh permutation; what does not fill a batch at its end is left out of it.

    Raises:
        BadInput: there are fewer examples than a batch holds.
    """
    if examples < batch:
        raise BadInput(f"the training data has {examples} examples, which do not fill one batch of {batch}; make batch smaller")
    epoch, at = divmod(step, examples // batch)
    return _epoch(examples, seed, epoch)[at * batch : (at + 1) * batch]


@lru_cache(maxsize=4)
def _epoch(examples: int, seed: int, epoch: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng([seed, epoch]).permutation(examples))
