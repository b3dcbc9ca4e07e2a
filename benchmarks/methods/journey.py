"""Sparse pre-training of a character model on the Brown corpus (Jin et al. 2025): when to prune at equal compute, the dense
model as large as the sparse one on average, and dense runs from which a scaling law predicts the sparse ones.

``python -m benchmarks.methods.journey`` writes ``benchmarks/runs/methods/journey/results.jsonl``, a row per run; killed, it
goes on. ``secateurs study scaling`` reads the rows. Shrunk to some six minutes of a core: 0.02 to 0.22 M linear weights and
0.15 to 0.6 M characters instead of 58 to 468 M weights, pruned every 10 steps instead of 100; one seed for the law, three for
the rest.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

import secateurs as sc
from benchmarks.nets.charlm import CharLM
from benchmarks.tasks.reading import columns, kept
from secateurs.planning import same_compute

OUT = Path(__file__).parents[1] / "runs" / "methods" / "journey"
CHARACTERS, LENGTH, BATCH = 64, 64, 16
STEPS, EVERY, WIDTH = 300, 10, 96  # dense-equivalent steps of the sparse runs, steps between updates, and their width
WIDTHS, BUDGETS = (32, 48, 64, 80, 96), (150, 300, 600)
RATE, WARMUP = 4e-3, 0.05


@dataclass(frozen=True)
class Trial:
    """One training. ``begin`` and ``end`` are shares of its compute; ``steps`` those of the dense run that costs as much."""

    label: str
    width: int
    steps: int
    seed: int
    sparsity: float = 0.0
    begin: float = 0.25
    end: float = 0.75

    @property
    def name(self) -> str:
        """Unique by everything that determines the result."""
        said = [asdict(self), CHARACTERS, LENGTH, BATCH, EVERY, RATE, WARMUP]
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:12]


def trials() -> Iterator[Trial]:
    """What is run, the question of when to prune first."""
    for seed in range(3):
        yield Trial("25 to 75 %", WIDTH, STEPS, seed, 0.5)
        yield Trial("at the start", WIDTH, STEPS, seed, 0.5, 0.0, 0.0)
        yield Trial("at the end", WIDTH, STEPS, seed, 0.5, 1.0, 1.0)
        yield Trial("5 to 15 %", WIDTH, STEPS, seed, 0.5, 0.05, 0.15)
        yield Trial("dense", WIDTH, STEPS, seed)
        # as many weights as the sparse run has on average, and as many characters
        yield Trial("dense, average size", 80, same_compute(0.5, STEPS, every=EVERY)[1], seed)
    for width in WIDTHS:
        for steps in BUDGETS:
            if (width, steps) != (WIDTH, STEPS):
                yield Trial("law", width, steps, 0)
    for sparsity in (0.2, 0.4, 0.6):
        yield Trial("25 to 75 %", WIDTH, STEPS, 0, sparsity)


def run(trial: Trial) -> dict[str, Any]:
    """Train and measure."""
    torch.set_num_threads(1)
    torch.manual_seed(trial.seed)
    model, text, began = CharLM(trial.width, CHARACTERS, LENGTH), ids("train"), time.process_time()
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, betas=(0.9, 0.95), weight_decay=0.1)
    schedule, steps = same_compute(trial.sparsity, trial.steps, trial.begin, trial.end, EVERY)
    pruner = sc.Pruner(model, "journey", sparsity=trial.sparsity, begin=schedule.begin, end=schedule.end, every=EVERY,
                       total_steps=steps, include=["blocks.*"])  # fmt: skip
    pruner.attach(optimizer)
    draw = torch.Generator().manual_seed(trial.seed)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = RATE * min((step + 1) / (WARMUP * steps), (1 + math.cos(math.pi * step / steps)) / 2)
        at = torch.randint(len(text) - LENGTH - 1, (BATCH, 1), generator=draw) + torch.arange(LENGTH + 1)
        optimizer.zero_grad()
        loss_of(model, text[at]).backward()
        optimizer.step()
    weights = sum(weight.size for weight in pruner.weights)
    average, density = pruner.average_density, 1 - pruner.sparsity
    pruner.finish()
    return {**asdict(trial), "run": trial.name, "total_steps": steps, "parameters": weights, "average_density": average,
            "density": density, "tokens": steps * BATCH * LENGTH, "loss": evaluate(model),
            "seconds": time.process_time() - began}  # fmt: skip


def loss_of(model: CharLM, windows: Tensor) -> Tensor:
    """Cross-entropy in nats a character, of windows ``[n, LENGTH + 1]``."""
    return F.cross_entropy(model(windows[:, :-1]).flatten(0, 1), windows[:, 1:].flatten())


@torch.no_grad()
def evaluate(model: CharLM) -> float:
    """The loss on 512 windows of the validation text, the same for all."""
    text = ids("validation")
    at = torch.linspace(0, len(text) - LENGTH - 2, 512).long()[:, None] + torch.arange(LENGTH + 1)
    return float(loss_of(model.eval(), text[at]))


def ids(split: str) -> Tensor:
    """The corpus as character ids: 0 for what is rare, then the 63 most frequent characters of the training text."""

    def make() -> np.ndarray:
        known = {c: i + 1 for i, c in enumerate(_alphabet())}
        return np.asarray([known.get(c, 0) for c in "\n".join(columns("brown", split)["text"])], np.uint8)

    return torch.from_numpy(np.array(kept(f"brown-characters-{split}", "brown", split, make))).long()


def _alphabet() -> list[str]:
    text = "\n".join(columns("brown", "train")["text"])
    return sorted(sorted(set(text)), key=text.count, reverse=True)[: CHARACTERS - 1]


def main() -> None:
    """Do what is missing."""
    OUT.mkdir(parents=True, exist_ok=True)
    path = OUT / "results.jsonl"
    done = {json.loads(line)["run"] for line in path.read_text().splitlines()} if path.exists() else set()
    for trial in trials():
        if trial.name not in done:
            row = run(trial)
            with path.open("a") as file:
                file.write(json.dumps(row) + "\n")
            print(f"{trial}: {row['loss']:.4f} in {row['seconds']:.0f} s", flush=True)


if __name__ == "__main__":
    main()
