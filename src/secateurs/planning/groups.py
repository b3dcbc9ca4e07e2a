"""The plan of a structured run: which indices of every coupled group stay, what that saves, and what is frozen and why."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from secateurs.errors import BadInput, CorruptFile, MissingExtra
from secateurs.extras import require
from secateurs.files import write_whole
from secateurs.graph.groups import Frozen, Graph, Group
from secateurs.planning.group_costs import Cost
from secateurs.planning.plan import OfGroups, Plan

__all__ = ["GroupEntry", "GroupPlan", "load_plan", "members"]

VERSION = 2  # 1 is the plan of single weights, which knows no groups


@dataclass(frozen=True)
class GroupEntry:
    """One group: ``kept`` of its ``size`` indices stay. ``members`` are the ``tensor:dimension`` that go with it."""

    name: str
    kind: str
    size: int
    kept: int
    members: tuple[str, ...]

    @property
    def ratio(self) -> float:
        """Share removed."""
        return 1 - self.kept / self.size


@dataclass(frozen=True)
class GroupPlan:
    """What a structured run removes.

    Attributes:
        entries: the groups that were ranked, those that lose nothing included.
        keeps: of each group that loses something, the indices that stay: int64, ascending; of a ragged child a row for each
            kept index of its parent.
        before: the dense model's parameters, multiply-adds and bytes.
        after: the same as predicted from the graph; they are what is counted after cutting.
        frozen: axes of which nothing may go, each with the reason.
        recipe: the run's recipe as plain data.
    """

    entries: tuple[GroupEntry, ...]
    keeps: dict[str, Tensor]
    before: Cost
    after: Cost
    frozen: tuple[Frozen, ...] = ()
    recipe: dict[str, Any] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Indices of all ranked groups together."""
        return sum(e.size for e in self.entries)

    @property
    def removed(self) -> int:
        """Indices that go."""
        return sum(e.size - e.kept for e in self.entries)

    @property
    def ratio(self) -> float:
        """Share of the ranked indices that goes."""
        return self.removed / self.size if self.size else 0.0

    @property
    def removes_layers(self) -> bool:
        """Whether it is one of whole repeated blocks: the entries are lists of them, by their module's name."""
        return any(e.kind == "layers" for e in self.entries)

    def report(self) -> list[dict[str, Any]]:
        """A row per group and one for all, as plain data."""
        rows = [{"name": e.name, "kind": e.kind, "size": e.size, "kept": e.kept, "ratio": e.ratio, "members": len(e.members)}
                for e in self.entries]  # fmt: skip
        whole = {"name": "total", "kind": "", "size": self.size, "kept": self.size - self.removed, "ratio": self.ratio,
                 "members": sum(len(e.members) for e in self.entries)}  # fmt: skip
        return [*rows, whole]

    def check(self, graph: Graph) -> Graph:
        """``graph``, if this plan is one for it.

        Raises:
            BadInput: a group is missing there, has another size or is frozen.
        """
        there = {group.name: group for group in graph.groups}
        for e in self.entries:
            group = there.get(e.name)
            if group is None:
                raise BadInput(f"the plan has a group {e.name!r} of {e.size} {e.kind}, which this model does not have")
            if group.size != e.size or (group.frozen and e.kept < e.size):
                why = f"frozen ({group.frozen})" if group.frozen else f"of size {group.size}"
                raise BadInput(f"the plan keeps {e.kept} of the {e.size} {e.kind} of {e.name!r}, which in this model is {why}")
        return graph

    def diff(self, other: GroupPlan) -> list[dict[str, Any]]:
        """Where the plans differ: per group the counts kept in each, and how many indices only one of them removes."""
        mine, theirs = {e.name: e for e in self.entries}, {e.name: e for e in other.entries}
        rows = []
        for name in dict.fromkeys([*mine, *theirs]):
            a, b = _gone(self, name), _gone(other, name)
            if name in mine and name in theirs and mine[name].size == theirs[name].size and a == b:
                continue
            rows.append({"name": name, "kept": mine[name].kept if name in mine else None,
                         "other_kept": theirs[name].kept if name in theirs else None,
                         "only_here": len(a - b), "only_there": len(b - a)})  # fmt: skip
        return rows

    def save(self, folder: str | Path) -> None:
        """Write ``plan.json`` and ``plan.safetensors`` (the indices that stay) into a folder, each by rename."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        packed = require("safetensors.torch", "files").save({f"{n}.keep": k.contiguous() for n, k in self.keeps.items()})
        data = {"format": "secateurs-plan", "version": VERSION, "kind": "groups", "recipe": self.recipe, "size": self.size,
                "removed": self.removed, "before": asdict(self.before), "after": asdict(self.after),
                "keeps_sha256": hashlib.sha256(packed).hexdigest(), "entries": [asdict(e) for e in self.entries],
                "frozen": [asdict(f) for f in self.frozen]}  # fmt: skip
        write_whole(folder / "plan.safetensors", packed)
        write_whole(folder / "plan.json", (json.dumps(data, indent=1) + "\n").encode())

    @classmethod
    def load(cls, folder: str | Path) -> GroupPlan:
        """Read what :meth:`save` wrote.

        Raises:
            BadInput: there is no plan, or it is one of single weights.
            CorruptFile: it is damaged, or of a newer version.
        """
        folder = Path(folder)
        if not (folder / "plan.json").is_file():
            raise BadInput(f"{str(folder)!r} holds no plan.json")
        try:
            data = json.loads((folder / "plan.json").read_text(encoding="utf-8"))
            _check_version(data, folder)
            entries = tuple(GroupEntry(**{**e, "members": tuple(e["members"])}) for e in data["entries"])
            keeps = _read_keeps(folder / "plan.safetensors", data["keeps_sha256"])
            frozen = tuple(Frozen(**f) for f in data["frozen"])
            plan = cls(entries, keeps, Cost(**data["before"]), Cost(**data["after"]), frozen, dict(data["recipe"]))
        except (BadInput, CorruptFile, MissingExtra):
            raise
        except Exception as error:
            raise CorruptFile(f"the plan in {str(folder)!r} is damaged: {type(error).__name__}: {error}") from error
        _check_counts(plan, folder)
        return plan


def load_plan(folder: str | Path) -> Plan | GroupPlan:
    """The plan in a folder, whichever kind it is; errors are those of their ``load``."""
    try:
        return Plan.load(folder)
    except OfGroups:
        return GroupPlan.load(folder)


def members(group: Group) -> tuple[str, ...]:
    """Its ``tensor:dimension``, each once."""
    return tuple(dict.fromkeys(f"{s.tensor}:{s.dim}" for s in group.slices))


def _gone(plan: GroupPlan, name: str) -> set[tuple[int, ...]]:
    """The removed indices of a group, with the row of a ragged child's parent."""
    entry = next((e for e in plan.entries if e.name == name), None)
    if entry is None or name not in plan.keeps:
        return set()
    rows = torch.atleast_2d(plan.keeps[name]).tolist()
    return {(number, k) for number, row in enumerate(rows) for k in set(range(entry.size)) - set(row)}


