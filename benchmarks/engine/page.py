"""The engine's section of the results page, from ``benchmarks/results/engine.json`` alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.engine.run import RESULTS
from secateurs.errors import BadInput

__all__ = ["section"]


def section(results: Path = RESULTS) -> str:
    """The section as Markdown.

    Raises:
        BadInput: there are no results.
    """
    if not results.exists():
        raise BadInput(f"no results in {str(results)!r}: run python -m benchmarks.engine.run first")
    found = json.loads(results.read_text())
    parts = ["## What the engine costs\n", _steps([v for k, v in found.items() if k.startswith("step ")]), *_lines(found)]
    return "\n".join(parts) + "\n"


def _steps(measured: list[dict[str, Any]]) -> str:
    if not measured:
        return ""
    first = measured[0]
    head = (f"Time of a training step against the same loop without pruning: means over {first['steps']} steps, mask updates every "
            f"{first['every']} steps included, the loops taking turns step by step in one process ({first['threads']} threads, torch "
            f"{first['torch']}). The spread is the quartiles over ten stretches of the run.\n")  # fmt: skip
    rows = ["| task | loop | mean step | ratio of means | ratio of medians | quartiles |", "|---|---|---|---|---|---|"]
    for m in measured:
        for name, r in m["loops"].items():
            rows.append(f"| {m['task']}, batch {m['batch']} | {name} | {1000 * r['mean_s']:.1f} ms | {r['ratio_of_means']:.3f} | "
                        f"{r['ratio_of_medians']:.3f} | {r['ratio_low']:.3f} to {r['ratio_high']:.3f} |")  # fmt: skip
    return "\n".join([head, *rows, ""])


def _lines(found: dict[str, Any]) -> list[str]:
    lines = []
    if s := found.get("state"):
        lines.append(f"- A pruner keeps {s['bytes_per_weight']:.2f} bytes per prunable weight; its state dict takes "
                     f"{s['packed_bits_per_weight']:.2f} bits per weight.")  # fmt: skip
    if r := found.get("ranking"):
        ours, theirs = r["secateurs_s"][len(r["secateurs_s"]) // 2], r["kthvalue_s"][len(r["kthvalue_s"]) // 2]
        lines.append(f"- Scoring and masking {r['weights']:,} weights in {r['layers']} layers by one global ranking takes {ours:.2f} s, "
                     f"{r['ratio_median']:.2f} times ({r['ratio_low']:.2f} to {r['ratio_high']:.2f}) one `torch.kthvalue` over the same values ({theirs:.2f} s).")  # fmt: skip
    if i := found.get("import"):
        lines.append(f"- `import secateurs` takes {1000 * i['median_s']:.1f} ms beyond `import torch` (the public names load on first use).")
    return lines
