"""The scaling study as a page, a picture and Markdown."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

from secateurs.comparing.studies.scaling import Grown, ScalingOutcome
from secateurs.extras import require
from secateurs.files import write_whole
from secateurs.report import Figure, Page, Section, render_page
from secateurs.report.plots import THEMES, plain_axes

__all__ = ["markdown", "scaling_png", "write"]


def write(outcome: ScalingOutcome, folder: str | Path, name: str = "scaling") -> None:
    """``index.html``, ``scaling.png``, ``scaling-dark.png``, ``study.md`` and ``study.json`` into ``folder``, made if missing.

    Raises:
        MissingExtra: matplotlib or jinja2 is not installed.
        OSError: it cannot be written.
    """
    folder = Path(folder)
    light, dark = scaling_png(outcome, "light"), scaling_png(outcome, "dark")
    figure = Figure(light, dark, "Predicted against measured loss of every run.", "On the line a prediction is right.")
    said = outcome.sentences()
    page = Page(
        title=f"Does one law fit dense and sparse training? {name}",
        opening=said[0],
        sections=(
            Section("The law", tuple(said[1:]), outcome.law_table(), figure),
            Section("All runs", (), outcome.table()),
        ),
        foot="Regenerate with: secateurs study scaling RESULTS --out FOLDER",
    )
    folder.mkdir(parents=True, exist_ok=True)
    data = json.dumps(outcome.to_dict(), indent=1) + "\n"
    files = {"index.html": render_page(page).encode(), "scaling.png": light, "scaling-dark.png": dark,
             "study.md": markdown(outcome, name).encode(), "study.json": data.encode()}  # fmt: skip
    for file, content in files.items():
        write_whole(folder / file, content)


def markdown(outcome: ScalingOutcome, name: str = "scaling") -> str:
    """Sentences and tables as a Markdown document."""
    said = "\n".join(f"- {sentence}" for sentence in outcome.sentences())
    parts = (f"# {name}", said, outcome.law_table().markdown(), outcome.table().markdown())
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def scaling_png(outcome: ScalingOutcome, theme: str) -> bytes:
    """A PNG: predicted against measured loss, dense and sparse runs by their average size, sparse ones by their final size."""
    dress = THEMES[theme]
    new = require("matplotlib.figure", "plots").Figure
    figure = new(figsize=(5.2, 4.2), dpi=220, facecolor=dress.paper, layout="constrained")
    axes = figure.add_subplot()
    plain_axes(axes, dress)
    drawn = [("dense, fitted", outcome.dense, "average", "o"), ("sparse, by average size", outcome.sparse, "average", "s"),
             ("sparse, by final size", outcome.sparse, "final", "x")]  # fmt: skip
    for i, (label, runs, reading, marker) in enumerate(drawn):
        if runs:
            _dots(axes, outcome, runs, reading, marker, dress.series[i], label)
    ends = [min(run.loss for run in outcome.runs), max(run.loss for run in outcome.runs)]
    axes.plot(ends, ends, color=dress.ink, linewidth=1.0, linestyle=(0, (5, 3)))
    axes.set_xlabel("measured loss", color=dress.ink, fontsize=11, labelpad=6)
    axes.set_title("predicted loss", loc="left", color=dress.ink, fontsize=12, pad=28)
    axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 0.99), ncols=3, frameon=False, labelcolor=dress.ink, fontsize=9,
                handlelength=1.0, handletextpad=0.4, columnspacing=1.2, borderaxespad=0.2)  # fmt: skip
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", facecolor=dress.paper, metadata={"Software": None})
    return buffer.getvalue()


def _dots(axes: Any, outcome: ScalingOutcome, runs: list[Grown], reading: str, marker: str, colour: str, label: str) -> None:
    predicted = [outcome.law(run.size(reading), run.tokens) for run in runs]
    axes.plot([run.loss for run in runs], predicted, marker, color=colour, markersize=5, label=label)
