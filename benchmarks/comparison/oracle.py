"""The oracle studies as a section of the results page, from ``benchmarks/results/oracle-*/results.jsonl``."""

from __future__ import annotations

from pathlib import Path

from secateurs.comparing.studies.outcome import OracleOutcome
from secateurs.comparing.studies.page import make_page
from secateurs.comparing.studies.published import published_table
from secateurs.comparing.studies.scatter import scatter_png
from secateurs.errors import BadInput
from secateurs.files import write_whole

__all__ = ["section"]

ROOT = Path(__file__).parents[2]
RESULTS, IMAGES = ROOT / "benchmarks" / "results", ROOT / "docs" / "img"

INTRODUCTION = """\
## Is the oracle right?

Pruning looks for the weights whose removal raises the loss least. Does the set of filters with the lowest loss right after
pruning give the best model once it is retrained? Filters are removed in many ways, every pruned model is retrained alike, and
the losses before are ranked against the results after, as in "Is Oracle Pruning the True Oracle?" (2024).
"""


def section(results: Path = RESULTS, images: Path = IMAGES) -> str:
    """The section as Markdown; writes a picture per study to ``images``.

    Raises:
        BadInput: there are no results.
    """
    files = sorted(Path(results).glob("oracle-*/results.jsonl"))
    if not files:
        raise BadInput(f"no oracle study in {str(results)!r}: benchmarks/README.md says how to run them")
    images.mkdir(parents=True, exist_ok=True)
    published = ["### Published\n", published_table().markdown()]
    return "\n".join([INTRODUCTION, *(_study(OracleOutcome.read(path), images) for path in files), *published])


def _study(outcome: OracleOutcome, images: Path) -> str:
    page, path = make_page(outcome), images / f"{outcome.first['name']}.png"
    found = page.sections[0]
    write_whole(path, scatter_png(outcome, "light"))
    said = [*(f"Warning: {warning}" for warning in outcome.warnings), *found.sentences]
    parts = [f"### {outcome.first['task']}\n", f"{page.opening}\n",
             f"![final metric against the loss before retraining](img/{path.name})\n",
             "".join(f"- {sentence}\n" for sentence in said), outcome.table().markdown()]  # fmt: skip
    return "\n".join(parts)
