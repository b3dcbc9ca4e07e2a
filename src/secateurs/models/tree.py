"""The survey of a model: every parameter once, either prunable or left alone with the reason."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from torch import nn
from torch.nn.parameter import is_lazy

from secateurs.core.layout import Layout
from secateurs.errors import BadInput
from secateurs.models.kinds import Role, roles
from secateurs.models.reasons import packed_weights, reparametrised, why_left
from secateurs.models.wrappers import unwrap

__all__ = ["Left", "Site", "Survey", "Weight", "survey"]


@dataclass(frozen=True, eq=False)
class Site:
    """A place that holds a parameter: ``module.<attribute>``; ``path`` is the module's qualified name, ``""`` for the root."""

    module: nn.Module
    path: str
    attribute: str

    @property
    def name(self) -> str:
        """The qualified parameter name of this place."""
        return f"{self.path}.{self.attribute}" if self.path else self.attribute


@dataclass(frozen=True, eq=False)
class Weight:
    """One prunable parameter, listed once however often it is shared.

    Attributes:
        name: its first qualified name, in the order of ``model.named_parameters()``.
        kind: one of :data:`secateurs.models.KINDS`.
        parameter: the parameter itself.
        layout: which of its dimensions is output and which input.
        group: the tensors ranked together; its own name, except for the two matrices of a recurrent layer.
        sites: every module attribute that holds it.
        aliases: its other qualified names.
    """

    name: str
    kind: str
    parameter: nn.Parameter
    layout: Layout
    group: str
    sites: tuple[Site, ...]
    aliases: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Entries."""
        return self.parameter.numel()

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the tensor."""
        return tuple(self.parameter.shape)


@dataclass(frozen=True)
class Left:
    """A parameter left alone, and why."""

    name: str
    shape: tuple[int, ...]
    size: int
    reason: str


@dataclass(frozen=True)
class Survey:
    """What can be pruned, in the order of the model, and what is left alone.

    ``order`` holds every qualified parameter name, tied ones under each of their names, in the order of the modules.
    """

    weights: tuple[Weight, ...]
    left: tuple[Left, ...] = ()
    order: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Entries of the prunable weights."""
        return sum(weight.size for weight in self.weights)

    @property
    def total(self) -> int:
        """Entries of all parameters, shared ones counted once."""
        return self.size + sum(left.size for left in self.left)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the prunable weights."""
        return tuple(weight.name for weight in self.weights)

    def groups(self) -> dict[str, tuple[Weight, ...]]:
        """The tensors ranked together, by group, in the order of the model."""
        found: dict[str, tuple[Weight, ...]] = {}
        for weight in self.weights:
            found[weight.group] = (*found.get(weight.group, ()), weight)
        return found


_Roles = Mapping[tuple[int, str], Role]


def survey(model: nn.Module) -> Survey:
    """List every parameter of ``model`` once: the prunable ones by kind of layer, the others with the reason.

    Wrappers are taken off first (:func:`unwrap`), so names are those of the inner model. Frozen parameters are listed like
    any other; where the values are stored is looked at by :func:`secateurs.models.check`, not here.

    Raises:
        BadInput: not a module, or a lazy layer has no shape yet.
    """
    model = unwrap(model)
    known = _known_roles(model)
    weights: list[Weight] = []
    left: list[Left] = []
    sites = list(_sites(model))
    for found in _by_parameter(sites):
        parameter = found[0].module._parameters[found[0].attribute]
        assert parameter is not None  # _sites yields none
        reason = _obstacle(found, parameter, known)
        if reason:
            left.append(Left(found[0].name, tuple(parameter.shape), parameter.numel(), reason))
        else:
            weights.append(_weight(found, parameter, known))
    left += [Left(name, shape, 0, reason) for name, shape, reason in packed_weights(model)]
    return Survey(tuple(weights), tuple(left), tuple(site.name for site in sites))


def _known_roles(model: nn.Module) -> _Roles:
    """The role of each prunable ``(module, attribute)``. Parents come before children, so attention claims its out_proj."""
    known: dict[tuple[int, str], Role] = {}
    for module in model.modules():
        for name, role in roles(module).items():
            child, _, attribute = name.rpartition(".")
            known.setdefault((id(module.get_submodule(child)), attribute), role)
    return known


def _sites(model: nn.Module) -> Iterator[Site]:
    for path, module in model.named_modules(remove_duplicate=False):
        for attribute, parameter in module._parameters.items():
            if parameter is None:
                continue
            site = Site(module, path, attribute)
            if is_lazy(parameter):
                raise BadInput(
                    f"{site.name!r} has no shape yet ({type(module).__name__}): run one batch through the model, then prune it"
                )
            yield site


def _by_parameter(sites: list[Site]) -> list[list[Site]]:
    """The sites that hold the same parameter, together, in the order of each one's first."""
    found: dict[int, list[Site]] = {}
    for site in sites:
        found.setdefault(id(site.module._parameters[site.attribute]), []).append(site)
    return list(found.values())


def _obstacle(sites: list[Site], parameter: nn.Parameter, known: _Roles) -> str:
    """Why the parameter is left alone; empty when it is prunable."""
    for site in sites:
        if reason := reparametrised(site.module, site.attribute):
            return reason
    claims = [(site, role) for site in sites if (role := known.get((id(site.module), site.attribute)))]
    if not claims:
        return why_left(sites[0].module, sites[0].attribute, parameter)
    (first, role), *others = claims
    for other, its in others:
        if its.layout != role.layout:
            return f"shared by {first.name!r} and {other.name!r}, which differ in what is output: {role.layout}, {its.layout}"
    if parameter.ndim <= max(role.layout.out_dim, role.layout.in_dim):
        return f"its shape {tuple(parameter.shape)} is not that of a {role.kind} weight: sharded or flattened?"
    if parameter.numel() == 0:
        return "it has no entries"
    return f"complex numbers ({parameter.dtype})" if parameter.is_complex() else ""


def _weight(sites: list[Site], parameter: nn.Parameter, known: _Roles) -> Weight:
    first, role = next((s, r) for s in sites if (r := known.get((id(s.module), s.attribute))))
    own = sites[0].name
    group = f"{first.path}.{role.group}".removeprefix(".") if role.group else own
    # a module that stands in two places is one site, under its first path
    distinct = {(id(site.module), site.attribute): site for site in reversed(sites)}
    return Weight(
        name=own,
        kind=role.kind,
        parameter=parameter,
        layout=role.layout,
        group=group,
        sites=tuple(reversed(distinct.values())),
        aliases=tuple(site.name for site in sites[1:]),
    )
