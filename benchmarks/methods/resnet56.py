"""CIFAR-10, ResNet-56 from the trained reference model: 90 and 95 % removed, 400 steps of retraining each.

    python -m benchmarks.methods.resnet56 [--jobs N] [--seeds N] [--only ARM ...]

A run is a row of ``benchmarks/runs/methods/resnet56/results.jsonl``; killed, it goes on from its last checkpoint, with the same
bits in the end. Needs ``SECATEURS_DATA``. One-shot methods prune and then train for 400 steps; gradual ones have reached their
amount after 240 of the 400.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import secateurs as sc
from benchmarks.tasks.reading import root

OUT = Path(__file__).parents[1] / "runs" / "methods" / "resnet56"
STEPS, BATCH = 400, 128
FISHER = {"gradients": 400, "block": 100}
CUBIC = {"schedule": "cubic", "begin": 0, "end": 240, "every": 40}
ARMS: list[dict[str, Any]] = [
    {"name": "magnitude uniform", "method": "magnitude"},
    {"name": "magnitude global", "method": "global-magnitude"},
    {"name": "WoodFisher one-shot", "method": "woodfisher", "options": FISHER},
    {"name": "WoodFisher gradual", "method": "woodfisher", "options": FISHER, "initial_sparsity": 0.05, **CUBIC},
    {"name": "GraNet", "method": "granet", **CUBIC},
]


def recipe(seeds: int, only: list[str] | None = None) -> dict[str, Any]:
    """What :func:`secateurs.compare` carries out."""
    return {
        "name": "methods-resnet56",
        "seeds": seeds,
        "sparsities": [0.9, 0.95],
        "methods": [arm for arm in ARMS if not only or arm["name"] in only],
        "tasks": [{
            "name": "cifar10-resnet56",
            "model": "benchmarks.tasks.cifar:resnet",
            "model_options": {"depth": 56},
            "data": "benchmarks.tasks.cifar:data",
            "transform": "benchmarks.tasks.cifar:augmented",
            "metric": "top-1",
            "steps": STEPS,
            "batch": BATCH,
            "calibration": 4,  # batches: 512 images for 400 gradients
            "autocast": True,
            # how long the reference model was trained only says which batches come next
            "dense": {"steps": 1, "checkpoint": str(root() / "models" / "cifar10-resnet56.safetensors")},
            "optimizer": {"name": "sgd", "lr": 0.05, "momentum": 0.9, "nesterov": True, "weight_decay": 5e-4, "rate": "cosine"},
        }],
    }  # fmt: skip


def main(arguments: list[str] | None = None) -> int:
    """Make the runs that are missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--only", nargs="*", choices=[arm["name"] for arm in ARMS])
    said = parser.parse_args(arguments)
    sc.compare(recipe(said.seeds, said.only), out=said.out, jobs=said.jobs)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
