"""``secateurs prune``: one shot, without data, from a folder to a folder, with the proof."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from secateurs.apply import Verification
from secateurs.cli.choices import check_one_shot
from secateurs.cli.opening import Opened, Source
from secateurs.cli.proving import as_data, verify_written
from secateurs.cli.showing import bytes_text, dump, facts, shape_text, share, show, stages
from secateurs.cli.writing import Beside, Target, stored_bytes
from secateurs.formats import save
from secateurs.measure import sizes
from secateurs.recipe import Recipe
from secateurs.report import Table
from secateurs.train import Pruned, prune

__all__ = ["prune_model"]


@dataclass(frozen=True)
class Outcome:
    """What was done, what it weighs and what was proved."""

    pruned: Pruned
    before: dict[str, Any]
    after: dict[str, Any]
    proof: Verification


def prune_model(source: Source, recipe: Recipe, target: Target, as_json: bool) -> bool:
    """Open, prune, write, verify and print; whether every promise was kept."""
    check_one_shot(recipe)
    target.check()
    with stages(4) as at:
        at.begin("opening")
        opened = source.open()
        before = _weigh(opened)
        at.begin("pruning")
        done = prune(opened.model, recipe, inplace=True)
        at.begin("writing")
        save(done.model, target.path, recipe=done.recipe, plan=Beside(done.plan, done.recipe, source.path), report=done.report,
             format=target.format, overwrite=target.overwrite)  # fmt: skip
        at.begin("verifying")
        proof = verify_written(opened, done.plan, target.path, source.trust_remote_code)
    outcome = Outcome(done, before, {**_weigh(opened), "stored_bytes": stored_bytes(target.path)}, proof)
    (_dump if as_json else _show)(outcome, target)
    return proof.ok


def _weigh(opened: Opened) -> dict[str, Any]:
    size = sizes(opened.model)
    return {"parameters": size.parameters, "nonzero": size.nonzero, "dense_bytes": size.dense_bytes,
            "paper_bytes": size.paper_bytes}  # fmt: skip


def _dump(outcome: Outcome, target: Target) -> None:
    dump({"out": str(target.path), "format": target.format, "recipe": outcome.pruned.recipe.to_dict(),
          "report": outcome.pruned.report, "sizes": {"before": outcome.before, "after": outcome.after},
          "verified": as_data(outcome.proof)})  # fmt: skip


def _show(outcome: Outcome, target: Target) -> None:
    lines = tuple(map(_line, outcome.pruned.report))
    show(Table(("layer", "shape", "weights", "kept", "removed"), (lines[:-1], lines[-1:]), left=2))
    before, after = outcome.before, outcome.after
    facts({
        "zeros": f"{after['parameters'] - after['nonzero']:,} of all {after['parameters']:,} parameters "
                 f"({share(1 - after['nonzero'] / after['parameters'])}), before {before['parameters'] - before['nonzero']:,}",
        "bytes": f"{bytes_text(before['dense_bytes'])} dense, now {bytes_text(after['stored_bytes'])} on disk; by the paper's "
                 f"accounting {bytes_text(after['paper_bytes'])} (4 bytes a non-zero + min(N/8, NNZ/2))" + _dense_note(target),
        "speed": _speed(outcome.pruned.recipe.structure or "element"),
        "verified": "; ".join(f"{c.name}: {c.detail}" + ("" if c.ok else " BROKEN") for c in outcome.proof.checks),
        "written": f"{target.path} ({', '.join(sorted(f.name for f in target.path.iterdir()))})",
    })  # fmt: skip


def _line(row: dict[str, Any]) -> tuple[str, ...]:
    return row["name"], shape_text(row["shape"] or ()), f"{row['size']:,}", f"{row['kept']:,}", share(row["sparsity"])


def _dense_note(target: Target) -> str:
    return "" if target.format == "secateurs" else ". This format stores the zeros too: --format secateurs does not"


def _speed(structure: str) -> str:
    plain = "not faster: dense kernels multiply the zeros too. What is gained is storage"
    if structure.startswith("2:4"):
        return f"{plain}. GPUs with sparse tensor cores gain from 2:4 with kernels made for it, which this does not switch on"
    return plain
