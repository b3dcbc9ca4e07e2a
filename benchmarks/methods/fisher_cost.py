"""What an inverse Fisher matrix costs: a LeNet of 1.0 M weights, by form; and M-FAC's memory beside that of its gradients.

    python -m benchmarks.methods.fisher_cost [--out FILE]

Every case runs in a process of its own, on random pictures. Seconds are those of the process's own work (one thread), memory is
what it had resident at most, less what it had before; ``gradients_bytes`` are N x P x 4.
"""

from __future__ import annotations

import argparse
import gc
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.circumstances import circumstances
from benchmarks.nets.lenet import LeNet300
from secateurs.core.fisher import Estimate
from secateurs.report import Table
from secateurs.statistics.fisher import inverse_fisher
from secateurs.train.losses import default_loss

RESULTS = Path(__file__).parents[1] / "results" / "methods" / "fisher-cost.jsonl"
WIDTH = 3.05  # 915 and 305 hidden units: 999,485 weights
CASES = {
    "woodfisher, blocks of 100": Estimate(400, 1, 100),
    "woodfisher, blocks of 2000": Estimate(400, 1, 2000),
    "m-fac, 64 gradients": Estimate(64, 1, 0),
    "m-fac, 64 gradients, blocks of 128": Estimate(64, 1, 128),
    "m-fac, 400 gradients": Estimate(400, 1, 0),
}


def main(arguments: list[str] | None = None) -> int:
    """Measure every case that is not in the file yet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--case", choices=list(CASES), help="measure this one here and print its row")
    said = parser.parse_args(arguments)
    if said.case:
        print(json.dumps(measure(said.case)))
        return 0
    said.out.parent.mkdir(parents=True, exist_ok=True)
    done = {json.loads(line)["case"] for line in said.out.read_text().splitlines()} if said.out.exists() else set()
    for case in CASES:
        if case not in done:
            command = [sys.executable, "-m", "benchmarks.methods.fisher_cost", "--case", case]
            row = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1]
            print(row, flush=True)
            with said.out.open("a") as stream:
                stream.write(row + "\n")
    return 0


def measure(case: str) -> dict[str, Any]:
    """Gradients, inverse and diagonal, then one product, of the network at random weights."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model, estimate = LeNet300(WIDTH), CASES[case]
    weights = {name: p for name, p in model.named_parameters() if p.dim() > 1}
    pictures = [(torch.randn(100, 1, 28, 28), torch.randint(10, (100,))) for _ in range(4)]
    inverse_fisher(model, weights, pictures, default_loss, Estimate(1, 1, 1))  # what is set up once
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # from here on the most is counted anew
    before, began, wall = _memory("VmRSS"), time.process_time(), time.perf_counter()
    found = inverse_fisher(model, weights, pictures, default_loss, estimate)
    seconds, elapsed, estimated = time.process_time() - began, time.perf_counter() - wall, _memory("VmHWM")
    began = time.process_time()
    found.inverse.product(torch.cat([p.detach().flatten() for p in weights.values()]))
    size = sum(p.numel() for p in weights.values())
    return {"case": case, "parameters": size, "gradients": estimate.gradients, "block": estimate.block,
            "seconds": seconds, "elapsed": elapsed, "product_seconds": time.process_time() - began, "bytes": estimated - before,
            "peak_bytes": _memory("VmHWM") - before,
            "gradients_bytes": 4 * size * estimate.gradients, **circumstances()}  # fmt: skip


def section(results: Path = RESULTS) -> str:
    """The rows as a Markdown table; a line that says so where there are none."""
    if not results.is_file():
        return "Not measured yet."
    rows = [json.loads(line) for line in results.read_text(encoding="utf-8").splitlines()]
    lines = tuple((r["case"], f"{r['parameters'] / 1e6:.2f} M", str(r["gradients"]), f"{r['seconds']:.1f}",
                   f"{r['peak_bytes'] / 1e9:.2f}", f"{r['peak_bytes'] / r['gradients_bytes']:.2f}") for r in rows)  # fmt: skip
    headings = ("", "weights", "gradients", "seconds", "GB at most", "of the gradients'")
    caption = "Seconds of one thread for gradients, inverse and diagonal; memory beyond the model's, one product included."
    return Table(headings, (lines,), caption=caption).markdown()


def _memory(what: str) -> int:
    """What this process has in memory now (``VmRSS``) or has had at most (``VmHWM``), in bytes; Linux tells."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(what))


if __name__ == "__main__":
    raise SystemExit(main())
