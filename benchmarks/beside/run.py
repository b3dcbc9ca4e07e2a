"""Prune the language model by two libraries, turn by turn: ``python -m benchmarks.beside.run --peer PEER/bin/python``.

``PEER`` is an environment of its own with ``llmcompressor==0.14.0`` (and torch). Every turn is a process; the libraries take
turns on the same calibration windows and the same number of threads, so that whatever else the machine does hits both alike.
Needs ``SECATEURS_DATA`` with ``models/llama-4domains``. Writes ``benchmarks/results/beside.json``.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from benchmarks.circumstances import measured
from benchmarks.language import text
from benchmarks.language.grid import DOMAINS, MIXED
from benchmarks.tasks.reading import root
from secateurs.measure import perplexity

__all__ = ["ARMS", "RESULTS", "main"]

RESULTS = Path(__file__).parents[1] / "results" / "beside.json"
#: Name -> (library, its process's further arguments).
ARMS = {
    "llm-compressor": ("llm-compressor", ()),
    "secateurs": ("secateurs", ()),
    "secateurs, bfloat16 passes": ("secateurs", ("--compute", "bfloat16")),
}
Turn = dict[str, Any]


def main(arguments: list[str] | None = None) -> int:
    """Measure every method and amount, and rewrite its part of the results."""
    said = _parser().parse_args(arguments)
    torch.set_num_threads(said.threads)
    with tempfile.TemporaryDirectory() as scratch:
        windows = Path(scratch) / "windows.safetensors"
        save_file({"input_ids": torch.cat([batch["input_ids"] for batch in text.calibration(MIXED, 0)])}, windows)
        compare = partial(_compare, said=said, windows=windows, scratch=Path(scratch))
        pairs = [(method, point) for method in said.methods for point in said.points]
        parts = {f"{method} {point}": partial(compare, method, point) for method, point in pairs}
        measured(parts, said.out)
    return 0


def _compare(method: str, point: str, said: argparse.Namespace, windows: Path, scratch: Path) -> dict[str, Any]:
    turns: dict[str, list[Turn]] = {arm: [] for arm in ARMS}
    for repeat in range(said.repeats):
        for arm in ARMS:
            out = scratch / f"{method}-{point.replace(':', 'of')}-{arm}-{repeat}"
            turns[arm].append(_turn(arm, method, point, said, windows, out))
    found = {arm: _summary(scratch, arm, method, point, turns) for arm in ARMS}
    return {"method": method, "point": point, "repeats": said.repeats, "batch": said.batch, "arms": found}


def _turn(arm: str, method: str, point: str, said: argparse.Namespace, windows: Path, out: Path) -> Turn:
    library, more = ARMS[arm]
    python = said.peer if library == "llm-compressor" else sys.executable
    command = [str(python), "-m", "benchmarks.beside.turn", library, method, point, "--model", str(_model()), "--windows",
               str(windows), "--out", str(out), "--threads", str(said.threads), "--batch", str(said.batch), *more]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(["src", "."]), "OMP_NUM_THREADS": str(said.threads)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{arm} failed: {done.stderr[-2000:]}")
    turn: Turn = json.loads((out / "turn.json").read_text())
    print(f"  {arm}: {turn['seconds']:.1f} s, {turn['peak_bytes'] / 1e6:.0f} MB", flush=True)
    return turn


def _summary(scratch: Path, arm: str, method: str, point: str, turns: dict[str, list[Turn]]) -> dict[str, Any]:
    """Spreads over the turns, ratios to the peer's turn beside each, and perplexity of the first turn's model."""
    mine, peers = turns[arm], turns["llm-compressor"]
    spreads = {key: _spread([turn[key] for turn in mine]) for key in ("seconds", "peak_bytes", "held_bytes")}
    ratios = [their["seconds"] / my["seconds"] for my, their in zip(mine, peers, strict=True)]
    folder = scratch / f"{method}-{point.replace(':', 'of')}-{arm}-0"
    return {**spreads, "times_faster": _spread(ratios), **_judged(folder)}


def _judged(folder: Path) -> dict[str, Any]:
    """Zeros inside the blocks, and perplexity on 64 windows of every domain."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True).eval()
    inside = [p for name, p in model.named_parameters() if ".layers." in name and p.dim() == 2]
    values = {domain: perplexity(model, text.validation(domain, 64)) for domain in DOMAINS}
    return {"zeros": sum(int((p == 0).sum()) for p in inside) / sum(p.numel() for p in inside), "perplexity": values,
            "geometric_mean": math.exp(sum(map(math.log, values.values())) / len(values))}  # fmt: skip


def _spread(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "least": min(values), "most": max(values)}


def _model() -> Path:
    return root() / "models" / "llama-4domains"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peer", type=Path, required=True, help="python of an environment that has llm-compressor")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--batch", type=int, default=8, help="windows run at once")
    parser.add_argument("--methods", nargs="+", default=["sparsegpt", "wanda"])
    parser.add_argument("--points", nargs="+", default=["0.5", "2:4"], help="shares or N:M")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
