"""State a pruner keeps, time to rank a large model globally, time to import the library."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from typing import Any

import torch
from torch import nn

import secateurs as sc
from benchmarks.nets.wordlm import WordLM

__all__ = ["import_time", "ranking", "state"]


def state() -> dict[str, Any]:
    """Bytes a pruner holds, and bytes of its state dict, per prunable weight (LSTM language model, 4.64 M weights)."""
    model = WordLM(200)
    pruner = sc.Pruner(model, "gmp", sparsity=0.9, begin=0, end=0, schedule="one-shot")
    pruner.attach(torch.optim.SGD(model.parameters(), lr=0.1))
    weights = sum(w.size for w in pruner.weights)
    held = sum({m.untyped_storage().data_ptr(): m.untyped_storage().nbytes() for m in pruner.masks.values()}.values())
    packed = sum(entry["bits"].numel() for entry in pruner.state_dict()["masks"].values())
    return {"weights": weights, "bytes_per_weight": held / weights, "packed_bits_per_weight": 8 * packed / weights}


def ranking(weights: int = 100_000_000, layers: int = 10, repeats: int = 3) -> dict[str, Any]:
    """Score and mask a model globally, beside one ``torch.kthvalue`` over the same values."""
    torch.manual_seed(0)
    side = int((weights / layers) ** 0.5)
    model = nn.Sequential(*(nn.Linear(side, side, bias=False) for _ in range(layers)))
    values = torch.cat([p.detach().abs().view(-1) for p in model.parameters()])
    ours, theirs = [], []
    for _ in range(repeats):
        theirs.append(_seconds(lambda: values.kthvalue(int(0.9 * values.numel()))))
        pruner = sc.Pruner(model, "global-magnitude", sparsity=0.9, end=1, total_steps=1, begin=1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
        pruner.attach(optimizer)
        ours.append(_seconds(pruner.step))
        pruner.detach()
    pairs = sorted(a / b for a, b in zip(ours, theirs, strict=True))
    return {"weights": values.numel(), "layers": layers, "secateurs_s": sorted(ours), "kthvalue_s": sorted(theirs),
            "ratio_median": statistics.median(pairs), "ratio_low": pairs[0], "ratio_high": pairs[-1]}  # fmt: skip


def _seconds(call: Any) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


_IMPORT = """
import torch, time
began = time.perf_counter()
import secateurs
print(time.perf_counter() - began)
for name in secateurs.__all__:
    getattr(secateurs, name)
print(time.perf_counter() - began)
"""


def import_time(repeats: int = 9) -> dict[str, Any]:
    """Seconds of ``import secateurs`` beyond ``import torch``, alone and with all public names, each in a new process."""
    alone, whole = zip(*(_import_once() for _ in range(repeats)), strict=True)
    return {"seconds": sorted(alone), "median_s": statistics.median(alone), "all_names_median_s": statistics.median(whole)}


def _import_once() -> tuple[float, float]:
    printed = subprocess.run([sys.executable, "-c", _IMPORT], capture_output=True, text=True, check=True).stdout.split()
    return float(printed[0]), float(printed[1])
