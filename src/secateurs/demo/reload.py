"""A saved model proves itself in a process that never saw it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from secateurs.demo.network import build
from secateurs.demo.training import logits
from secateurs.extras import require
from secateurs.formats import load
from secateurs.measure import sizes

__all__ = ["compare", "reload_in_new_process"]

_PROGRAM = "import sys; from secateurs.demo.reload import compare; compare(*sys.argv[1:])"


def reload_in_new_process(folder: Path, expected: Path) -> dict[str, Any]:
    """Load ``folder`` in a new Python process and compare its test logits with those in ``expected``, bit for bit.

    Returns ``equal``, ``difference`` (the largest, absolute), ``nonzero`` and ``images``; a process that fails gives
    ``equal=False`` and its last words under ``error``.
    """
    command = [sys.executable, "-c", _PROGRAM, str(folder), str(expected)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}  # it finds modules where this one did
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        return {"equal": False, "error": (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]}
    return json.loads(done.stdout)


def compare(folder: str, expected: str) -> None:
    """Load ``folder``, compare its logits with those in the file ``expected``, print the outcome as one line of JSON."""
    torch.set_num_threads(1)  # as in training: the order of sums is part of the outcome
    model = load(folder, factory=build)
    then, now = require("safetensors.torch", "files").load_file(expected)["logits"], logits(model)
    outcome = {"equal": torch.equal(then, now), "difference": float((then - now).abs().max()),
               "nonzero": sizes(model).nonzero, "images": len(now)}  # fmt: skip
    print(json.dumps(outcome))