def _check_version(data: Mapping[str, Any], folder: Path) -> None:
    if data["version"] > VERSION:
        raise CorruptFile(f"the plan in {str(folder)!r} has version {data['version']}; this library reads up to {VERSION}: "
                          "upgrade it")  # fmt: skip
    if data.get("kind") != "groups":
        raise BadInput(f"the plan in {str(folder)!r} is one of single weights: secateurs.Plan.load reads it")


def _read_keeps(path: Path, digest: str) -> dict[str, Tensor]:
    """The indices; the checksum also tells a file that belongs to another ``plan.json``."""
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != digest:
        raise CorruptFile(f"{str(path)!r} is truncated, altered, or of another plan: its checksum does not fit plan.json")
    found = require("safetensors.torch", "files").load(content)
    return {name.removesuffix(".keep"): keep for name, keep in found.items()}


def _check_counts(plan: GroupPlan, folder: Path) -> None:
    """Every group that loses something has as many indices as its entry says, ascending and within its size."""
    cut = {e.name: e for e in plan.entries if e.kept < e.size}
    for name in {*cut, *plan.keeps}:
        if name not in cut or name not in plan.keeps or not _fits(plan.keeps[name], cut[name]):
            raise CorruptFile(f"the plan in {str(folder)!r}: the counts and the indices of {name!r} do not agree")


def _fits(keep: Tensor, entry: GroupEntry) -> bool:
    ascending = bool((keep.diff(dim=-1) > 0).all())
    return keep.shape[-1] == entry.kept and ascending and int(keep.min()) >= 0 and int(keep.max()) < entry.size
