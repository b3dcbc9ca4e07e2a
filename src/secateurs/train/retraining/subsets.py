"""The small parts of a model that are worth training after pruning: biases, norms, the output layer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from torch import nn

from secateurs.errors import BadInput, near
from secateurs.models import EXEMPTIONS, Site, survey
from secateurs.models.reasons import is_norm

__all__ = ["PARTS", "Target", "find_part", "targets"]


@dataclass(frozen=True, eq=False)
class Target:
    """A parameter, by its first name, and every place that holds it."""

    name: str
    parameter: nn.Parameter
    sites: tuple[Site, ...]


def targets(model: nn.Module) -> tuple[Target, ...]:
    """All parameters of ``model``, shared ones once."""
    found: dict[int, list[Site]] = {}
    for path, module in model.named_modules():
        for attribute, parameter in module._parameters.items():
            if parameter is not None:
                found.setdefault(id(parameter), []).append(Site(module, path, attribute))
    parameters = dict(model.named_parameters(remove_duplicate=False))
    return tuple(Target(sites[0].name, parameters[sites[0].name], tuple(sites)) for sites in found.values())


def find_part(model: nn.Module, part: str) -> tuple[Target, ...]:
    """The parameters of one of :data:`PARTS`; none where the model has no such part.

    Raises:
        BadInput: no such part.
    """
    if part not in PARTS:
        raise BadInput(f"parts: {part!r} is unknown; there are {', '.join(PARTS)}" + near(part, PARTS))
    return tuple(PARTS[part](model))


def _biases(model: nn.Module) -> Iterator[Target]:
    for target in targets(model):
        if "bias" in target.sites[0].attribute and not is_norm(target.sites[0].module):
            yield target


def _norms(model: nn.Module) -> Iterator[Target]:
    return (target for target in targets(model) if is_norm(target.sites[0].module))


def _head(model: nn.Module) -> Iterator[Target]:
    """The linear layer that stands last (tied to an embedding, that as well), with its bias."""
    names = EXEMPTIONS["last-linear"](survey(model))
    holders = {id(site.module) for target in targets(model) if target.name in names for site in target.sites}
    for target in targets(model):
        if target.name in names or (target.sites[0].attribute == "bias" and id(target.sites[0].module) in holders):
            yield target


#: What can be trained as it is. ``biases`` are those of layers other than norms; ``norms`` are the weights and biases of all
#: of these; ``head`` is the last linear layer.
PARTS: dict[str, Callable[[nn.Module], Iterator[Target]]] = {"biases": _biases, "norms": _norms, "head": _head}
