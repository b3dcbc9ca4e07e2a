"""What trains, put into a model and taken out again: everything else is frozen meanwhile."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from secateurs.core.option import Number, check_option
from secateurs.errors import BadInput, near
from secateurs.models import Left, Site, Weight, matrices, survey
from secateurs.train.retraining.adapters import ADAPTERS, Adapter, Lora, Masked, trained_dtype
from secateurs.train.retraining.subsets import PARTS, Target, find_part, targets

__all__ = ["How", "Placed", "check_how", "place"]

_ADAPTED = ("linear", "conv", "transposed-conv", "attention", "embedding", "experts")
_DROPPED = ("linear", "conv")
_NUMBERS = {"rank": Number(16, 1, whole=True), "alpha": Number(32), "dropout": Number(0, 0, 0.99)}


@dataclass(frozen=True)
class How:
    """What trains: names of :data:`~secateurs.train.retraining.subsets.PARTS` and of
    :data:`~secateurs.train.retraining.adapters.ADAPTERS`."""

    parts: tuple[str, ...] = ()
    adapter: str | None = None
    rank: int = 16
    alpha: float = 32.0
    dropout: float = 0.0
    seed: int = 0


def check_how(how: How) -> None:
    """Raise :class:`BadInput` if a word or a number cannot be."""
    for part in how.parts:
        if part not in PARTS:
            raise BadInput(f"parts: {part!r} is unknown; there are {', '.join(PARTS)}" + near(part, PARTS))
    if how.adapter is not None and how.adapter not in ADAPTERS:
        raise BadInput(f"adapter={how.adapter!r} is unknown; there are {', '.join(ADAPTERS)}" + near(how.adapter, ADAPTERS))
    for key, number in _NUMBERS.items():
        if lawful := check_option(number, getattr(how, key)):
            raise BadInput(f"{key}={getattr(how, key)!r}: {lawful}")
    if not how.parts and how.adapter is None:
        raise BadInput(f"nothing would train: name parts= ({', '.join(PARTS)}), or an adapter= ({', '.join(ADAPTERS)})")


@dataclass(frozen=True, eq=False)
class _Piece:
    """One parameter that changes: by itself, or through a parametrisation."""

    part: str
    target: Target
    through: Adapter | Masked | None = None

    def tensors(self) -> list[nn.Parameter]:
        """What the optimizer is given."""
        return [self.target.parameter] if self.through is None else list(self.through.parameters())


@dataclass
class Placed:
    """What trains in ``model``; ``left`` are pruned weights that got no adapter, each with the reason."""

    model: nn.Module
    how: How
    pieces: list[_Piece]
    left: tuple[Left, ...]
    frozen: list[Target]
    _wanted: dict[int, bool] = field(default_factory=dict)
    _handles: list[Any] = field(default_factory=list)
    _orders: list[tuple[nn.Module, list[str]]] = field(default_factory=list)

    def parameters(self) -> Iterator[nn.Parameter]:
        """The tensors that train, in the order of the parts and of the model."""
        return (tensor for piece in self.pieces for tensor in piece.tensors())

    def targets(self) -> list[Target]:
        """The parameters of the model that change."""
        return [piece.target for piece in self.pieces]

    def train(self) -> None:
        """Adapters in training mode: dropout, if they have any."""
        for piece in self.pieces:
            if piece.through is not None:
                piece.through.train()

    def rows(self) -> list[dict[str, Any]]:
        """Of every part: how many tensors train, how many numbers they hold."""
        found: dict[str, list[int]] = {}
        for piece in self.pieces:
            found.setdefault(piece.part, []).extend(tensor.numel() for tensor in piece.tensors())
        return [{"part": part, "tensors": len(sizes), "parameters": sum(sizes)} for part, sizes in found.items()]

    def unmergeable(self) -> list[str]:
        """Pruned weights whose adapter would fill their zeros."""
        return [p.target.name for p in self.pieces if isinstance(p.through, Lora) and p.through.mask is not None]

    def insert(self) -> None:
        """Freeze the model but for what trains."""
        self._wanted = {id(p): p.requires_grad for p in self.model.parameters()}
        for parameter in self.model.parameters():
            parameter.requires_grad_(False)
        holders = {id(site.module): site.module for piece in self.pieces if piece.through for site in piece.target.sites}
        self._orders = [(module, list(module._parameters)) for module in holders.values()]
        for piece in self.pieces:
            if piece.through is None:
                piece.target.parameter.requires_grad_(True)
                continue
            piece.through.train(piece.target.sites[0].module.training)
            for site in piece.target.sites:
                parametrize.register_parametrization(site.module, site.attribute, piece.through, unsafe=True)
                if isinstance(piece.through, Adapter) and piece.through.dropout:
                    self._handles.append(site.module.register_forward_hook(_branch(piece.through, site)))

    @torch.no_grad()
    def remove(self, merge: bool = True) -> None:
        """Take everything out again, merged into the parameters or not, and give back every ``requires_grad``."""
        for handle in self._handles:
            handle.remove()
        for piece in self.pieces:
            if piece.through is None:
                piece.target.parameter.grad = None
                continue
            if merge:
                piece.target.parameter.copy_(piece.through.merged(piece.target.parameter))
            for site in piece.target.sites:
                parametrize.remove_parametrizations(site.module, site.attribute, leave_parametrized=False)
        for module, order in self._orders:  # a parametrisation puts its parameter last
            for name in order:
                module._parameters[name] = module._parameters.pop(name)
        for parameter in self.model.parameters():
            parameter.requires_grad_(self._wanted.get(id(parameter), True))
        self._handles, self._orders = [], []


def place(model: nn.Module, masks: Mapping[str, Tensor], how: How, strict: bool = True) -> Placed:
    """Find what trains and make its adapters; nothing of ``model`` is changed before :meth:`Placed.insert`.

    Args:
        model: pruned.
        masks: of its pruned parameters, by any of their names.
        how: what trains.
        strict: raise where a part is empty or no weight can be adapted; otherwise go without it.

    Raises:
        BadInput: see ``strict``; or dropout where a layer's inputs are not seen.
    """
    by_parameter = {id(p): masks[name] for name, p in model.named_parameters(remove_duplicate=False) if name in masks}
    taken: dict[int, _Piece] = {}
    for part in how.parts:
        found = [target for target in find_part(model, part) if id(target.parameter) not in taken]
        if not found and strict:
            raise BadInput(f"parts: this model has no {part} to train, or another part has them; leave {part!r} out")
        for target in found:
            taken[id(target.parameter)] = _whole(part, target, by_parameter.get(id(target.parameter)))
    left: list[Left] = []
    if how.adapter is not None:
        generator = torch.Generator().manual_seed(how.seed)
        for weight in survey(model).weights:
            mask = by_parameter.get(id(weight.parameter))
            if mask is None or id(weight.parameter) in taken:
                continue
            if reason := _unfit(weight, how.rank):
                left.append(Left(weight.name, weight.shape, weight.size, reason))
                continue
            taken[id(weight.parameter)] = _adapted(weight, mask, how, generator)
        if strict and not any(piece.part == how.adapter for piece in taken.values()):
            why = f": {left[0].name!r}: {left[0].reason}" if left else ""
            raise BadInput(f"adapter={how.adapter!r} fits none of the pruned weights{why}")
    frozen = [target for target in targets(model) if id(target.parameter) not in taken]
    return Placed(model, how, list(taken.values()), tuple(left), frozen)


def _whole(part: str, target: Target, mask: Tensor | None) -> _Piece:
    """The parameter itself, or a copy where that must be wider or masked."""
    narrow = trained_dtype(target.parameter.dtype) != target.parameter.dtype
    return _Piece(part, target, Masked(target.parameter, mask) if narrow or mask is not None else None)


def _adapted(weight: Weight, mask: Tensor, how: How, generator: torch.Generator) -> _Piece:
    if how.dropout and (weight.kind not in _DROPPED or len(weight.sites) > 1):
        raise BadInput(f"dropout={how.dropout}: the inputs of {weight.name!r} ({weight.kind}) are not those of one linear "
                       "layer or convolution; leave dropout out")  # fmt: skip
    kind = ADAPTERS[str(how.adapter)]
    dense = bool(mask.all())
    adapter = kind(weight, None if dense else mask, how.rank, how.alpha, how.dropout, generator)
    return _Piece(str(how.adapter), Target(weight.name, weight.parameter, weight.sites), adapter)


def _unfit(weight: Weight, rank: int) -> str:
    """Why the weight gets no adapter; empty where it does."""
    if weight.kind not in _ADAPTED:
        return f"no adapters for the kind {weight.kind!r}"
    rows, columns = matrices(weight).shape[1:]
    if rank * (rows + columns) >= rows * columns:
        most = math.ceil(rows * columns / (rows + columns)) - 1
        advice = f"a rank of at most {most} has fewer" if most else "no rank has fewer"
        return f"an adapter of rank {rank} has as many numbers as its {rows} x {columns} matrix, or more; {advice}"
    return ""


def _branch(adapter: Adapter, site: Site) -> Callable[..., Tensor | None]:
    """Adds, under dropout, what the change gives of the layer's thinned-out inputs."""

    def hook(module: Any, args: tuple[Any, ...], output: Tensor) -> Tensor | None:
        if not adapter.dropping:
            return None
        weight: Tensor = getattr(module, site.attribute)
        change = adapter.change(weight).to(weight.dtype)
        x = F.dropout(args[0], adapter.dropout)
        if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
            return output + module._conv_forward(x, change, None)
        return output + (F.linear(x, change) if isinstance(module, nn.Linear) else x @ change)

    return hook
