"""``secateurs prune --memory``: from a Hugging Face folder to another, with no more than a block in memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from secateurs.apply import Check, Verification, planned_counts, planned_zeros
from secateurs.cli.blockwise import memory_text, note_of, open_in_files, perplexity_in_files
from secateurs.cli.calibrating import Calibrated, teller
from secateurs.cli.choices import check_one_shot
from secateurs.cli.inputs import loss_of
from secateurs.cli.opening import Opened, Source
from secateurs.cli.paging import write_page
from secateurs.cli.proving import as_data
from secateurs.cli.pruning import left_facts, perplexity_facts, rare_facts, report_table, speed
from secateurs.cli.ranks import processes
from secateurs.cli.resuming import done_with, partial_folder, resumable, resumed
from secateurs.cli.showing import Stages, bytes_text, dump, facts, show, stages
from secateurs.cli.text import Perplexity, finite
from secateurs.cli.writing import Target, stored_bytes
from secateurs.errors import BadInput
from secateurs.files import write_whole
from secateurs.formats.manifest import to_json
from secateurs.measure.process import MemoryUse, PeakAnonymous, parse_bytes
from secateurs.recipe import Recipe
from secateurs.train import PrunedFolder, prune_folder
from secateurs.train.walk import open_folder

__all__ = ["prune_in_files"]


@dataclass(frozen=True)
class _Outcome:
    """What was done, the memory all of it took, what was proved, and perplexity before and after."""

    pruned: PrunedFolder
    memory: MemoryUse
    proof: Verification
    perplexity: dict[str, Any] | None


def prune_in_files(
    source: Source, recipe: Recipe, target: Target, text: Calibrated, memory: str, as_json: bool, command: str | None = None
) -> bool:
    """Prune, verify and print; whether every promise was kept, that of memory too. ``command`` is shown on the page."""
    budget = parse_bytes(memory)
    walks = check_one_shot(recipe, text.source is not None)
    target = resumed(target)
    _check(target)
    with stages(5) as at, PeakAnonymous() as watched:
        at.begin("text")
        opened = open_in_files(source)
        drawn = text.drawn(opened, recipe.seed, False)
        batches = None if drawn is None else drawn.batches
        measured = text.measured(opened, batches, False)
        told = _Perplexities(measured, memory, at, text.walk.get("blocks") or ())
        told.measure("before", opened.path)
        at.begin("pruning")
        walking = dict(text.walk) if walks else text.unwalked
        loss = None if text.source is None else loss_of(text.source)
        done = prune_folder(source.path, recipe, out=target.path, memory=memory, calibration=batches if walks else None,
                            overwrite=target.overwrite, state=partial_folder(target.path), loss=loss, **walking,
                            progress=resumable(target.path, teller(at)), gradients=note_of(at, "gradients"))  # fmt: skip
        told.measure("after", done.path)
        if measured is not None:
            done.report[-1]["perplexity"] = told.found()
            write_whole(done.path / "report.json", to_json(done.report, "report").encode())
        at.begin("verifying")
        proof = _proof(done, opened.path)
    peaks = [peak for peak in (watched.peak, done.memory.peak) if peak is not None]
    outcome = _Outcome(done, MemoryUse(budget, max(peaks) if peaks else None), proof, told.found())
    found = _told(outcome, opened, None if drawn is None else drawn.words, command)
    found["page"], where = write_page(found, done.path)
    if proof.ok:
        done_with(target.path)
    if as_json:
        dump(found)
    else:
        _show(outcome, where)
    return proof.ok and outcome.memory.kept is not False


def _check(target: Target) -> None:
    if target.format != "huggingface":
        raise BadInput(f"--memory writes a Hugging Face folder, not --format {target.format}: leave that out, and convert "
                       "with secateurs export")  # fmt: skip
    if processes() > 1:
        raise BadInput("--memory prunes in one process: start the command without torchrun, or leave --memory out")


class _Perplexities:
    """Perplexity before and after, where there is something to measure it on."""

    def __init__(self, measured: Perplexity | None, memory: str, at: Stages, blocks: Sequence[str]):
        self._measured, self._memory, self._at, self._blocks = measured, memory, at, blocks
        self._values: dict[str, float | None] = {}

    def measure(self, when: str, folder: Path) -> None:
        """Measure the model in ``folder``."""
        self._at.begin("measuring")
        if self._measured is not None:
            value, _ = perplexity_in_files(folder, self._measured, self._memory, self._at, self._blocks)
            self._values[when] = finite(value)

    def found(self) -> dict[str, Any] | None:
        """Both, and how they were measured."""
        return None if self._measured is None else {**self._values, **self._measured.facts()}


class _Tensors(Mapping[str, Tensor]):
    """The tensors of a folder's model by the model's names, each read when it is looked up; of tied ones the first."""

    def __init__(self, folder: Path):
        self._source = open_folder(folder)
        self._names = dict.fromkeys(self._source.names.values())

    def __getitem__(self, name: str) -> Tensor:
        return self._source.tensor(name)

    def __contains__(self, name: object) -> bool:
        return name in self._source.names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def _proof(done: PrunedFolder, source: Path) -> Verification:
    """The plan against what lies in the folder now, and the rest against where it came from, a tensor at a time."""
    before, after = _Tensors(source), _Tensors(done.path)
    planned = {entry.name for entry in done.plan.entries}
    others = [name for name in before if name not in planned]
    wrong = [name for name in others if not torch.equal(before[name], after[name])]
    rest = Check("other tensors", not wrong, f"{wrong[0]!r} differs" if wrong else f"{len(others)} as they were")
    return Verification((planned_counts(done.plan), planned_zeros(after, done.plan), rest))


def _told(outcome: _Outcome, opened: Opened, calibration: str | None, command: str | None) -> dict[str, Any]:
    """Everything there is to say, as data."""
    done, memory = outcome.pruned, outcome.memory
    return {
        "command": command, "source": str(opened.path), "model": type(opened.model).__name__, "out": str(done.path),
        "format": "huggingface", "recipe": done.recipe.to_dict(), "calibration": calibration, "report": done.report,
        "memory": {"budget_bytes": memory.budget, "peak_bytes": memory.peak, "kept": memory.kept},
        "sizes": {"before": {"stored_bytes": stored_bytes(opened.path)}, "after": {"stored_bytes": stored_bytes(done.path)}},
        "perplexity": outcome.perplexity, "left": [asdict(left) for left in done.left], "rare": done.rare,
        "speed": speed(done.recipe.structure or "element"), "verified": as_data(outcome.proof),
    }  # fmt: skip


def _show(outcome: _Outcome, page: str) -> None:
    done = outcome.pruned
    show(report_table(done.report))
    facts({
        "bytes": f"{bytes_text(stored_bytes(done.path))} on disk, zeros included: secateurs export leaves them out",
        "memory": memory_text(outcome.memory),
        **perplexity_facts(outcome.perplexity),
        **rare_facts(done.rare),
        **left_facts(done.left),
        "speed": speed(done.recipe.structure or "element"),
        "verified": "; ".join(f"{c.name}: {c.detail}" + ("" if c.ok else " BROKEN") for c in outcome.proof.checks),
        "page": page,
        "written": f"{done.path} ({len(list(done.path.iterdir()))} files)",
    })  # fmt: skip
