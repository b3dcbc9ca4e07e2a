"""``secateurs prune``: one shot, with text where the method needs it, from a folder to a folder, with the proof."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from secateurs.apply import Verification
from secateurs.cli.calibrating import Calibrated, prune_with_text
from secateurs.cli.choices import check_one_shot
from secateurs.cli.huggingface import shards_named
from secateurs.cli.opening import Opened, Source
from secateurs.cli.paging import write_page
from secateurs.cli.proving import as_data, verify_written
from secateurs.cli.resuming import done_with, resumed
from secateurs.cli.showing import bytes_text, dump, facts, shape_text, share, show, stages
from secateurs.cli.writing import Beside, Target, stored_bytes
from secateurs.formats import save
from secateurs.measure import sizes
from secateurs.models import Left
from secateurs.recipe import Recipe
from secateurs.report import Table
from secateurs.train import Pruned

__all__ = ["left_facts", "perplexity_facts", "prune_model", "rare_facts", "report_table", "speed"]


@dataclass(frozen=True)
class Outcome:
    """What was done, what it weighs and what was proved."""

    pruned: Pruned
    before: dict[str, Any]
    after: dict[str, Any]
    proof: Verification
    calibration: str | None = None
    perplexity: dict[str, Any] | None = None


def prune_model(
    source: Source, recipe: Recipe, target: Target, text: Calibrated, as_json: bool, command: str | None = None
) -> bool:
    """Open, prune, write, verify and print; whether every promise was kept. ``command`` is shown on the page."""
    walks = check_one_shot(recipe, text.source is not None)
    target = resumed(target)
    with stages(6) as at, shards_named(source.path.expanduser()):
        at.begin("opening")
        opened = source.open()
        before = {**_weigh(opened), "stored_bytes": stored_bytes(opened.path)}
        given = prune_with_text(opened, recipe, text, walks, target.path, source.trust_remote_code, at)
        done = given.pruned
        if given.perplexity is not None:
            done.report[-1]["perplexity"] = given.perplexity
        at.begin("writing")
        save(done.model, target.path, recipe=done.recipe, plan=Beside(done.plan, done.recipe, source.path), report=done.report,
             format=target.format, overwrite=target.overwrite)  # fmt: skip
        at.begin("verifying")
        proof = verify_written(opened, done.plan, target.path, source.trust_remote_code)
    outcome = Outcome(done, before, {**_weigh(opened), "stored_bytes": stored_bytes(target.path)}, proof,
                      given.calibration, given.perplexity)  # fmt: skip
    told = _told(opened, outcome, target, command)
    told["page"], where = write_page(told, target.path)
    if walks and proof.ok:
        done_with(target.path)
    if as_json:
        dump(told)
    else:
        _show(outcome, target, where)
    return proof.ok


def _weigh(opened: Opened) -> dict[str, Any]:
    size = sizes(opened.model)
    return {"parameters": size.parameters, "nonzero": size.nonzero, "dense_bytes": size.dense_bytes,
            "paper_bytes": size.paper_bytes}  # fmt: skip


def _told(opened: Opened, outcome: Outcome, target: Target, command: str | None) -> dict[str, Any]:
    """Everything there is to say, as data."""
    pruned = outcome.pruned
    return {
        "command": command, "source": str(opened.path), "model": type(opened.model).__name__, "out": str(target.path),
        "format": target.format, "recipe": pruned.recipe.to_dict(), "calibration": outcome.calibration,
        "report": pruned.report, "sizes": {"before": outcome.before, "after": outcome.after},
        "perplexity": outcome.perplexity, "left": [asdict(left) for left in pruned.left], "rare": pruned.rare,
        "speed": speed(pruned.recipe.structure or "element"), "verified": as_data(outcome.proof),
    }  # fmt: skip


def _show(outcome: Outcome, target: Target, page: str) -> None:
    show(report_table(outcome.pruned.report))
    before, after = outcome.before, outcome.after
    facts({
        "zeros": f"{after['parameters'] - after['nonzero']:,} of all {after['parameters']:,} parameters "
                 f"({share(1 - after['nonzero'] / after['parameters'])}), before {before['parameters'] - before['nonzero']:,}",
        "bytes": f"{bytes_text(before['dense_bytes'])} dense, now {bytes_text(after['stored_bytes'])} on disk; by the paper's "
                 f"accounting {bytes_text(after['paper_bytes'])} (4 bytes a non-zero + min(N/8, NNZ/2))" + _dense_note(target),
        **({"calibration": outcome.calibration} if outcome.calibration else {}),
        **perplexity_facts(outcome.perplexity),
        **rare_facts(outcome.pruned.rare),
        **left_facts(outcome.pruned.left),
        "speed": speed(outcome.pruned.recipe.structure or "element"),
        "verified": "; ".join(f"{c.name}: {c.detail}" + ("" if c.ok else " BROKEN") for c in outcome.proof.checks),
        "page": page,
        "written": f"{target.path} ({', '.join(sorted(f.name for f in target.path.iterdir()))})",
    })  # fmt: skip


def report_table(report: list[dict[str, Any]]) -> Table:
    """A line per layer and for the total."""
    errors = any("error" in row for row in report)
    lines = tuple(_line(row, errors) for row in report)
    heads = ("layer", "shape", "weights", "kept", "removed", *(["error"] if errors else []))
    return Table(heads, (lines[:-1], lines[-1:]), left=2)


def _line(row: dict[str, Any], errors: bool) -> tuple[str, ...]:
    error = [f"{row['error']:.4f}" if "error" in row else ""] if errors else []
    return row["name"], shape_text(row["shape"] or ()), f"{row['size']:,}", f"{row['kept']:,}", share(row["sparsity"]), *error


def perplexity_facts(found: Mapping[str, Any] | None) -> dict[str, str]:
    """Perplexities, where there was text."""
    if found is None:
        return {}
    before, after = ("infinite" if found[key] is None else f"{found[key]:.4f}" for key in ("before", "after"))
    return {"perplexity": f"{before} before, {after} after, on {found['text']}, {found['windows']} windows of "
                          f"{found['length']} tokens: {found['convention']}"}  # fmt: skip


def rare_facts(rare: tuple[tuple[str, int, int], ...]) -> dict[str, str]:
    """Experts that saw little."""
    if not rare:
        return {}
    name, expert, tokens = rare[0]
    return {"rare experts": f"{len(rare)} got less than a tenth of an even share of the tokens, first {expert} of {name} with "
                            f"{tokens}: calibrate with more"}  # fmt: skip


def left_facts(left: tuple[Left, ...]) -> dict[str, str]:
    """How many parameters were left alone, by reason."""
    reasons: dict[str, int] = {}
    for one in left:
        reasons[one.reason] = reasons.get(one.reason, 0) + 1
    listed = [f"{reason} ({count})" for reason, count in list(reasons.items())[:4]]
    more = [] if len(reasons) <= 4 else [f"and {len(reasons) - 4} reasons more"]
    return {"left alone": "; ".join([*listed, *more])} if reasons else {}


def _dense_note(target: Target) -> str:
    return "" if target.format == "secateurs" else ". This format stores the zeros too: --format secateurs does not"


def speed(structure: str) -> str:
    """What pruning by ``structure`` does to the time of a forward."""
    plain = "not faster: dense kernels multiply the zeros too. What is gained is storage"
    if structure.startswith("2:4"):
        return f"{plain}. GPUs with sparse tensor cores gain from 2:4 with kernels made for it, which this does not switch on"
    return plain
