"""The engine's section of the results page, from ``benchmarks/results/engine.json`` alone."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

from benchmarks.circumstances import measurements
from benchmarks.engine.run import RESULTS

__all__ = ["section"]


def section(results: Path = RESULTS) -> str:
    """The section as Markdown.

    Raises:
        BadInput: there are no results.
    """
    found = measurements(results, "benchmarks.engine.run")
    parts = ["## What the engine costs\n", _steps([v for k, v in found.items() if k.startswith("step ")]),
             _updates([v for k, v in found.items() if k.startswith("updates ")]), *_lines(found)]  # fmt: skip
    return "\n".join(parts) + "\n"


def _steps(measured: list[dict[str, Any]]) -> str:
    if not measured:
        return ""
    first = measured[0]
    head = (f"Time of a training step against the same loop without pruning: means over {first['steps']} steps, mask updates "
            f"every {first['every']} steps included, the loops taking turns step by step in one process ({first['threads']} "
            f"threads, torch {first['torch']}). The spread is the quartiles over ten stretches of the run.\n")  # fmt: skip
    rows = ["| task | loop | mean step | ratio of means | ratio of medians | quartiles |", "|---|---|---|---|---|---|"]
    for m in measured:
        for name, r in m["loops"].items():
            ratios = f"{r['ratio_of_means']:.3f} | {r['ratio_of_medians']:.3f} | {r['ratio_low']:.3f} to {r['ratio_high']:.3f}"
            rows.append(f"| {m['task']}, batch {m['batch']} | {name} | {1000 * r['mean_s']:.1f} ms | {ratios} |")
    return "\n".join([head, *rows, ""])


def _updates(measured: list[dict[str, Any]]) -> str:
    if not measured:
        return ""
    first = measured[0]
    head = (f"An update of masks, and where the method does that an exchange of weights for dead ones, as a share of the time "
            f"of {first['every']} steps of training: medians of processor time over {first['updates']} updates, "
            f"{first['spacing']} steps apart, beside the same loop without pruning ({first['threads']} threads, torch "
            f"{first['torch']}). The spread is the quartiles.\n")  # fmt: skip
    rows = ["| task | weights | method | step | update | share of training | quartiles |", "|---|---|---|---|---|---|---|"]
    for m in measured:
        for name, r in m["methods"].items():
            shares = f"{100 * r['share']:.2f} % | {100 * r['share_low']:.2f} to {100 * r['share_high']:.2f} %"
            rows.append(f"| {m['task']}, batch {m['batch']} | {m['weights']:,} | {name} | {1000 * m['step_s']:.0f} ms | "
                        f"{1000 * r['update_s']:.1f} ms | {shares} |")  # fmt: skip
    return "\n".join([head, *rows, ""])


def _lines(found: dict[str, Any]) -> list[str]:
    lines = []
    if s := found.get("state"):
        lines.append(f"- A pruner keeps {s['bytes_per_weight']:.2f} bytes per prunable weight; its state dict takes "
                     f"{s['packed_bits_per_weight']:.2f} bits per weight.")  # fmt: skip
    if r := found.get("ranking"):
        ours, theirs = statistics.median(r["secateurs_s"]), statistics.median(r["kthvalue_s"])
        lines.append(f"- Scoring and masking {r['weights']:,} weights in {r['layers']} layers by one global ranking takes "
                     f"{ours:.2f} s, {r['ratio_median']:.2f} times ({r['ratio_low']:.2f} to {r['ratio_high']:.2f}) one "
                     f"`torch.kthvalue` over the same values ({theirs:.2f} s).")  # fmt: skip
    if i := found.get("import"):
        lines.append(f"- `import secateurs` takes {1000 * i['median_s']:.1f} ms beyond `import torch`; with every public name "
                     f"loaded, {1000 * i['all_names_median_s']:.0f} ms.")  # fmt: skip
    return lines
