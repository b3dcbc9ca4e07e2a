"""``secateurs report``: a results file, of a comparison or of a study, as tables, pictures and a page."""

from __future__ import annotations

import sys
from pathlib import Path

from secateurs.cli.showing import dump, show
from secateurs.cli.studying import tell
from secateurs.comparing.outcome import Outcome, wanted_beside
from secateurs.comparing.store import RESULTS, read_rows
from secateurs.comparing.studies.outcome import OracleOutcome
from secateurs.comparing.studies.page import write
from secateurs.comparing.studies.spec import STUDY as ORACLE

__all__ = ["report"]


def report(results: Path, out: Path | None, json: bool) -> None:
    """Write the report of ``results`` (a file, or a folder with ``results.jsonl``) and say what is in it.

    The report goes to ``out``, by default to ``report`` beside the results.

    Raises:
        BadInput: there is no results file, or nothing in it was finished.
    """
    file = results / RESULTS if results.is_dir() else results
    folder = out or file.parent / "report"
    rows, warnings = read_rows(file)
    if any(row.get("study") == ORACLE for row in rows):
        study = OracleOutcome(rows, warnings)
        write(study, folder)
        tell(study, folder, json, "report")
        return
    outcome = Outcome(rows, warnings, file.name, wanted_beside(file))
    page = outcome.write(folder)
    if json:
        dump({"table": outcome.records(), "warnings": [*outcome.warnings, *outcome.fairness()], "page": str(page)})
        return
    show(outcome.summary())
    for text in (*outcome.warnings, *outcome.fairness()):
        print(f"! {text}", file=sys.stderr)
    print(f"page: {page}")
