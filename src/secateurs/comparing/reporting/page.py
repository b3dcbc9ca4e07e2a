"""The report's page: one HTML file with its charts' script inside, that asks no other machine for anything."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any

from secateurs.comparing.reporting.charts import chart
from secateurs.comparing.reporting.fairness import NOTE, PASSED, WARNING
from secateurs.comparing.reporting.points import Entry, Gathered, TaskResults, pair
from secateurs.comparing.reporting.sentences import findings, how, opening
from secateurs.comparing.reporting.stills import still
from secateurs.comparing.reporting.styles import styles
from secateurs.comparing.reporting.tables import layer_matrix, quality_table, signed, times_table
from secateurs.extras import require
from secateurs.version import __version__

if TYPE_CHECKING:
    from secateurs.comparing.outcome import Outcome

__all__ = ["render", "stills"]


@dataclass(frozen=True)
class Meeting:
    """A cell of the matrix of pairs: the arm of the line minus the arm of the column."""

    text: str
    title: str
    kind: str
    """``ahead`` or ``behind`` where the two can be told apart, else ``unclear``; ``same`` on the diagonal."""


def render(outcome: Outcome) -> str:
    """The page as HTML. Names and messages are text in it: markup in them is shown, never obeyed.

    Raises:
        MissingExtra: plotly or jinja2 is not installed.
    """
    jinja2 = require("jinja2", "compare")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    by_level = {level: [f.text for f in outcome.checks if f.level == level] for level in (WARNING, NOTE, PASSED)}
    by_level[WARNING] = [*outcome.warnings, *by_level[WARNING]]
    gathered = outcome.gathered
    looks, names = styles(gathered.tasks), _names(gathered)
    return environment.from_string(_text("page.html")).render(
        title=outcome.name, opening=_tied(opening(gathered)), checks=by_level, how=how(gathered), source=outcome.source,
        sections=[_section(task, chart(task, looks), name) for task, name in zip(gathered.tasks, names, strict=True)],
        settings=_settings(gathered), version=__version__, style=_text("page.css"), plotly=_plotly(),
    )  # fmt: skip


def stills(gathered: Gathered) -> dict[str, bytes]:
    """File name and content of every task's picture."""
    looks = styles(gathered.tasks)
    return {name: still(task, looks) for task, name in zip(gathered.tasks, _names(gathered), strict=True)}


def matrix(task: TaskResults, point: str) -> list[tuple[str, list[Meeting]]]:
    """The entries of a point against each other: a name and its cells per line."""
    entries = task.at(point)
    return [(ours.arm, [_meeting(task, ours, theirs) for theirs in entries]) for ours in entries]


def _meeting(task: TaskResults, ours: Entry, theirs: Entry) -> Meeting:
    if ours is theirs:
        return Meeting("", "", "same")
    found = pair(ours, theirs, task.metric)
    if found is None:
        return Meeting("–", "no common seed", "unclear")
    interval = ", 95 % interval " + " to ".join(signed(found.metric, edge) for edge in found.interval) if found.interval else ""
    title = f"{found.ours.arm} minus {found.theirs.arm}: better on {found.wins} of {len(found.seeds)} seeds{interval}"
    mean = found.differences.mean if found.metric.higher_is_better else -found.differences.mean
    kind = ("ahead" if mean > 0 else "behind") if found.clear else "unclear"
    return Meeting(found.metric.show_difference(found.differences), title, kind)


def _section(task: TaskResults, figure: Mapping[str, Any], picture: str) -> dict[str, Any]:
    return {
        "name": task.name, "picture": picture, "metric": task.metric.heading, "findings": list(map(_tied, findings(task))),
        "chart": figure, "data": _script_json(figure), "table": quality_table([task]), "times": times_table([task]),
        "matrices": [(point, matrix(task, point)) for point in task.labels],
        "layers": [(point, table) for point in task.labels if (table := layer_matrix(task, point)).lines],
    }  # fmt: skip


def _tied(sentence: str) -> str:
    """Without line breaks between a number and its unit or its error."""
    return sentence.replace(" %", "\u00a0%").replace(" ± ", "\u00a0±\u00a0")


def _names(gathered: Gathered) -> list[str]:
    """A file name per task, of letters that every system takes; numbered where two become the same."""
    names: list[str] = []
    for task in gathered.tasks:
        stem = "".join(c if c.isalnum() or c in "-_" else "-" for c in task.name).lower() or "task"
        numbered = (f"{stem}{end}.png" for end in ("", *(f"-{i}" for i in range(2, len(names) + 3))))
        names.append(next(name for name in numbered if name not in names))
    return names


def _settings(gathered: Gathered) -> str:
    """What determines the runs: of each task once, and of each arm once."""
    said: dict[str, Any] = {}
    for task in gathered.tasks:
        settings = [row.get("determined_by") or {} for entry in task.entries for row in entry.rows[:1]]
        arms = {str(s["arm"].get("name")): s["arm"] for s in settings if s.get("arm")}
        said[task.name] = {"task": next((s["task"] for s in settings if s.get("task")), None), "arms": list(arms.values())}
    return json.dumps(said, indent=1, ensure_ascii=False)


def _script_json(data: Any) -> Any:
    """JSON that cannot end the script element it stands in, whatever the names in it are."""
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    for mark in "<>&":
        text = text.replace(mark, f"\\u{ord(mark):04x}")
    return require("markupsafe", "compare").Markup(text)


def _text(name: str) -> Any:
    return resources.files("secateurs.comparing.reporting").joinpath(name).read_text(encoding="utf-8")


def _plotly() -> Any:
    """Plotly's own script, as it ships it."""
    require("plotly", "compare")
    return resources.files("plotly").joinpath("package_data", "plotly.min.js").read_text(encoding="utf-8")
