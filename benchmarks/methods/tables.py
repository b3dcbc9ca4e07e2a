"""The measured tables of the methods whose runs are those of ``secateurs compare``, and of those with rows of their own."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.methods.paired import Extra, by_arm, mean_and_error, paired_table
from secateurs.comparing.store import read_rows
from secateurs.report import Table

__all__ = ["RESULTS", "SECTIONS", "beside", "compared"]

RESULTS = Path(__file__).parents[1] / "results" / "methods"
Row = Mapping[str, Any]


def _early_stop(rows: Sequence[Row]) -> str:
    """Steps to the lowest validation loss: of the last round where there are rounds."""
    steps = []
    for row in rows:
        history = row["rounds"][-1]["history"] if row.get("rounds") else row["history"]
        known = [point for point in history if point.get("validation_loss") is not None]
        if known:
            steps.append(min(known, key=lambda point: point["validation_loss"])["step"] - history[0]["step"])
    return f"{statistics.mean(steps):.0f}" if steps else ""


def _emptied(rows: Sequence[Row]) -> str:
    """Layers of which nothing is left, the most of any seed."""
    return str(max(sum(layer["kept"] == 0 for layer in row["layers"]) for row in rows)) if rows and rows[0]["layers"] else ""


def _straight(rows: Sequence[Row]) -> str:
    return mean_and_error([100 * row["before"] for row in rows if row.get("before") is not None])


def _trained(rows: Sequence[Row]) -> str:
    shares = [row["trained_share"] for row in rows if row.get("trained_share") is not None]
    return f"{100 * statistics.mean(shares):.2f} %" if shares else ""


def _left(rows: Sequence[Row]) -> str:
    return mean_and_error([100 * row["kept"] / row["selected"] for row in rows], 1)


COMPARED: dict[str, tuple[str, dict[str, Extra]]] = {
    "lottery": ("ticket", {"early-stop step": _early_stop}),
    "sap": ("lottery 20 %", {"left, %": _left}),
    "granet": ("static", {}),
    "random": ("random erk", {}),
    "global-magnitude": ("uniform", {"straight": _straight, "layers emptied": _emptied}),
    "perp": ("no retraining", {"trained": _trained}),
    "perp-vision": ("no retraining", {"trained": _trained}),
    "bip": ("one-shot", {}),
    "woodfisher": ("magnitude", {}),
}


def compared(name: str) -> str:
    """The table of a comparison; a line that says so where there is none."""
    path = RESULTS / name / "results.jsonl"
    return paired_table(path, *COMPARED[name]) if path.is_file() else "Not measured yet."


def _perp() -> str:
    return compared("perp") + "\n" + (compared("perp-vision") if (RESULTS / "perp-vision").is_dir() else "")


def _rows(name: str) -> list[Row]:
    path = RESULTS / name / "results.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []


def _ap() -> str:
    rows = _rows("ap")
    if not rows:
        return "Not measured yet."
    sections = []
    for number in (len(rows[0]["by_round"]) // 2, len(rows[0]["by_round"]) - 1):
        at = [{"arm": row["arm"], "seed": row["seed"], **row["by_round"][number]} for row in rows]
        errors = by_arm(at, "X", lambda row: 100 * row["error"])
        dynamic = by_arm(at, "X", lambda row: 100 * row["dynamic"])
        left = f"{100 * statistics.mean(row['remaining'] for row in at):.1f} %"
        sections.append(tuple((left, arm, *errors[arm], *dynamic[arm]) for arm in errors))
    table = Table(("left", "arm", "error, %", "against X", "dynamic dead rate, %", "against X"), tuple(sections), left=2)
    seeds = len({row["seed"] for row in rows})
    said = f"LeNet-300-100 on MNIST, X is global magnitude in rounds; mean ± standard error over {seeds} seeds."
    return f"{table.markdown()}\n{said}\n"


def _rewind() -> str:
    rows = _rows("lottery-rewind")
    if not rows:
        return "Not measured yet."
    sections = []
    for task in dict.fromkeys(row["task"] for row in rows):
        lines = []
        for share in sorted({row["rewind"] for row in rows}):
            at = [row for row in rows if row["task"] == task and row["rewind"] == share]
            for mask in ("magnitude", "random"):
                found = [row[mask] for row in at]
                lines.append((task, f"{100 * share:g} %", mask, mean_and_error([100 * one["error"] for one in found]),
                              mean_and_error([one["pruning_l2"] for one in found]),
                              mean_and_error([one["order_l2"] for one in found]),
                              mean_and_error([100 * one["instability"] for one in found])))  # fmt: skip
        sections.append(tuple(lines))
    heads = ("task", "back to", "masks", "error, %", "distance to dense", "between data orders", "instability, points")
    seeds = len({row["seed"] for row in rows})
    gone = 1 - statistics.mean(row["remaining"][-1] for row in rows)
    said = f"{100 * gone:.0f} % removed; mean ± standard error over {seeds} seeds."
    return f"{Table(heads, tuple(sections), left=3).markdown()}\n{said}\n"


def _journey() -> str:
    rows = [row for row in _rows("journey") if row["label"] != "law" and row["sparsity"] in (0.0, 0.5)]
    if not rows:
        return "Not measured yet."
    base = "25 to 75 %"
    losses = by_arm(rows, base, lambda row: row["loss"], arm="label")
    lines = []
    for label, found in losses.items():
        one = next(row for row in rows if row["label"] == label)
        lines.append((label, *found, f"{one['parameters'] * one['density'] / 1e3:.0f}",
                      f"{one['parameters'] * one['average_density'] / 1e3:.0f}", f"{one['tokens'] / 1e3:.0f}"))  # fmt: skip
    heads = ("half removed", "loss, nats", f"against {base}", "weights in the end, k", "on average, k", "characters, k")
    seeds = len({row["seed"] for row in rows if row["label"] == base})
    said = f"A character model on the Brown corpus, equal compute; mean ± standard error over {seeds} seeds, lower is better."
    return f"{Table(heads, (tuple(lines),)).markdown()}\n{said}\n"


SECTIONS: dict[str, Callable[[], str]] = {
    **{name: (lambda name=name: compared(name)) for name in COMPARED},
    "perp": _perp,
    "ap": _ap,
    "lottery-rewind": _rewind,
    "journey": _journey,
}


#: Method -> (folder of rows, its arm, the natural baseline's, task, point).
BESIDE: dict[str, tuple[str, str, str, str, str]] = {
    "lottery": ("lottery", "ticket", "re-initialised", "mnist-lenet-300-100", "95 %"),
    "global-magnitude": ("global-magnitude", "global with a floor", "uniform", "cifar10-mobilenet-0.125", "90 %"),
    "set": ("granet", "set", "static", "mnist-lenet-300-100", "98 %"),
    "rigl": ("granet", "rigl", "static", "mnist-lenet-300-100", "98 %"),
    "granet": ("granet", "granet from 50 %", "static", "mnist-lenet-300-100", "98 %"),
    "woodfisher": ("woodfisher", "blocks of 1000", "magnitude", "mnist-lenet-300-100", "95 %"),
    "m-fac": ("woodfisher", "M-FAC estimated 16 times", "magnitude", "mnist-lenet-300-100", "95 %"),
    "bip": ("bip", "bip", "one-shot", "cifar10-resnet8", "95 %"),
    "random": ("random", "random erk", "random uniform", "resnet8-width-16", "90 %"),
    "perp": ("perp", "mask-lora", "no retraining", "llama-4domains", "70 %"),
}


def beside() -> Table:
    """Every method that was compared, at one point, beside its natural baseline, a dense and a random arm where they ran."""
    lines = []
    for method, (folder, arm, base, task, point) in BESIDE.items():
        path = RESULTS / folder / "results.jsonl"
        done = [row for row in (read_rows(path)[0] if path.is_file() else []) if row["status"] == "done"]
        rows = [row for row in done if row["task"] == task and row["point"] in (point, None) and row["protocol"] != "start"]
        if {arm, base} <= {row["arm"] for row in rows}:
            scale = 100 if rows[0]["percent"] else 1
            found = by_arm(rows, base, lambda row, scale=scale: scale * row["value"])  # type: ignore[misc]
            unit = f"{rows[0]['metric'].rpartition(':')[2]}{', %' if rows[0]['percent'] else ''}"
            others = (found.get(name, ("",))[0] for name in ("random", "dense"))
            lines.append((f"[`{method}`]({method}.md)", f"{task}, {unit}", point, f"{arm}: {found[arm][0]}",
                          f"{base}: {found[base][0]}", found[arm][1], *others))  # fmt: skip
    return Table(("method", "task", "removed", "its arm", "beside", "difference", "random", "dense"), (tuple(lines),), left=5)
