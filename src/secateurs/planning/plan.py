"""The Plan: what goes, from where, and what is coupled to it. Inspect, save, diff, replay, undo."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from secateurs.core.masks import Masks, Packed, unpack_bits
from secateurs.errors import BadInput, CorruptFile, MissingExtra
from secateurs.extras import require
from secateurs.files import write_whole
from secateurs.models import Weight, unwrap

__all__ = ["Entry", "Plan", "Undo"]

VERSION = 1


class OfGroups(BadInput):
    """The plan is one of whole structures, which another class reads."""


@dataclass(frozen=True)
class Entry:
    """One target of a plan: ``removed`` of its ``size`` entries go. ``coupled`` are its other names (a tied weight)."""

    name: str
    kind: str
    structure: str
    shape: tuple[int, ...]
    size: int
    removed: int
    coupled: tuple[str, ...] = ()

    @property
    def sparsity(self) -> float:
        """Share removed."""
        return self.removed / self.size if self.size else 0.0


@dataclass(frozen=True)
class Plan:
    """What a pruning run removes. ``masks`` hold True for what stays; ``recipe`` is the run's recipe as plain data."""

    entries: tuple[Entry, ...]
    masks: Masks
    recipe: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, weights: Sequence[Weight], masks: Mapping[str, Tensor], structure: str, recipe: Mapping[str, Any]) -> Plan:
        """The plan of ``masks`` over the surveyed ``weights``."""
        names = [w.name for w in weights]
        kept = masks.only(names) if isinstance(masks, Packed) else Masks({n: masks[n].detach().cpu() for n in names})
        counts = kept.kept()
        entries = tuple(Entry(w.name, w.kind, structure, w.shape, w.size, w.size - counts[w.name], w.aliases) for w in weights)
        return cls(entries, kept, dict(recipe))

    @property
    def size(self) -> int:
        """Entries of all targets together."""
        return sum(e.size for e in self.entries)

    @property
    def removed(self) -> int:
        """Entries that go."""
        return sum(e.removed for e in self.entries)

    @property
    def sparsity(self) -> float:
        """Share of the targets' entries that goes."""
        return self.removed / self.size if self.size else 0.0

    def diff(self, other: Plan) -> list[dict[str, Any]]:
        """Where the plans differ: per target the counts in each, and how many entries only one of them removes."""
        mine, theirs = {e.name: e for e in self.entries}, {e.name: e for e in other.entries}
        rows = []
        for name in dict.fromkeys([*mine, *theirs]):
            a, b = self.masks.get(name), other.masks.get(name)
            if a is not None and b is not None and a.shape == b.shape and torch.equal(a, b):
                continue
            same_shape = a is not None and b is not None and a.shape == b.shape
            rows.append({"name": name,
                         "removed": mine[name].removed if name in mine else None,
                         "other_removed": theirs[name].removed if name in theirs else None,
                         "only_here": int((~a & b).sum()) if same_shape else None,  # type: ignore[operator]
                         "only_there": int((a & ~b).sum()) if same_shape else None})  # type: ignore[operator]  # fmt: skip
        return rows

    @torch.no_grad()
    def replay(self, model: nn.Module, undoable: bool = True) -> Undo:
        """Set the planned entries of ``model`` to zero. Nothing changes unless every target is there with its shape.

        Raises:
            BadInput: a target is missing from the model or has another shape.
        """
        found = dict(unwrap(model).named_parameters(remove_duplicate=False))
        for e in self.entries:
            if e.name not in found:
                raise BadInput(f"the plan removes entries of {e.name!r}, which this model does not have")
            if tuple(found[e.name].shape) != e.shape:
                raise BadInput(f"the plan has {e.name!r} with shape {e.shape}, this model with {tuple(found[e.name].shape)}")
            for other in e.coupled:
                if found.get(other, found[e.name]) is not found[e.name]:
                    raise BadInput(f"the plan holds {e.name!r} and {other!r} for one tied weight, in this model they are "
                                   "two; tie them first")  # fmt: skip
        removed = {}
        for e in self.entries:
            gone = ~self.masks[e.name].to(found[e.name].device)
            if undoable:
                removed[e.name] = found[e.name][gone].clone()
            found[e.name].masked_fill_(gone, 0)
        return Undo(self, removed)

    def save(self, folder: str | Path) -> None:
        """Write ``plan.json`` and ``plan.safetensors`` (masks, one bit per entry) into an existing folder, each by rename."""
        folder = Path(folder)
        packed = require("safetensors.torch", "files").save({f"{n}.mask": self.masks.bits(n) for n in self.masks})
        data = {"format": "secateurs-plan", "version": VERSION, "recipe": self.recipe, "size": self.size,
                "removed": self.removed, "masks_sha256": hashlib.sha256(packed).hexdigest(),
                "entries": [asdict(e) for e in self.entries]}  # fmt: skip
        write_whole(folder / "plan.safetensors", packed)
        write_whole(folder / "plan.json", (json.dumps(data, indent=1) + "\n").encode())

    @classmethod
    def load(cls, folder: str | Path) -> Plan:
        """Read what :meth:`save` wrote.

        Raises:
            BadInput: there is no plan.
            CorruptFile: it is damaged, or of a newer version.
        """
        folder = Path(folder)
        if not (folder / "plan.json").is_file():
            raise BadInput(f"{str(folder)!r} holds no plan.json")
        try:
            data = json.loads((folder / "plan.json").read_text(encoding="utf-8"))
            if data.get("kind") == "groups":
                raise OfGroups(f"the plan in {str(folder)!r} removes whole structures: secateurs.GroupPlan.load reads it")
            if data["version"] > VERSION:
                raise CorruptFile(f"the plan in {str(folder)!r} has version {data['version']}; this library reads up to "
                                  f"{VERSION}: upgrade it")  # fmt: skip
            entries = tuple(Entry(**{**e, "shape": tuple(e["shape"]), "coupled": tuple(e["coupled"])}) for e in data["entries"])
            packed = _masks_file(folder / "plan.safetensors", data["masks_sha256"])
            masks = Masks({e.name: unpack_bits(packed[f"{e.name}.mask"], e.shape) for e in entries})
            recipe = dict(data["recipe"])
        except (BadInput, CorruptFile, MissingExtra):
            raise
        except Exception as error:
            raise CorruptFile(f"the plan in {str(folder)!r} is damaged: {type(error).__name__}: {error}") from error
        for e, kept in zip(entries, masks.kept().values(), strict=True):
            if e.size != masks[e.name].numel() or e.size - kept != e.removed:
                raise CorruptFile(f"the plan in {str(folder)!r} says {e.removed} of the {e.size} entries of {e.name!r} go, "
                                  f"its mask removes {masks[e.name].numel() - kept} of {masks[e.name].numel()}")  # fmt: skip
        return cls(entries, masks, recipe)


@dataclass(frozen=True)
class Undo:
    """The values a replay removed. Calling it puts them back."""

    plan: Plan
    values: dict[str, Tensor]

    @torch.no_grad()
    def __call__(self, model: nn.Module) -> None:
        """Write the removed values back into ``model``."""
        if self.plan.entries and not self.values:
            raise BadInput("this replay kept no values to put back; call plan.replay(model, undoable=True)")
        found = dict(unwrap(model).named_parameters(remove_duplicate=False))
        for name, values in self.values.items():
            found[name][~self.plan.masks[name].to(found[name].device)] = values


def _masks_file(path: Path, digest: str) -> dict[str, Tensor]:
    """The packed masks; the checksum also tells a file that belongs to another ``plan.json``."""
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != digest:
        raise CorruptFile(f"{str(path)!r} is truncated, altered, or of another plan: its checksum does not fit plan.json")
    return require("safetensors.torch", "files").load(content)
