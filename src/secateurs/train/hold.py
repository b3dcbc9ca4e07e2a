"""Fixed masks while anything trains: what a plan has removed stays zero."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from secateurs.core.layout import Layout
from secateurs.core.masks import Masks
from secateurs.errors import BadInput, BrokenPromise
from secateurs.models import Site, Weight, unwrap
from secateurs.planning import Plan
from secateurs.train.enforcement import MaskCell, Overwrite
from secateurs.train.guard import check_free, check_optimizer, check_unchanged, claim, innermost, release

__all__ = ["Held", "planned_weights"]


class Held:
    """Keeps the zeros of ``plan`` zero while ``model`` trains: fine-tuning does not bring pruned weights back.

    >>> pruned = sc.prune(model, "magnitude", sparsity=0.9)         # doctest: +SKIP
    >>> held = Held(pruned.model, pruned.plan).attach(optimizer)    # doctest: +SKIP
    >>> ...                          # any training loop  # doctest: +SKIP
    >>> model = held.finish()        # checks, and leaves nothing behind  # doctest: +SKIP

    The gradients of masked entries are zeroed as they come (so clipping by norm does not count them), and the entries
    themselves after every ``optimizer.step()``, whatever momentum, weight decay or an optimizer's old state would make of
    them. Every parameter the plan names is held, prunable by rule or not: the biases that go with a filter as well.

    Raises:
        BadInput: a target of the plan is missing from the model, or has another shape.
    """

    def __init__(self, model: nn.Module, plan: Plan):
        self._given, self._model, self._plan = model, unwrap(model), plan
        self.weights = planned_weights(self._model, plan)
        cells = {w.name: MaskCell(plan.masks[w.name].to(w.parameter.device, copy=True)) for w in self.weights}
        self._enforcement = Overwrite(self.weights, cells)
        self.step_count, self._kept_sum = 0, 0
        self._handles: list[Any] = []
        self._attached = False

    def attach(self, optimizer: torch.optim.Optimizer) -> Held:
        """Zero the planned entries now and after every step of ``optimizer``.

        Raises:
            BadInput: the optimizer trains other parameters, a pruner holds one of them, or this one is attached already.
        """
        if self._attached:
            raise BadInput("these masks are held already; one Held serves one optimizer")
        optimizer = innermost(optimizer)
        trained = [w for w in self.weights if w.parameter.requires_grad]  # what is frozen stays what it is
        check_optimizer(trained, optimizer)
        check_unchanged(self._model, trained, self.masks)
        check_free(self.weights)
        claim(self.weights, "Held")
        self._attached = True
        for weight in trained:
            cell = self._enforcement.cells[weight.name]
            self._handles.append(weight.parameter.register_post_accumulate_grad_hook(_zeroed_gradient(cell)))
        self._handles.append(optimizer.register_step_post_hook(lambda *_: self.step()))
        self._enforcement.after_step()
        return self

    def step(self) -> None:
        """Count one optimizer step and zero the masked entries. The hook calls this."""
        self._enforcement.after_step()
        self.step_count, self._kept_sum = self.step_count + 1, self._kept_sum + self._kept

    def replace(self, plan: Plan) -> None:
        """Hold other masks of the same targets from now on.

        Raises:
            BadInput: the plan has other targets.
        """
        if plan.masks.keys() != self.masks.keys():
            raise BadInput("the plan has other targets than the one that is held: " + ", ".join(plan.masks))
        for name, mask in plan.masks.items():
            self._enforcement.cells[name].set(mask)
        self._plan = plan
        self._enforcement.after_step()

    def detach(self) -> None:
        """Stop; weights stay as they are."""
        for handle in self._handles:
            handle.remove()
        if self._attached:
            release(self.weights)
        self._handles, self._attached = [], False

    def finish(self) -> nn.Module:
        """Stop, check every count, and return the model.

        Raises:
            BrokenPromise: a masked entry is not zero: something has written to the weights since the last step.
        """
        self.detach()
        for weight in self.weights:
            lifted = int(torch.count_nonzero(weight.parameter.detach()[~self.masks[weight.name].to(weight.parameter.device)]))
            if lifted:
                raise BrokenPromise(f"{lifted} masked entries of {weight.name!r} are not zero: something other than the "
                                    "attached optimizer has written to it")  # fmt: skip
        return self._given

    @property
    def masks(self) -> Masks:
        """Masks by name, True = kept: the live tensors."""
        return self._enforcement.masks()

    @property
    def sparsity(self) -> float:
        """Share of the planned weights masked."""
        return self._plan.sparsity

    @property
    def average_density(self) -> float:
        """Mean share of the planned weights in use over the steps so far; before the first, the share now."""
        steps, kept = (self.step_count, self._kept_sum) if self.step_count else (1, self._kept)
        return kept / (steps * self._plan.size) if self._plan.size else 1.0

    @property
    def _kept(self) -> int:
        return self._plan.size - self._plan.removed

    def plan(self) -> Plan:
        """The plan that is held."""
        return self._plan

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs beside the model and the optimizer: loads with ``weights_only=True``."""
        return {"version": 1, "step": self.step_count, "kept_sum": self._kept_sum, "masks": self.masks.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where :meth:`state_dict` was taken.

        Raises:
            BadInput: it is of other masks, or no such state.
        """
        if not isinstance(state, Mapping) or state.get("version") != 1 or "masks" not in state:
            raise BadInput(f"this is no state of held masks that this library reads: {type(state).__name__}")
        masks = Masks.from_state_dict(state["masks"])
        if differ := [n for n in {**masks, **self.masks} if not _same(masks.get(n), self.masks.get(n))]:
            raise BadInput(f"the state holds other masks than the plan: {differ[0]!r} differs")
        self.step_count, self._kept_sum = int(state["step"]), int(state["kept_sum"])


def planned_weights(model: nn.Module, plan: Plan) -> tuple[Weight, ...]:
    """The plan's parameters in ``model``, prunable by rule or not, each with every place that holds it."""
    found: dict[str, nn.Parameter] = dict(model.named_parameters(remove_duplicate=False))
    targets = []
    for entry in plan.entries:
        parameter = found.get(entry.name)
        if parameter is None or tuple(parameter.shape) != entry.shape:
            has = "does not have it" if parameter is None else f"has it with shape {tuple(parameter.shape)}"
            raise BadInput(f"the plan removes entries of {entry.name!r} with shape {entry.shape}; this model {has}")
        names = [name for name, value in found.items() if value is parameter]
        aliases = tuple(name for name in names if name != entry.name)
        targets.append(Weight(entry.name, entry.kind, parameter, Layout(), entry.name, _sites(model, names), aliases))
    return tuple(targets)


def _sites(model: nn.Module, names: list[str]) -> tuple[Site, ...]:
    parts = [name.rpartition(".") for name in names]
    return tuple(Site(model.get_submodule(path), path, attribute) for path, _, attribute in parts)


def _zeroed_gradient(cell: MaskCell) -> Any:
    def zero(parameter: Tensor) -> None:
        if parameter.grad is not None and not parameter.grad.is_sparse:
            parameter.grad.mul_(cell.on(parameter.device))

    return zero


def _same(a: Tensor | None, b: Tensor | None) -> bool:
    return a is not None and b is not None and torch.equal(a.cpu(), b.cpu())
