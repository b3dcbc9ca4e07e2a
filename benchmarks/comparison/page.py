"""The fair comparison as a section of the results page: every sentence and number from ``benchmarks/results/fair``."""

from __future__ import annotations

from pathlib import Path

from secateurs.comparing.outcome import Outcome
from secateurs.comparing.reporting.page import render, stills
from secateurs.comparing.reporting.points import TaskResults
from secateurs.comparing.reporting.sentences import findings, how, opening
from secateurs.comparing.reporting.tables import quality_table
from secateurs.errors import BadInput
from secateurs.files import write_whole

__all__ = ["section"]

ROOT = Path(__file__).parents[2]
RESULTS, IMAGES = ROOT / "benchmarks" / "results" / "fair" / "results.jsonl", ROOT / "docs" / "img"
PAGES = ROOT / "docs" / "pages"

INTRODUCTION = """\
## Methods compared

Pruned models beside what is easily left out of such tables: random pruning, a dense network of the same size, the dense model
trained on for as many steps, and the pruned shape trained from new weights (Scratch-E for the whole budget of steps, Scratch-B
for as much compute, at most twice the steps; Liu et al. 2019). Every run of a seed begins with the same dense model, unless it
begins with random weights, and sees the same batches.
"""

WHOLE = "The [whole report](pages/{}) has every pair of arms, layer and time; it is a file to download and open."


def section(results: Path = RESULTS, images: Path = IMAGES, pages: Path = PAGES) -> str:
    """The section as Markdown; writes a picture per task to ``images``, and the whole report to ``pages``.

    Raises:
        BadInput: there are no results.
    """
    if not Path(results).is_file():
        raise BadInput(f"no results in {str(results)!r}: run secateurs compare benchmarks/recipes/fair.yaml first")
    outcome = Outcome.read(results)
    for folder in (images, pages):
        folder.mkdir(parents=True, exist_ok=True)
    page = pages / f"{outcome.name}.html".replace(" ", "-")
    write_whole(page, render(outcome).encode())
    parts = [INTRODUCTION, f"{opening(outcome.gathered)} {WHOLE.format(page.name)}\n", *_warned(outcome)]
    for task, (name, picture) in zip(outcome.gathered.tasks, stills(outcome.gathered).items(), strict=True):
        path = images / f"{outcome.name}-{name}".replace(" ", "-")
        write_whole(path, picture)
        parts.append(_task(task, path.name))
    return "\n".join([*parts, "How it was run:\n", _bullets(how(outcome.gathered))])


def _warned(outcome: Outcome) -> list[str]:
    warnings = [*outcome.warnings, *outcome.fairness()]
    return ["Before you compare:\n", _bullets(warnings)] if warnings else []


def _task(task: TaskResults, picture: str) -> str:
    image = f"![{task.metric.title} against density and bytes](img/{picture})\n"
    return "\n".join([f"### {task.name}\n", image, _bullets(findings(task)), quality_table([task]).markdown()])


def _bullets(sentences: list[str]) -> str:
    return "".join(f"- {sentence}\n" for sentence in sentences)
