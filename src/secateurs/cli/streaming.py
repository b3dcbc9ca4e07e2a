"""``secateurs prune --memory``: from a Hugging Face folder to another, with no more than a block in memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from secateurs.apply import Check, Verification, planned_counts, planned_zeros
from secateurs.cli.calibrating import Calibrated, teller
from secateurs.cli.choices import check_one_shot
from secateurs.cli.opening import Opened, Source
from secateurs.cli.proving import as_data
from secateurs.cli.pruning import left_facts, rare_facts, report_table, speed
from secateurs.cli.showing import bytes_text, dump, facts, show, stages
from secateurs.cli.writing import Target, stored_bytes
from secateurs.errors import BadInput
from secateurs.measure.process import MemoryUse, parse_bytes
from secateurs.recipe import Recipe
from secateurs.train import PrunedFolder, prune_folder
from secateurs.train.walk import Shards, open_hollow

__all__ = ["prune_in_files"]


def prune_in_files(source: Source, recipe: Recipe, target: Target, text: Calibrated, memory: str, as_json: bool) -> bool:
    """Prune, verify and print; whether every promise was kept, that of memory too."""
    parse_bytes(memory)
    walks = check_one_shot(recipe, text.source is not None)
    target.check()
    _check(source, target, text)
    with stages(2) as at:
        at.begin("pruning")
        walking = dict(text.walk) if walks else _unwalked(text.walk)
        batches = _batches(source, text, recipe.seed) if walks else None
        done = prune_folder(source.path, recipe, out=target.path, memory=memory, calibration=batches,
                            overwrite=target.overwrite, progress=teller(at), **walking)  # fmt: skip
        at.begin("verifying")
        proof = _proof(done, source.path.expanduser())
    (_dump if as_json else _show)(done, proof)
    return proof.ok and done.memory.kept is not False


def _check(source: Source, target: Target, text: Calibrated) -> None:
    """Refuse what needs the whole model in memory."""
    if target.format != "huggingface":
        raise BadInput(f"--memory writes a Hugging Face folder, not --format {target.format}: leave that out, and convert "
                       "with secateurs export")  # fmt: skip
    if text.perplexity is not None:
        raise BadInput("--perplexity is measured on the whole model, which --memory never holds: leave it out, and use "
                       "secateurs evaluate")  # fmt: skip
    if source.factory is not None or source.trust_remote_code:
        raise BadInput("--memory prunes models of classes that transformers has: leave out --factory and --trust-remote-code")
    if not (source.path.expanduser() / "config.json").is_file():
        raise BadInput(f"--memory needs a Hugging Face folder, and {str(source.path)!r} has no config.json")


def _unwalked(walk: Mapping[str, Any]) -> dict[str, Any]:
    return {key: walk[key] for key in ("blocks", "only_blocks") if walk.get(key)}


def _batches(source: Source, text: Calibrated, seed: int) -> Iterator[dict[str, Any]]:
    """Read when the pruning asks for them, so that the memory they take is measured too."""
    opened = Opened(open_hollow(source.path.expanduser()), source.path.expanduser(), "huggingface")
    yield from text.batches(opened, seed, False) or ()


class _Tensors(Mapping[str, Tensor]):
    """A folder's tensors, each read when it is looked up."""

    def __init__(self, folder: Path):
        self._shards = Shards(folder)

    def __getitem__(self, name: str) -> Tensor:
        return self._shards.get(name)

    def __contains__(self, name: object) -> bool:
        return name in self._shards.names

    def __iter__(self) -> Iterator[str]:
        return iter(self._shards.names)

    def __len__(self) -> int:
        return len(self._shards.names)


def _proof(done: PrunedFolder, source: Path) -> Verification:
    """The plan against what lies in the folder now, and the rest against where it came from, a tensor at a time."""
    before, after = _Tensors(source), _Tensors(done.path)
    planned = {entry.name for entry in done.plan.entries}
    others = [name for name in before if name in after and name not in planned]
    wrong = [name for name in others if not torch.equal(before[name], after[name])]
    rest = Check("other tensors", not wrong, f"{wrong[0]!r} differs" if wrong else f"{len(others)} as they were")
    return Verification((planned_counts(done.plan), planned_zeros(after, done.plan), rest))


def _dump(done: PrunedFolder, proof: Verification) -> None:
    dump({"out": str(done.path), "format": "huggingface", "recipe": done.recipe.to_dict(), "report": done.report,
          "memory": {"budget_bytes": done.memory.budget, "peak_bytes": done.memory.peak, "kept": done.memory.kept},
          "sizes": {"after": {"stored_bytes": stored_bytes(done.path)}}, "perplexity": None,
          "left": [asdict(left) for left in done.left], "rare": done.rare, "verified": as_data(proof)})  # fmt: skip


def _show(done: PrunedFolder, proof: Verification) -> None:
    show(report_table(done.report))
    facts({
        "bytes": f"{bytes_text(stored_bytes(done.path))} on disk, zeros included: secateurs export leaves them out",
        "memory": _memory_text(done.memory),
        **rare_facts(done.rare),
        **left_facts(done.left),
        "speed": speed(done.recipe.structure or "element"),
        "verified": "; ".join(f"{c.name}: {c.detail}" + ("" if c.ok else " BROKEN") for c in proof.checks),
        "written": f"{done.path} ({len(list(done.path.iterdir()))} files)",
    })  # fmt: skip


def _memory_text(use: MemoryUse) -> str:
    if use.peak is None:
        return f"not measured: this system does not tell what a process holds; {bytes_text(use.budget)} were allowed"
    how = "of this process's own memory (RssAnon and RssShmem, sampled), pages of mapped files not counted"
    said = f"at most {bytes_text(use.peak)} {how}; {bytes_text(use.budget)} were allowed"
    return said if use.kept else f"{said}: EXCEEDED"
