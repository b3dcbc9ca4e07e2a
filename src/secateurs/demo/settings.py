"""What is run: the settings of the experiment and its single runs, each known by a hash of all that decides its outcome."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from secateurs.demo.network import FULL
from secateurs.errors import BadInput
from secateurs.recipe import Recipe

__all__ = ["Job", "Settings", "dense_jobs", "full_and_sparse_jobs", "recipe"]


@dataclass(frozen=True)
class Settings:
    """The experiment. Every run, dense or sparse, trains with the same ``training`` for the same number of steps."""

    steps: int = 1200
    batch: int = 64
    rate: float = 0.1
    decay: float = 5e-4
    every: int = 20
    sparsities: tuple[float, ...] = (0.5, 0.75, 0.9, 0.95)
    seeds: int = 3
    repeats: int = 100
    """Timed calls of each network when latency is measured."""

    def __post_init__(self) -> None:
        if isinstance(self.seeds, bool) or not isinstance(self.seeds, int) or self.seeds < 1:
            raise BadInput(f"seeds={self.seeds!r}: give a whole number of repetitions, at least 1")

    @classmethod
    def quick(cls) -> Settings:
        """One seed, one sparsity and too few steps to learn much: shows that everything works, not what pruning does."""
        return cls(steps=40, every=5, sparsities=(0.9,), seeds=1, repeats=5)


@dataclass(frozen=True)
class Job:
    """One run. ``point`` names the operating point it belongs to; ``sparsity`` is 0 for a dense network."""

    point: str
    width: int
    sparsity: float
    seed: int
    steps: int
    batch: int
    rate: float
    decay: float
    every: int
    needs: ClassVar[tuple[str, ...]] = ()

    @property
    def method(self) -> str:
        """``"gmp"`` or ``"dense"``."""
        return "gmp" if self.sparsity else "dense"

    @property
    def mark(self) -> str:
        """What tells this configuration from others of its method: ``"90 %"`` removed, or ``"×0.38"`` wide."""
        return self.point if self.sparsity else f"×{self.width / FULL:.2f}"

    @property
    def label(self) -> str:
        """The configuration in words; runs that differ in the seed alone share it."""
        return f"sparse {self.mark}" if self.sparsity else f"dense {self.mark}"

    @property
    def name(self) -> str:
        """A file name: readable, and unlike that of any other run."""
        what = f"gmp-{self.sparsity:g}" if self.sparsity else f"dense-{self.width}"
        return f"{what}-seed{self.seed}-{self.id[:8]}"

    @property
    def id(self) -> str:
        """SHA-256 of everything that decides the outcome, the version of torch included."""
        decisive = {**dataclasses.asdict(self), "experiment": 1, "torch": torch.__version__}
        return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()


def full_and_sparse_jobs(settings: Settings) -> list[Job]:
    """The full dense network and the sparse ones, seed by seed: they need no other run."""
    shares = (0.0, *settings.sparsities)
    return [_job(settings, share, FULL, share, seed) for seed in range(settings.seeds) for share in shares]


def dense_jobs(settings: Settings, widths: Sequence[int]) -> list[Job]:
    """The small dense rivals: ``widths`` in the order of ``settings.sparsities``."""
    points = list(zip(settings.sparsities, widths, strict=True))
    return [_job(settings, share, width, 0.0, seed) for seed in range(settings.seeds) for share, width in points]


def recipe(job: Job) -> Recipe:
    """The pruning of a sparse run: the first convolution stays dense, the schedule runs from 10 to 75 % of training."""
    return Recipe("gmp", sparsity=job.sparsity, begin=0.1, end=0.75, every=job.every, total_steps=job.steps, exempt=("gmp",))


def _job(settings: Settings, point: float, width: int, sparsity: float, seed: int) -> Job:
    shared: dict[str, Any] = {key: getattr(settings, key) for key in ("steps", "batch", "rate", "decay", "every")}
    return Job(f"{point * 100:g} %", width, sparsity, seed, **shared)
