"""Which blocks a walk goes through, in which order, with which weights, and what it leaves alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import nn

from secateurs.models import BlockList, Left, Survey, Weight, find_blocks, survey, unwrap
from secateurs.train.walk.columns import unmeasured

__all__ = ["Route", "Stop", "find_route"]


@dataclass(frozen=True, eq=False)
class Stop:
    """A block and the weights to be pruned in it; none where it is only run through."""

    name: str
    module: nn.Module
    weights: tuple[Weight, ...]


@dataclass(frozen=True)
class Route:
    """The blocks of a walk.

    Attributes:
        stops: in the order of the model, until one has run and told better.
        lists: those of the blocks.
        left: selected weights that the walk leaves alone, with the reason.
    """

    stops: tuple[Stop, ...]
    lists: tuple[BlockList, ...]
    left: tuple[Left, ...]

    @property
    def ends(self) -> tuple[str, ...] | None:
        """The last block of every list, whose outputs later parts of the model may want; None where there are no lists."""
        if not all(item.chained for item in self.lists):
            return None
        names = [stop.name for stop in self.stops]
        return tuple(max(set(item.names) & set(names), key=names.index) for item in self.lists if set(item.names) & set(names))

    @property
    def weights(self) -> tuple[Weight, ...]:
        """The weights that will be pruned, block by block."""
        return tuple(weight for stop in self.stops for weight in stop.weights)

    def through(self, names: Sequence[str]) -> Route:
        """The route in the order ``names``; weights of blocks that are not among them are left alone."""
        by_name = {stop.name: stop for stop in self.stops}
        missed = [weight for stop in self.stops if stop.name not in names for weight in stop.weights]
        left = tuple(_left(weight, "its block was not called by the first calibration batch") for weight in missed)
        return replace(self, stops=tuple(by_name[name] for name in names), left=self.left + left)

    def until_done(self) -> Route:
        """The route without what comes after the last block that has weights."""
        last = max((i for i, stop in enumerate(self.stops) if stop.weights), default=-1)
        return replace(self, stops=self.stops[: last + 1])


def find_route(model: nn.Module, chosen: Survey, blocks: str | Sequence[str] = ()) -> Route:
    """The blocks of ``model`` (see :func:`secateurs.models.find_blocks`) with the ``chosen`` weights that lie in them.

    Left alone, with the reason, is a weight outside the blocks, one shared by several of them or with what lies outside, and
    one whose inputs cannot be measured.

    Raises:
        BadInput: ``blocks`` names what is not there.
    """
    model = unwrap(model)
    reasons = {weight.name: unmeasured(weight) for weight in chosen.weights}
    fit = tuple(weight for weight in chosen.weights if not reasons[weight.name])
    lists = find_blocks(model, survey(model), blocks)
    if not blocks and not all(item.chained for item in lists):  # layer by layer: no other layers than the chosen ones
        lists = (BlockList("", tuple(dict.fromkeys(weight.sites[0].path for weight in fit)), chained=False),)
    names = [name for item in lists for name in item.names]
    held: dict[str, list[Weight]] = {name: [] for name in names}
    for weight in fit:
        homes = [_home(site.path, names) for site in weight.sites]
        if None in homes and len(set(homes)) == 1:
            reasons[weight.name] = f"outside the blocks ({', '.join(item.path or 'those named' for item in lists)})"
        elif len(set(homes)) > 1:
            reasons[weight.name] = "shared by several blocks, or with what lies outside them"
        else:
            held[str(homes[0])].append(weight)
    stops = tuple(Stop(name, model.get_submodule(name), tuple(weights)) for name, weights in held.items())
    left = tuple(_left(weight, reasons[weight.name]) for weight in chosen.weights if reasons[weight.name])
    return Route(stops, lists, left)


def _home(path: str, names: Sequence[str]) -> str | None:
    return next((name for name in names if f"{path}.".startswith(f"{name}.")), None)


def _left(weight: Weight, reason: str) -> Left:
    return Left(weight.name, weight.shape, weight.size, reason)
