"""Everything random of a run, drawn from (seed, step): a resumed run needs no random state to go on as if never stopped."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from secateurs.errors import BadInput

__all__ = ["batch_at", "mixed", "own_randomness", "seed_all", "step_seed"]

_BLOCK = 1024  # steps whose seeds are made together


def mixed(seed: int, step: int, *purpose: int) -> int:
    """One 63-bit seed for what is drawn at ``step``; another for every ``purpose`` (numbers from 1 on)."""
    words = np.random.SeedSequence([seed, step, *purpose]).generate_state(2, np.uint32)
    return int(words.view(np.uint64)[0] >> np.uint64(1))


def step_seed(seed: int, step: int) -> int:
    """``mixed(seed, step)``, in a fortieth of the time: it is asked for before every step, and a small network's are short."""
    if not 0 <= seed < 2**32:
        return mixed(seed, step)
    block, at = divmod(step, _BLOCK)
    return _seeds(seed, block)[at]


@lru_cache(maxsize=4)
def _seeds(seed: int, block: int) -> list[int]:
    """The seeds of a block of steps: what numpy's ``SeedSequence`` does to two words, for many second words at once."""
    multiply_a, multiply_b = 0x931E8875, 0x58F38DED
    constant = 0x43B0D7E5

    def hashed(word: Any) -> Any:
        nonlocal constant
        word = word ^ np.uint32(constant)
        constant = constant * multiply_a % 2**32
        word = word * np.uint32(constant)
        return word ^ word >> np.uint32(16)

    steps = np.arange(block * _BLOCK, (block + 1) * _BLOCK, dtype=np.uint64).astype(np.uint32)
    pool = [hashed(np.full_like(steps, word)) if isinstance(word, int) else hashed(word) for word in (seed, steps, 0, 0)]
    for source in range(4):
        for target in range(4):
            if source != target:
                mix = np.uint32(0xCA01F9DD) * pool[target] - np.uint32(0x4973F715) * hashed(pool[source])
                pool[target] = mix ^ mix >> np.uint32(16)
    words, constant = [], 0x8B51F9DD
    for word in pool[:2]:
        word = word ^ np.uint32(constant)
        constant = constant * multiply_b % 2**32
        word = word * np.uint32(constant)
        words.append((word ^ word >> np.uint32(16)).astype(np.uint64))
    return [int(found) for found in (words[1] << np.uint64(32) | words[0]) >> np.uint64(1)]


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
