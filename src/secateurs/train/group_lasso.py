"""Make groups small before they are cut: a penalty on whole groups of slices, stronger on those that matter less.

The sparse learning of DepGraph (Fang et al. 2023, "DepGraph: Towards Any Structural Pruning", section 3.3): a group's index k
has the norm ``I_k`` of all that would leave with it, and after every backward pass of the task ``reg * gamma_k * w`` is added
to the gradient of its weights, with ``gamma_k = 2^(alpha (I_max - I_k) / (I_max - I_min))`` within the group.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from secateurs.core.select import check_finite
from secateurs.errors import BadInput
from secateurs.graph.groups import Group, Slice

__all__ = ["GroupLasso", "importances", "strengths"]

_ROLES = ("out", "in", "norm")


class GroupLasso:
    """The penalty on the groups of a model, from :func:`secateurs.graph.trace`.

    Between the task's backward pass and the optimizer's step, :meth:`add` adds the penalty's gradient; :meth:`refresh` takes
    the strengths from the weights of the moment (once at the beginning, then once per epoch as published). What is penalised of
    a group are the producers' rows, the consumers' columns and the norms' weights; biases and buffers are not, nor groups
    that are frozen. A weight that lies in two groups, by its row and by its column, is penalised for both.

    With scaled gradients (mixed precision) call :meth:`add` after unscaling.

    Args:
        model: whose gradients are changed.
        groups: :class:`secateurs.graph.Group` objects of this model, before anything of them is cut.
        reg: the strength of the most important index (published: 5e-4).
        alpha: ``2^alpha`` is the ratio of the greatest strength to the smallest (published: 4).

    Raises:
        BadInput: a setting is negative or not finite, there is nothing to penalise, or a group is not of this model.
    """

    def __init__(self, model: nn.Module, groups: Iterable[Group], reg: float = 5e-4, alpha: float = 4.0):
        for name, value in (("reg", reg), ("alpha", alpha)):
            if not 0 <= value < float("inf"):
                raise BadInput(f"{name}={value!r}; it is a number from 0 on")
        self.reg, self.alpha = reg, alpha
        self._parameters: dict[str, Tensor] = dict(model.named_parameters(remove_duplicate=False))
        self._groups = [group for group in groups if group.frozen is None and _penalised(group, self._parameters)]
        if not self._groups:
            raise BadInput("none of the groups can be pruned: there is nothing to penalise")
        for group in self._groups:
            _check(group, self._parameters)
        self.strengths: dict[str, Tensor] = {}
        self.refresh()

    @torch.no_grad()
    def refresh(self) -> None:
        """Set ``strengths``, ``gamma`` ``[size]`` of every group by name, from the weights as they are now.

        Raises:
            NotFinite: a group's norm is NaN or infinite; nothing is changed.
        """
        norms = {group.name: importances(group, self._parameters) for group in self._groups}
        for name, found in norms.items():
            check_finite(found, name)
        self.strengths = {name: strengths(found, self.alpha) for name, found in norms.items()}

    @torch.no_grad()
    def add(self) -> None:
        """Add ``reg * gamma_k * w`` to the gradient of every weight in index k; those without a gradient are passed by.

        Raises:
            BadInput: a parameter no longer has the shape that its group was made for.
        """
        for group in self._groups:
            _check(group, self._parameters)
            for part in _penalised(group, self._parameters):
                weight = self._parameters[part.tensor]
                if weight.grad is not None:
                    weight.grad.addcmul_(weight, _along(self.strengths[group.name], part, weight), value=self.reg)


def importances(group: Group, parameters: Mapping[str, Tensor]) -> Tensor:
    """``I_k`` ``[size]``: the root of the sum of squares of all weights of index k that are penalised."""
    total: Tensor | None = None
    for part in _penalised(group, parameters):
        weight = parameters[part.tensor].detach()
        work = weight.to(torch.promote_types(weight.dtype, torch.float32))
        others = [dim for dim in range(work.dim()) if dim != part.dim % work.dim()]
        sums = work.square().sum(others) if others else work.square()
        found = sums[part.index.to(sums.device)].sum(1)
        total = found if total is None else total + found.to(total.device)
    if total is None:
        raise BadInput(f"group {group.name!r} has no weights to penalise")
    return total.sqrt()


def strengths(norms: Tensor, alpha: float = 4.0) -> Tensor:
    """``gamma_k = 2^(alpha (I_max - I_k) / (I_max - I_min))``: 1 for the greatest norm, ``2^alpha`` for the smallest.

    Where all are equal none is to be singled out, and all are 1.
    """
    low, high = norms.min(), norms.max()
    span = high - low
    share = torch.where(span > 0, (high - norms) / torch.where(span > 0, span, 1), 0.0)
    return torch.pow(2.0, alpha * share)


def _penalised(group: Group, parameters: Mapping[str, Tensor]) -> list[Slice]:
    """Rows, columns and norm weights that are parameters; element-wise biases are left out by their name."""
    return [part for part in group.slices
            if part.role in _ROLES and part.tensor in parameters and "bias" not in part.tensor.rpartition(".")[2]]  # fmt: skip


def _along(gamma: Tensor, part: Slice, weight: Tensor) -> Tensor:
    """``gamma`` laid along the slice's dimension of ``weight``, zero where the group does not reach."""
    line = torch.zeros(weight.shape[part.dim], dtype=weight.dtype, device=weight.device)
    line[part.index.to(weight.device)] = gamma.to(weight.device, weight.dtype)[:, None]
    return line.view([-1 if dim == part.dim % weight.dim() else 1 for dim in range(weight.dim())])


def _check(group: Group, parameters: Mapping[str, Tensor]) -> None:
    for part in group.slices:
        if part.role not in _ROLES:
            continue
        weight = parameters.get(part.tensor)
        if weight is not None and int(part.index.max()) >= weight.shape[part.dim]:
            raise BadInput(f"group {group.name!r} reaches index {int(part.index.max())} of dimension {part.dim} of "
                           f"{part.tensor!r}, which has shape {tuple(weight.shape)}: trace the model as it is now")  # fmt: skip
