"""The section on architectures of the results page, from ``benchmarks/results/coverage`` and the committed list alone."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.coverage.architectures import LIST
from benchmarks.coverage.run import TOOLS
from secateurs.comparing.store import read_rows
from secateurs.errors import BadInput
from secateurs.report import Table

__all__ = ["RESULTS", "section"]

RESULTS = Path(__file__).parents[1] / "results" / "coverage"
FAMILIES = {"plain": "plain PyTorch", "text": "transformers, text", "vision": "transformers, vision"}

INTRODUCTION = """\
## Structure out of many architectures

{count} architectures: the plain PyTorch networks of `benchmarks/nets`, and one class for every vision and text model type of
transformers {transformers} that builds in a tiny random configuration and exports with torch {torch}; {left_out} more do not,
each with its reason in `benchmarks/coverage/architectures.json`. This library passes where 30 % of a class of groups that holds
at least a tenth of the parameters goes and the result is verified. It fails closed where it refuses with a reason before it
changes anything; any other error is a defect. {peer} passes, with the settings of its own examples, where the pruned model runs
and at least 3 % of its parameters are gone. Whether that model is still the same function is not asked.
"""


def section(results: Path = RESULTS, listed: Path = LIST) -> str:
    """The section as Markdown.

    Raises:
        BadInput: a side has no results.
    """
    known = json.loads(listed.read_text(encoding="utf-8"))
    sides = {tool: _rows(results / file) for tool, (_, file) in TOOLS.items()}
    tools = {tool: next(row["tool"] for row in rows.values() if "tool" in row) for tool, rows in sides.items()}
    head = INTRODUCTION.format(count=len(known["architectures"]), left_out=len(known["left_out"]), peer=tools["peer"],
                               torch=known["torch"], transformers=known["transformers"])  # fmt: skip
    names = {title: [row["name"] for row in known["architectures"] if row["family"] == family]
             for family, title in FAMILIES.items()}  # fmt: skip
    lines = [(title, *_line(found, sides)) for title, found in names.items()]
    total = ("all", *_line([row["name"] for row in known["architectures"]], sides))
    columns = ("architectures", "number", f"{tools['ours']}: pass", "fail closed", "defects", f"{tools['peer']}: pass")
    table = Table(columns, (tuple(lines), (total,))).markdown()
    return "\n".join([head, table, *_failures(tools["ours"], sides["ours"]), _reasons(tools["peer"], sides["peer"])])


def _rows(path: Path) -> dict[str, dict[str, Any]]:
    if not path.is_file():
        raise BadInput(f"no results in {str(path)!r}: run python -m benchmarks.coverage.run first")
    return {row["run"]: row for row in read_rows(path)[0]}


def _line(names: list[str], sides: dict[str, dict[str, dict[str, Any]]]) -> tuple[str, ...]:
    """How many there are; of those measured, how many pass, refuse and err here, and how many pass there."""
    ours, theirs = ([rows[name] for name in names if name in rows] for rows in (sides["ours"], sides["peer"]))
    failed = [row for row in ours if row["status"] != "done"]
    refusals = sum(bool(row.get("is_refusal")) for row in failed)
    return (str(len(names)), _passed(ours), str(refusals), str(len(failed) - refusals), _passed(theirs))


def _passed(rows: list[dict[str, Any]]) -> str:
    return f"{sum(row['status'] == 'done' for row in rows)} of {len(rows)}" if rows else ""


def _failures(tool: str, rows: dict[str, dict[str, Any]]) -> list[str]:
    """Every architecture that did not pass here, with its reason."""
    failed = [f"- `{name}`: {row['reason']}" for name, row in rows.items() if row["status"] != "done"]
    return [f"{tool}, what did not pass:\n", *failed, ""] if failed else [f"{tool}: none failed.\n"]


def _reasons(tool: str, rows: dict[str, dict[str, Any]]) -> str:
    """What its failures were, the commonest first, by the type of error."""
    reasons = Counter(row["reason"].split(":")[0] for row in rows.values() if row["status"] != "done")
    if not reasons:
        return f"{tool}: none failed.\n"
    return f"{tool}, why it failed: " + ", ".join(f"{reason} ({count})" for reason, count in reasons.most_common()) + ".\n"
