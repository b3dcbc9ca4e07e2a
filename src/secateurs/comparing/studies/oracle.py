"""The oracle study from beginning to end. What is finished is not done again, so it may be killed and started at will."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from secateurs.comparing.processes import board as boards
from secateurs.comparing.processes.jobs import Row, Tell
from secateurs.comparing.processes.workers import work
from secateurs.comparing.recipes import grid
from secateurs.comparing.running import execute
from secateurs.comparing.running.task import ready
from secateurs.comparing.spec import Run
from secateurs.comparing.store import RESULTS, Results
from secateurs.comparing.studies import recipe as recipes
from secateurs.comparing.studies import retraining
from secateurs.comparing.studies.filters import find_filters
from secateurs.comparing.studies.outcome import OracleOutcome, kept_text
from secateurs.comparing.studies.sets import kept_sets
from secateurs.comparing.studies.spec import STUDY, OracleStudy, Retraining
from secateurs.errors import BadInput
from secateurs.extras import require

__all__ = ["carry_out", "failed", "planned", "study_oracle"]

Job = Run | Retraining


def study_oracle(
    recipe: str | Path | Mapping[str, Any] | OracleStudy, *, out: str | Path, jobs: int = 1, console: Any = None
) -> OracleOutcome:
    """Carry out every retraining of an oracle study that is not done yet, and return what came out.

    The dense model is trained first. One line per retraining is added to ``results.jsonl`` in ``out`` as soon as it is over,
    with its error if it failed; those that failed before are tried again. Interrupted or killed at any moment, the same call
    goes on, to the same results.

    Args:
        recipe: a YAML file, the same as a mapping, or the study itself. In the latter two, functions may stand for their names;
            where another process cannot import them, everything is done in this one.
        out: folder for results and the dense weights.
        jobs: retrainings at a time, each in a process of its own.
        console: a ``rich.console.Console`` for the progress; standard error by default.

    Raises:
        BadInput: the recipe cannot be carried out, ``out`` holds something else or is in use, or nothing could be finished.
        MissingExtra: rich, PyYAML, pydantic or SciPy (extra ``compare``) is not installed.
    """
    require("scipy.stats", "compare")  # what the last second needs is missed in the first
    console = console or require("rich.console", "compare").Console(stderr=True)
    study, folder = _study(recipe), Path(out).expanduser()
    with Results(folder / RESULTS) as results:
        _check(results)
        everything = planned(study)
        _do_missing(study, everything, results, folder, jobs, console)
        names = {job.name for job in everything}
        return OracleOutcome([row for row in results.rows if row["run"] in names], results.warnings)


def planned(study: OracleStudy) -> list[Job]:
    """The training of the dense model and every retraining. Builds the model once, to count its filters.

    Raises:
        BadInput: the model cannot be built, or its layers are not as the study says.
    """
    filters = find_filters(ready(study.task).fresh(study.seed), study.layers)
    sets = kept_sets([layer.choice(study.ratio) for layer in filters], study.samples, study.seed)
    return [study.start(), *study.retrainings(sets)]


def carry_out(job: Job, folder: Path, tell: Tell) -> Row:
    """The row of the dense training or of a retraining."""
    return execute.execute(job, folder, tell) if isinstance(job, Run) else retraining.retrain(job, folder, tell)


def failed(job: Job, error: BaseException, seconds: float) -> Row:
    """The row of one that ended with ``error`` after ``seconds``."""
    return execute.failed(job, error, seconds) if isinstance(job, Run) else retraining.failed(job, error, seconds)


def _study(recipe: str | Path | Mapping[str, Any] | OracleStudy) -> OracleStudy:
    if isinstance(recipe, OracleStudy):
        return recipe
    return recipes.from_dict(recipe) if isinstance(recipe, Mapping) else recipes.read(recipe)


def _check(results: Results) -> None:
    for row in results.rows:
        if row.get("study") != STUDY and row.get("protocol") != "start":
            raise BadInput(f"results file {str(results.path)!r} is not of an oracle study (run {row['run']!r}); choose another "
                           "folder (--out)")  # fmt: skip


def _do_missing(
    study: OracleStudy, everything: Sequence[Job], results: Results, folder: Path, jobs: int, console: Any
) -> None:
    done, start = results.done(), study.start()
    missing: list[Job] = [job for job in everything if job.name not in done]
    if missing and start not in missing and not execute.stored(start, folder):
        missing.insert(0, start)  # its row is there, its weights are gone
    if not missing:
        return
    with boards.Board(console, missing, jobs, label=_label, steps=_steps) as board:
        rows: Any = work(missing, folder, execute=carry_out, failed=failed, jobs=jobs, threads=study.threads, tell=board.tell)
        with closing(rows):
            for row in rows:
                results.append(row)
                board.over(row)


def _label(job: Job) -> str:
    """``"digits · kept 0 3 4 · repeat 1"``."""
    return boards.label(job) if isinstance(job, Run) else f"{job.task.name} · kept {kept_text(job.kept)} · repeat {job.repeat}"


def _steps(job: Job) -> int:
    return grid.steps(job) if isinstance(job, Run) else job.task.steps
