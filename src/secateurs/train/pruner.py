"""A pruning session inside any training loop."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from secateurs.core.allocation import Uniform
from secateurs.core.masks import Masks
from secateurs.core.method import Method
from secateurs.core.moment import Moment
from secateurs.core.schedules import Turn, together
from secateurs.errors import BadInput
from secateurs.models import unwrap
from secateurs.planning import Choices, Plan, choose_weights, decide, make_schedule, own_shares, target_sparsity
from secateurs.recipe import Recipe
from secateurs.registry import find_method
from secateurs.train.enforcement import ENFORCEMENTS, MaskCell, unmask
from secateurs.train.exchanging import exchanged, forget, regrowth_of
from secateurs.train.guard import check_free, check_optimizer, check_unchanged, claim, innermost, release
from secateurs.train.losses import Loss
from secateurs.train.ranking import rank
from secateurs.train.supply import Data, Known

__all__ = ["Pruner"]

_log = logging.getLogger("secateurs")

_STATE = ("version", "recipe", "step", "masks", "density_sum", "history", "ranked_for", "method")


class Pruner:
    """Prunes ``model`` while it trains.

    >>> pruner = Pruner(model, "gmp", sparsity=0.9, begin=0.1, end=0.75, every=100, total_steps=n)  # doctest: +SKIP
    >>> pruner.attach(optimizer)     # acts after each optimizer.step()  # doctest: +SKIP
    >>> model = pruner.finish()      # after training: plain zeros, nothing left behind  # doctest: +SKIP

    ``settings`` are the fields of :class:`secateurs.Recipe`; a whole recipe may stand in the place of the method's name.
    ``data`` are batches for what a method looks at besides the training loop's own, a list (kept in memory, gone through again
    and again) or a function of a number that returns one; ``loss(model, batch)`` is theirs, by default cross-entropy on pairs
    and the model's own ``.loss`` on mappings. Steps are counted in optimizer steps. The keys of
    ``model.state_dict()`` do not change while attached; the masks are in :meth:`state_dict`, one bit per weight, to be saved
    beside the optimizer's.

    Raises:
        BadInput: whatever cannot work, before anything is changed.
    """

    def __init__(self, model: nn.Module, method: str | Recipe = "gmp", *, data: Data | None = None, loss: Loss | None = None,
                 **settings: Any):  # fmt: skip
        said = Recipe.of(method, settings)
        self._given, self._model = model, unwrap(model)
        self._method = find_method(said.method)(said.options)
        if said.structures:
            raise BadInput(_not_here(said, self._method))
        if "calibration" in self._method.needs:
            raise BadInput(f"{said.method!r} prunes a trained model block by block: use secateurs.prune(model, "
                           f"{said.method!r}, ..., calibration=batches)")  # fmt: skip
        self.recipe = said.with_defaults(self._method.defaults)
        self._choices = Choices.of(self.recipe, self._method)
        if self._method.order is not together and not isinstance(self._choices.allocation, Uniform):
            raise BadInput(f"allocation={self.recipe.allocation!r} ranks layers against each other, so they cannot take turns; "
                           "use 'uniform'")  # fmt: skip
        self.survey = choose_weights(self._model, self.recipe, trained=True)
        self.weights = self.survey.weights
        self.schedule = make_schedule(self.recipe, target_sparsity(self.recipe, self._choices, self.survey))
        self._own = own_shares(self.recipe, self.weights)
        names = dict.fromkeys(w.group for w in self.weights)
        self._groups = [[i for i, w in enumerate(self.weights) if w.group == name] for name in names]
        for weight in self.weights:
            self._choices.structure.check(weight.name, weight.parameter.shape, weight.layout)
        cells = {w.name: MaskCell(torch.ones_like(w.parameter, dtype=torch.bool)) for w in self.weights}
        self._enforcement = ENFORCEMENTS[self.recipe.enforcement or "keep"](self.weights, cells)
        self._known = Known(model, self._model, self.survey, self._method, data, loss, self.recipe.seed)
        self._regrowth = regrowth_of(self.recipe, self._method, self._choices, self.schedule)
        #: By group: the moment of the schedule it was last ranked for.
        self._ranked_for: list[int | None] = [None] * len(self._groups)
        self.step_count = 0
        self.history: list[dict[str, Any]] = []
        self._density, self._density_sum = 1.0, 0.0
        self._hook: Any = None
        self._optimizer: torch.optim.Optimizer | None = None

    # -- the session ------------------------------------------------------------------------------------------------

    def attach(self, optimizer: torch.optim.Optimizer) -> Pruner:
        """Act after every step of ``optimizer``. An update due at step 0 is made now.

        Raises:
            BadInput: the optimizer trains other parameters, another pruner holds one of the weights, this one is attached
                already, or the update at step 0 is impossible. Nothing is changed then.
            NotFinite: an update is due and a weight is NaN or infinite.
        """
        if self._hook is not None:
            raise BadInput("this pruner is attached already; one pruner serves one optimizer")
        optimizer = innermost(optimizer)
        check_optimizer(self.weights, optimizer)
        self._check()
        check_free(self.weights)
        self._enforcement.check()
        if self.step_count == 0 and not self.history:
            self._draw_beginning()
            self._rank(0, self._turn(0), self._learn(0))
        claim(self.weights, self.recipe.method)  # from here on nothing can fail
        self._enforcement.install()
        hooks = [optimizer.register_step_post_hook(lambda its, *_: None if _was_skipped(its) else self.step())]
        self._optimizer = optimizer
        if self._regrowth is not None and self._regrowth.replaces_step:
            hooks.append(optimizer.register_step_pre_hook(lambda *_: self._exchange_instead()))
        self._hook = hooks
        self._enforcement.after_step()
        return self

    def step(self) -> None:
        """Count one optimizer step and do what is due. The hook calls this; call it yourself only where there is no hook.

        Raises:
            BadInput, NotFinite: an update is due and cannot be made; the step is not counted and the masks stay as they were.
        """
        step, in_use = self.step_count + 1, self._density
        turn = self._turn(step)
        self._enforcement.after_step()  # what the step has lifted is zero again before it could win a ranking
        if self._rank(step, turn, self._learn(step)):
            self._enforcement.after_step()
        if self._regrowth is not None and not self._regrowth.replaces_step:
            self._exchange(step)
        self.step_count, self._density_sum = step, self._density_sum + in_use

    def detach(self) -> None:
        """Stop, leaving the weights as they are stored and the modules as they were."""
        if self._hook is None:
            return
        for hook in self._hook:
            hook.remove()
        self._hook = self._optimizer = None
        self._enforcement.remove()
        release(self.weights)

    def finish(self) -> nn.Module:
        """Write the masks into the weights, leave nothing behind, and return the model.

        Masked entries become 0. Ending before the schedule has (a run cut short) is allowed and logged.
        """
        self._check()
        if self.step_count < self.schedule.end:
            _log.warning("pruner finished at step %d of a schedule that ends at %d: sparsity %.4f",
                         self.step_count, self.schedule.end, self.sparsity)  # fmt: skip
        _log.info("pruner finished at step %d: sparsity %.4f, average density over training %.4f",
                  self.step_count, self.sparsity, self.average_density)  # fmt: skip
        self.detach()
        self.plan().replay(self._model, undoable=False)
        return self._given

    def apply_to(self, model: nn.Module) -> nn.Module:
        """Write the masks into another copy of the model (a moving average, a reloaded checkpoint); returns it plain.

        Raises:
            BadInput: it shares weights with the model being pruned, or has not all of them.
        """
        mine = {id(weight.parameter) for weight in self.weights}
        if any(id(parameter) in mine for parameter in model.parameters()):
            raise BadInput("apply_to() writes into a copy of the model, but this one holds the weights being trained; "
                           "use finish(), or pass copy.deepcopy(model)")  # fmt: skip
        self.plan().replay(model, undoable=False)
        for module in model.modules():
            unmask(module)
        return model

    # -- what is known ----------------------------------------------------------------------------------------------

    @property
    def masks(self) -> Masks:
        """Masks by name, True = kept: the live tensors."""
        return self._enforcement.masks()

    @property
    def sparsity(self) -> float:
        """Share of the selected weights masked now."""
        return self.masks.sparsity

    @property
    def average_density(self) -> float:
        """Mean share of the selected weights in use over the steps so far; 1.0 before the first."""
        return self._density_sum / self.step_count if self.step_count else 1.0

    def report(self) -> list[dict[str, object]]:
        """A row per layer and a last one for the total: shape, size, kept, removed, sparsity."""
        return self.masks.report()

    def plan(self) -> Plan:
        """What the masks of this moment remove."""
        masks = {name: mask.clone() for name, mask in self.masks.items()}  # a plan does not change when the masks do
        return Plan.of(self.weights, masks, self._choices.structure.name, self.recipe.to_dict())

    # -- resume -----------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Everything a resumed run needs besides the model and the optimizer: loads with ``weights_only=True``."""
        self._check()
        return {"version": 1, "recipe": self.recipe.to_dict(), "step": self.step_count, "masks": self.masks.state_dict(),
                "density_sum": self._density_sum, "history": [dict(row) for row in self.history],
                "ranked_for": list(self._ranked_for), "method": self._method.state_dict()}  # fmt: skip

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where :meth:`state_dict` was taken, before or after :meth:`attach`.

        Raises:
            BadInput: it is of another recipe, other weights or a newer version, or no such state; nothing is changed then.
        """
        if not isinstance(state, Mapping) or state.get("version") != 1:
            it = f"has version {state.get('version')!r}" if isinstance(state, Mapping) else f"is a {type(state).__name__}"
            raise BadInput(f"this pruner state {it}; this library reads version 1, a dict that Pruner.state_dict() made")
        if missing := [key for key in _STATE if key not in state]:
            raise BadInput(f"the pruner state lacks {', '.join(map(repr, missing))}; save all of Pruner.state_dict()")
        mine, theirs = self.recipe.to_dict(), dict(state["recipe"])
        differ = [k for k in {**mine, **theirs} if mine.get(k) != theirs.get(k)]
        if differ:
            rows = (f"{key} was {theirs.get(key)!r}, now {mine.get(key)!r}" for key in differ)
            raise BadInput("the state is of another recipe: " + ", ".join(rows))
        masks = Masks.from_state_dict(state["masks"])
        shapes, found = {w.name: w.shape for w in self.weights}, {n: tuple(m.shape) for n, m in masks.items()}
        if shapes != found:
            odd = next(n for n in {**shapes, **found} if shapes.get(n) != found.get(n))
            raise BadInput(f"the state is of another model: {odd!r} has shape {found.get(odd)} there, {shapes.get(odd)} here")
        self._method.load_state_dict(state["method"])
        self.step_count, self._density_sum = int(state["step"]), float(state["density_sum"])
        self.history, self._ranked_for = [dict(row) for row in state["history"]], list(state["ranked_for"])
        self._set(masks)
        if self._hook is not None:
            self._enforcement.after_step()

    # -- one update -------------------------------------------------------------------------------------------------

    def _turn(self, step: int) -> Turn | None:
        """What the schedule wants at ``step``; before an update the model is checked."""
        turn = self._method.order(self.schedule, step, len(self._groups))
        if turn is not None:
            self._check()
        return turn

    def _rank(self, step: int, turn: Turn | None, learnt: bool = False) -> bool:
        """Rank anew what is due; whether that was anything. If it fails, nothing has changed."""
        moments = dict.fromkeys(turn.layers, turn.at) if turn else {}
        again = self._moments() if self._enforcement.restless or learnt else {}
        due = {**again, **moments}
        if not due:
            return False
        masks: dict[str, Tensor] = {}
        for at in dict.fromkeys(due.values()):
            weights = [self.weights[i] for group, moment in due.items() if moment == at for i in self._groups[group]]
            masks |= rank(weights, self._choices, self.schedule.sparsity(at), self._own_at(at), self._known.of, self.masks)
        self._set(masks)
        for group, moment in moments.items():
            self._ranked_for[group] = moment
        if turn is not None:
            target = self.schedule.sparsity(turn.at)
            self.history.append({"step": step, "target": target, "sparsity": self.sparsity})
            _log.info("step %d: sparsity %.4f (target %.4f)", step, self.sparsity, target)
        return True

    def _draw_beginning(self) -> None:
        """Masks for the initial sparsity, where the method draws them by other choices than it ranks by."""
        if not (self._method.beginning and self.recipe.initial_sparsity):
            return
        said = dataclasses.replace(self.recipe, allocation_options={}, overrides={}, **self._method.beginning)
        self._set(decide(self.weights, Choices.of(said, self._method), self.recipe.initial_sparsity))
        self._enforcement.after_step()

    def _learn(self, step: int) -> bool:
        """Let a method that learns see the step; whether it wants all weights ranked anew."""
        if type(self._method).learn is Method.learn:
            return False
        values = {w.name: w.parameter.detach() for w in self.weights}

        def gradients() -> dict[str, Tensor]:
            with self._enforcement.dense_gradients():
                return self._known.gradients(step - 1)

        return self._method.learn(Moment(step, self.recipe.total_steps, values, self.masks, gradients))

    def _exchange_instead(self) -> None:
        """Before the optimizer's step: where weights are exchanged at it, they are, and the optimizer finds no gradients."""
        if self._exchange(self.step_count + 1) and self._optimizer is not None:
            for group in self._optimizer.param_groups:
                for parameter in group["params"]:
                    parameter.grad = None

    def _exchange(self, step: int) -> bool:
        """Exchange weights for dead ones where it is due; whether it was. If it fails, nothing has changed."""
        regrowth = self._regrowth
        if regrowth is None or not regrowth.due(step):
            return False
        cells = self._enforcement.cells
        found = {w.name: exchanged(w, cells[w.name], regrowth, step, self.recipe.seed) for w in self.weights}
        for weight in self.weights:
            forget(weight, self._optimizer, found[weight.name][1])
        self._set({name: mask for name, (mask, _) in found.items()})
        self._enforcement.after_step()
        moved = sum(int(torch.count_nonzero(grown)) for _, grown in found.values())
        self.history.append({"step": step, "exchanged": moved, "sparsity": self.sparsity})
        return True

    def _set(self, masks: Mapping[str, Tensor]) -> None:
        for name, mask in masks.items():
            self._enforcement.cells[name].set(mask)
        self._density = 1 - self.sparsity

    def _moments(self) -> dict[int, int]:
        """The groups ranked so far, and the moment of the schedule each was ranked for."""
        return {group: at for group, at in enumerate(self._ranked_for) if at is not None}

    def _check(self) -> None:
        check_unchanged(self._model, self.weights, self.masks)

    def _own_at(self, step: int) -> dict[str, float]:
        """Overridden layers follow the same curve to their own final share."""
        return {name: dataclasses.replace(self.schedule, final=share, initial=min(self.schedule.initial, share)).sparsity(step)
                for name, share in self._own.items()}  # fmt: skip


def _was_skipped(optimizer: torch.optim.Optimizer) -> bool:
    """Whether a fused optimizer has left out its own step because the gradient scaler found an overflow."""
    overflow = getattr(optimizer, "found_inf", None)
    return overflow is not None and bool(overflow)


def _not_here(said: Recipe, method: Method) -> str:
    """What to call for structures, whose tensors become smaller at once."""
    name = "magnitude" if "training" in method.needs else said.method
    named = "" if method.structures else f"structures={list(said.structures)}, "
    data = "calibration=batches, " if method.needs and name == said.method else ""
    return (f"structures={list(said.structures)} make tensors smaller, at once and from a traced model, and a Pruner masks "
            f"single weights while a model trains: call secateurs.prune(model, {name!r}, {named}example=inputs, "
            f"{data}ratio=0.3) and train the model it gives (optimizer= takes its state along)")  # fmt: skip
