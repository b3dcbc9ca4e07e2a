"""One table, three ways to print it: rich for a terminal, Markdown for a document, plain text for a log."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from secateurs.errors import BadInput
from secateurs.extras import require
from secateurs.report.rows import Metric, Row, Spread, group, paired, spread

__all__ = ["Contest", "Table", "contest", "contest_table"]

Cells = tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """Headings and cells, already text. ``sections`` are lines that belong together; the first ``left`` columns are words.

    With ``wrap`` the first and the last column are sentences, which a page may break into lines.
    """

    headings: Cells
    sections: tuple[tuple[Cells, ...], ...]
    left: int = 1
    caption: str = ""
    wrap: bool = False

    def __post_init__(self) -> None:
        for line in self.lines:
            if len(line) != len(self.headings):
                raise BadInput(f"a line of {len(line)} cells under {len(self.headings)} headings: {line}")

    @property
    def lines(self) -> list[Cells]:
        """All lines of all sections."""
        return [line for section in self.sections for line in section]

    def markdown(self) -> str:
        """A GitHub table; a bar in a cell is escaped."""
        rule = [":--" if i < self.left else "--:" for i in range(len(self.headings))]
        lines = ["| " + " | ".join(c.replace("|", r"\|") for c in line) + " |" for line in (self.headings, rule, *self.lines)]
        return "\n".join(lines + (["", self.caption] if self.caption else [])) + "\n"

    def plain(self) -> str:
        """Aligned columns, a blank line between sections."""
        width = [max(map(len, column)) for column in zip(self.headings, *self.lines, strict=True)]

        def fit(line: Cells) -> str:
            cells = [c.ljust(w) if i < self.left else c.rjust(w) for i, (c, w) in enumerate(zip(line, width, strict=True))]
            return "  ".join(cells).rstrip()

        blocks = ["\n".join(map(fit, section)) for section in self.sections]
        head = f"{fit(self.headings)}\n{'-' * (sum(width) + 2 * (len(width) - 1))}\n"
        return head + "\n\n".join(blocks) + "\n" + (f"\n{self.caption}\n" if self.caption else "")

    def rich(self) -> Any:
        """Something a rich console prints: the table, the caption under it. Cells are taken literally, never as markup."""
        text = require("rich.text", "cli").Text
        box = require("rich.box", "cli").SIMPLE_HEAD
        table = require("rich.table", "cli").Table(box=box, header_style="bold", pad_edge=False)
        for i, cells in enumerate(zip(self.headings, *self.lines, strict=True)):
            # A heading may wrap, what stands under it may not.
            table.add_column(text(cells[0]), justify="left" if i < self.left else "right", vertical="bottom",
                             min_width=max(map(len, cells[1:]), default=0))  # fmt: skip
        for section in self.sections:
            for i, line in enumerate(section):
                table.add_row(*map(text, line), end_section=i == len(section) - 1)
        return require("rich.console", "cli").Group(table, text(f"{self.caption}\n")) if self.caption else table


@dataclass(frozen=True)
class Contest:
    """One operating point: the rows of a challenger and of its rival, and their differences pair by pair."""

    point: str
    rows: Sequence[Row]
    rival: Sequence[Row]
    differences: Spread


def contest(rows: Sequence[Row], metric: Metric, baseline: str = "dense") -> list[Contest]:
    """Each challenger beside the ``baseline`` method of its operating point; differences are challenger minus baseline.

    Rows are told apart by ``label`` and joined by ``point``; a point without a baseline or without a challenger gives none.

    Raises:
        BadInput: a point has several baselines, or seeds that do not pair.
    """
    contests = []
    for point, members in group(rows, "point").items():
        rivals = list(group([row for row in members if row["method"] == baseline]).values())
        if len(rivals) > 1:
            labels = [runs[0]["label"] for runs in rivals]
            raise BadInput(f"point {point!r} has {len(rivals)} labels of method {baseline!r}, {labels}: give it one")
        for ours in group([row for row in members if row["method"] != baseline]).values() if rivals else ():
            contests.append(Contest(point, ours, rivals[0], paired(ours, rivals[0], metric.key)))
    return contests


def contest_table(
    rows: Sequence[Row],
    metric: Metric,
    columns: Sequence[Metric],
    *,
    baseline: str = "dense",
    corner: str = "",
    caption: str = "",
) -> Table:
    """A section per operating point with a line per label: ``metric``, its difference to the baseline there, ``columns``."""
    differences = {c.rows[0]["label"]: metric.show_difference(c.differences) for c in contest(rows, metric, baseline)}
    sections = []
    for point, members in group(rows, "point").items():
        lines = []
        for label, runs in group(members).items():
            shown = [m.show(spread(runs, m.key)) for m in (metric, *columns)]
            lines.append((label, shown[0], differences.get(label, ""), *shown[1:]))
        sections.append(tuple((str(point) if i == 0 else "", *line) for i, line in enumerate(lines)))
    headings = (corner, "model", metric.heading, f"vs {baseline}", *(c.heading for c in columns))
    return Table(headings, tuple(sections), left=2, caption=caption)
