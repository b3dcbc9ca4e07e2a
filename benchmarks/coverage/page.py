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
at least a tenth of the parameters goes and the result is verified; {peer}, with the settings of its own examples, where the
pruned model runs and at least 3 % of its parameters are gone. Whether that model is still the same function is not asked.
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
    table = Table(("architectures", "number", *tools.values()), (tuple(lines), (total,))).markdown()
    return "\n".join([head, table, *(_reasons(tools[tool], rows) for tool, rows in sides.items())])


def _rows(path: Path) -> dict[str, dict[str, Any]]:
    if not path.is_file():
        raise BadInput(f"no results in {str(path)!r}: run python -m benchmarks.coverage.run first")
    return {row["run"]: row for row in read_rows(path)[0]}


def _line(names: list[str], sides: dict[str, dict[str, dict[str, Any]]]) -> tuple[str, ...]:
    """How many there are, and of those measured how many passed, by side."""
    found = [str(len(names))]
    for rows in sides.values():
        there = [rows[name] for name in names if name in rows]
        passed = sum(row["status"] == "done" for row in there)
        found.append(f"{passed} of {len(there)}" if there else "")
    return tuple(found)


def _reasons(tool: str, rows: dict[str, dict[str, Any]]) -> str:
    """What the failures were, the commonest first, by the type of error."""
    reasons = Counter(row["reason"].split(":")[0] for row in rows.values() if row["status"] != "done")
    if not reasons:
        return f"{tool}: none failed.\n"
    return f"{tool}, why it failed: " + ", ".join(f"{reason} ({count})" for reason, count in reasons.most_common()) + ".\n"
