"""The oracle study in words, and as a page, a picture and Markdown."""

from __future__ import annotations

import json
import statistics
from pathlib import Path

from secateurs.comparing.reporting.words import count, listed
from secateurs.comparing.studies.outcome import TAU, OracleOutcome, P, kept_text
from secateurs.comparing.studies.published import SOURCE, published_table
from secateurs.comparing.studies.scatter import scatter_png
from secateurs.files import write_whole
from secateurs.report import Figure, Page, Section, render_page
from secateurs.report.rows import Spread

__all__ = ["make_page", "markdown", "sentences", "write"]

BRIEF = 0.1  # retraining for a smaller share of the dense steps is called brief


def sentences(outcome: OracleOutcome) -> list[str]:
    """What the numbers say, most important first."""
    return [_verdict(outcome), _anomaly(outcome), _gain(outcome), _noise(outcome), _retraining(outcome)]


def make_page(outcome: OracleOutcome) -> Page:
    """The study as a page."""
    first = outcome.first
    figure = Figure(scatter_png(outcome, "light"), scatter_png(outcome, "dark"), "Final metric of every set of filters against "
                    "its training loss before retraining.", "Bars span the repeats.")  # fmt: skip
    removed = listed(f"{at['rows'] - at['kept']} of the {at['rows']} filters of {at['name']}" for at in first["layers"])
    tried, there = len(outcome.sets), first["population"]
    ways = f"all {there:,}" if tried == there else f"{tried:,} of the {there:,}"
    opening = (f"Task {first['task']}: {ways} ways to remove {removed}, each retrained. "
               f"{_verdict(outcome)}")  # fmt: skip
    beside = ("The published study retrained thousands of models for 30 epochs each; steps, data and the number of sets are "
              "others here. Compare the pattern, not the digits.",)  # fmt: skip
    return Page(
        title=f"Is the oracle right? {first['name']}",
        opening=opening,
        sections=(
            Section("Loss before, result after", tuple(sentences(outcome)[1:]), outcome.table(), figure),
            Section("Published", beside, published_table()),
            Section("How it was run", _how(outcome)),
            Section("All sets", ("From the lowest loss after pruning to the highest.",), outcome.sets_table()),
        ),
        checks=tuple((False, warning) for warning in outcome.warnings),
        foot="Results: results.jsonl. Regenerate with: secateurs study oracle RECIPE --out FOLDER",
    )


def write(outcome: OracleOutcome, folder: str | Path) -> None:
    """``index.html``, ``scatter.png``, ``scatter-dark.png``, ``study.md`` and ``study.json`` into ``folder``, made if missing.

    Raises:
        MissingExtra: matplotlib or jinja2 is not installed.
        OSError: it cannot be written.
    """
    folder, page = Path(folder), make_page(outcome)
    folder.mkdir(parents=True, exist_ok=True)
    figure = page.sections[0].figure
    assert figure is not None  # make_page has just put it there
    data = json.dumps(outcome.to_dict(), indent=1) + "\n"
    files = {"index.html": render_page(page).encode(), "scatter.png": figure.light, "scatter-dark.png": figure.dark,
             "study.md": markdown(outcome).encode(), "study.json": data.encode()}  # fmt: skip
    for name, content in files.items():
        write_whole(folder / name, content)


def markdown(outcome: OracleOutcome) -> str:
    """Sentences and tables as a Markdown document."""
    said = [f"- Warning: {warning}" for warning in outcome.warnings] + [f"- {sentence}" for sentence in sentences(outcome)]
    parts = (f"# {outcome.first['name']}", "\n".join(said), outcome.table().markdown(),
             "## All sets", outcome.sets_table().markdown(), "## Published", published_table().markdown())  # fmt: skip
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def _verdict(outcome: OracleOutcome) -> str:
    kendall, metric = outcome.correlations[outcome.first["metric"]][0], outcome.metric
    bound = f"tau at {'most -' if metric.higher_is_better else 'least '}{TAU} with p at most {P}"
    if kendall.value is None or kendall.p is None or kendall.low is None:
        return f"Nothing can be ranked: fewer than three sets, or all have the same loss or the same final {metric.title}."
    interval = f"95 % interval {kendall.low:+.2f} to {kendall.high:+.2f}, p = {kendall.p:.2g}"
    tau = f"Kendall's tau-b of loss before and {metric.title} after is {kendall.value:+.2f} ({interval})"
    meaning = {"correlated": "a lower loss after pruning does go with a better model after retraining",
               "not correlated": "the loss after pruning does not tell which set is better after retraining",
               "reversed": "a lower loss after pruning goes with a WORSE model after retraining"}[outcome.verdict]  # fmt: skip
    return f"{tau}: by the published criterion, {bound}, {meaning} ({outcome.verdict})."


def _anomaly(outcome: OracleOutcome) -> str:
    found = outcome.anomaly
    said = (f"The oracle, the set with the lowest loss after pruning (kept: {kept_text(outcome.sets[found.oracle].kept)}), was "
            f"beaten by {found.better} of {found.sets} sets after retraining ({100 * found.ratio:.1f} %)")  # fmt: skip
    return said + (": no better than a random pick." if found.ratio >= 0.5 else ".")


def _gain(outcome: OracleOutcome) -> str:
    metric, values = outcome.metric, [s.value for s in outcome.sets]
    ours, mean = values[outcome.anomaly.oracle], statistics.fmean(values)
    best = max(values) if metric.higher_is_better else min(values)
    unit = " points" if metric.unit == "%" else ""
    gain, most = (metric.show_difference(Spread((value - mean,))) for value in (ours, best))
    return f"Against the mean of all sets the oracle's final {metric.title} is {gain}{unit}, the best set's {most}{unit}."


def _noise(outcome: OracleOutcome) -> str:
    """How much of what sets differ by is chance: ranks below the noise mean nothing."""
    metric, chance = outcome.metric, outcome.chance
    if chance is None:
        return "Each set was retrained once: how much of the ranking is chance is not known."
    between = statistics.stdev([s.value for s in outcome.sets])
    return (f"The sets' means have a standard deviation of {metric.show(Spread((between,)))} ({metric.heading}); chance alone, "
            f"judged by how repeats disagree about the sets, would give {metric.show(Spread((chance,)))}.")  # fmt: skip


def _retraining(outcome: OracleOutcome) -> str:
    first = outcome.first
    said = f"Retraining took {first['steps']:,} steps, the dense training {first['inherited_steps']:,}"
    brief = first["steps"] < BRIEF * first["inherited_steps"]
    return said + (": so brief a retraining may only echo the loss before it, which makes tau look strong." if brief else ".")


def _how(outcome: OracleOutcome) -> tuple[str, ...]:
    first, metric = outcome.first, outcome.metric
    dense = f"{metric.show(Spread((first['start'],)))} {metric.unit}".strip()
    examples = "all examples" if first["examples"] is None else f"{first['examples']:,} examples"
    return (
        f"Source of the study: {SOURCE}.",
        f"Dense model: {first['inherited_steps']:,} steps, seed {first['seed']}, {metric.title} {dense} on {first['split']}.",
        f"Loss before: in evaluation mode on {examples} of train; final loss on as many of {first['split']}; final "
        f"{metric.title} on all of {first['split']}, after the last step, never the best on the way.",
        f"Retrainings of each set: {max(len(s.repeats) for s in outcome.sets)}, in batches of {first['batch']}. The removed "
        "filters were held at zero, and the order of the data was the same for all sets of a repeat.",
        f"{count(first['threads'], 'thread')}, {listed(f'{name} {version}' for name, version in first['versions'].items())}.",
    )
