"""A language model without a fifth of its parameters, by heads and neurons: ``python -m benchmarks.structured.language``.

Killed, the same command goes on: every run is a row of a file, written once.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path
from typing import Any

from torch import nn

import secateurs as sc
from benchmarks.circumstances import circumstances
from benchmarks.language.grid import DOMAINS, MIXED
from benchmarks.language.text import LENGTH, calibration, dense, validation
from benchmarks.structured.run import OUT
from secateurs.comparing.spec import SCHEMA
from secateurs.comparing.store import Results
from secateurs.measure import perplexity

__all__ = ["FILE", "RUNS", "main", "row"]

FILE = "language.jsonl"
STRUCTURES = ["heads", "neurons"]
_FIT = {"recovery": "reconstruct"}
_EACH = {"scope": "local"}
_RANKED = {"scope": "kind"}
_ALL = {"scope": "global"}
#: Name of a run -> the method, and settings beside its defaults. Without more every layer loses the same share of its heads
#: and of its neurons; "ranked" ranks heads among heads and neurons among neurons of all layers, "global" all of them together.
RUNS: dict[str, tuple[str, dict[str, Any]]] = {
    "dense": ("", {}),
    "random": ("random-channels", {}),
    "magnitude": ("magnitude", _EACH),
    "taylor": ("taylor-channels", _EACH),
    "obspa": ("obspa", _EACH),
    "magnitude+fit": ("magnitude", _EACH | _FIT),
    "taylor+fit": ("taylor-channels", _EACH | _FIT),
    "random+fit": ("random-channels", _FIT),
    "magnitude-ranked": ("magnitude", _RANKED),
    "taylor-global": ("taylor-channels", _ALL),
    "taylor-global+fit": ("taylor-channels", _ALL | _FIT),
    "obspa-costs": ("obspa", _EACH | {"recovery": "none"}),
    "obspa-ranked": ("obspa", _RANKED),
    "taylor-ranked+fit": ("taylor-channels", _RANKED | _FIT),
    "obspa-all": ("obspa", _EACH | {"options": {"layers": "all"}}),
    "obspa-damped": ("obspa", _EACH | {"options": {"dampening": 0.1}}),
    "obspa-dense": ("obspa", _EACH | {"options": {"inputs": "dense"}}),
    "obspa-global-by-size": ("obspa", _ALL | {"normalize": "none"}),
}


def row(name: str, params: float, windows: int, batches: int) -> dict[str, Any]:
    """Prune to ``params`` and judge on ``windows`` of every domain, calibrated with ``batches`` of eight windows."""
    method, settings = RUNS[name]
    text = calibration(MIXED, 0)
    text = text[:: max(1, len(text) // batches)][:batches]
    began = time.perf_counter()
    model, left = dense(), 1.0
    if method:
        done = sc.prune(model, method, structures=STRUCTURES, params=params, calibration=text,
                        example={"input_ids": text[0]["input_ids"][:1]}, **settings)  # fmt: skip
        model, left = done.model, done.plan.after.parameters / done.plan.before.parameters
    seconds = time.perf_counter() - began
    found = {domain: _perplexity(model, domain, windows) for domain in DOMAINS}
    mean = math.exp(sum(map(math.log, found.values())) / len(found))
    return {"schema": SCHEMA, "run": name, "status": "done", "tool": f"secateurs {sc.__version__}", "params": left,
            "perplexity": found, "mean": mean, "windows": windows, "calibration_tokens": len(text) * 8 * LENGTH,
            "seconds": seconds, **circumstances()}  # fmt: skip


def _perplexity(model: nn.Module, domain: str, windows: int) -> float:
    return perplexity(model, validation(domain, windows))


def main(arguments: list[str] | None = None) -> int:
    """Do what is not done yet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--params", type=float, default=0.8, help="share of the parameters that is left")
    parser.add_argument("--windows", type=int, default=400, help="of validation text, per domain")
    parser.add_argument("--batches", type=int, default=16, help="of calibration text, eight windows each")
    parser.add_argument("--only", nargs="*", default=list(RUNS))
    said = parser.parse_args(arguments)
    with Results(said.out / FILE) as results:
        for name in said.only:
            if name not in results.done():
                found = row(name, said.params, said.windows, said.batches)
                results.append(found)
                print(name, {key: round(found[key], 4) for key in ("params", "mean", "seconds")}, flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
