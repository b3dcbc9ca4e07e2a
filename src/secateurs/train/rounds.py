"""Train, prune, go back, and again: lottery tickets and every other way of pruning in rounds of full training."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from secateurs.core.in_rounds import InRounds, RoundEnd, Survivors, cumulative_share
from secateurs.core.masks import Masks
from secateurs.errors import BadInput
from secateurs.models import Weight, unwrap
from secateurs.planning import Choices, Plan, choose_weights, count, decide, own_shares, target_sparsity
from secateurs.recipe import Recipe
from secateurs.train.dense import Dense, Lazy
from secateurs.train.guard import innermost
from secateurs.train.hold import Held
from secateurs.train.losses import Loss, default_loss
from secateurs.train.rewinding import Rewind
from secateurs.train.round_choices import check_amounts, compares, finds_amount, method_in_rounds, of_survivors
from secateurs.train.snapshots import Snapshot, Snapshots

__all__ = ["OWN", "Round", "Rounds"]

_log = logging.getLogger("secateurs")

OWN = "own"  # where the method itself goes back to
_STATE = ("version", "said", "number", "over", "taken", "before", "masks", "store", "began", "rows", "records", "method")


class Round:
    """One training of :class:`Rounds`, from its beginning or from where it was interrupted.

    Attributes:
        number: from 0, the dense one.
        sparsity: share of the selected weights masked in it.
        first_step: the step of training (from 0) that comes next: data order and learning rate go on from there.
    """

    def __init__(self, rounds: Rounds):
        self._rounds = rounds
        self.number, self.sparsity, self.first_step = rounds.number, rounds.sparsity, rounds.first_step

    def attach(self, optimizer: torch.optim.Optimizer, schedule: Any = None, data: Any = None) -> Round:
        """Hold the masks through every step of ``optimizer``, which should be new.

        In a round that has gone back to a step k > 0 the optimizer gets the state it had there, and so do the ``schedule`` of
        the learning rate, the order of the ``data`` (whatever has a state dict, or a ``torch.Generator``) and the global
        random generators. In round 0 they are what the snapshot is taken of.

        Raises:
            BadInput: the optimizer trains other parameters, or another pruner holds one.
        """
        self._rounds._attach(optimizer, schedule, data)
        return self

    def record(self, loss: float, **measures: float) -> None:
        """Note the validation ``loss`` of this moment, and other measures; the report has the step of the lowest loss."""
        self._rounds._records.append({"step": self._rounds.first_step, "loss": float(loss), **measures})


class Rounds:
    """Prunes ``model`` in ``rounds`` cuts, with a full training before each and one after the last.

    >>> rounds = sc.Rounds(model, "lottery", sparsity=0.9, rounds=10)  # doctest: +SKIP
    >>> for round in rounds:                       # 11 of them; from the second on under masks  # doctest: +SKIP
    ...     optimizer = torch.optim.Adam(model.parameters(), 1.2e-3)
    ...     round.attach(optimizer)
    ...     train(model, optimizer, first=round.first_step)
    >>> model = rounds.finish()                    # plain zeros, nothing left behind  # doctest: +SKIP

    Only survivors are ranked, so masks are nested. Of a share S, ``p = 1 - (1 - S)^(1 / rounds)`` of the survivors go in every
    round, in counts that are exact.

    Args:
        model: its present weights are the initial ones.
        method: one that prunes in rounds (``lottery``, ``lottery-rewind``, ``sap``, ``ap``), or a one-shot method by name, of
            which the ranking is used.
        rounds: how many cuts; 1 is one-shot pruning. A method that finds its amount may end sooner.
        rewind: where the survivors go back to after a cut: see :meth:`secateurs.train.rewinding.Rewind.of`; ``"own"`` is the
            method's own choice, which is the initial weights for most.
        strategy: 1 goes back in every round, 2 only before the last training (Frankle & Carbin 2019, appendix B).
        restart: in a round that goes back to a step k > 0 the optimizer begins anew, as in the published code, instead of
            with the state it had at k.
        epoch: steps in an epoch, for ``rewind="2 epochs"``.
        snapshot: of step k, from another training: round 0 begins with it too.
        calibration, loss: for criteria that need gradients.
        settings: fields of :class:`secateurs.Recipe`; ``total_steps`` is the length of one training.

    Raises:
        BadInput: whatever cannot work, before anything is changed.
    """

    def __init__(self, model: nn.Module, method: str | Recipe = "lottery", *, rounds: int = 10,
                 rewind: int | float | str | None = OWN, strategy: int = 1, restart: bool = False, epoch: int | None = None,
                 snapshot: Snapshot | None = None, calibration: Iterable[Any] | None = None, loss: Loss | None = None,
                 **settings: Any):  # fmt: skip
        said = Recipe.of(method, settings)
        self._given, self._model = model, unwrap(model)
        self._method = method_in_rounds(said)
        self.recipe = said.with_defaults(self._method.defaults)
        self._choices = of_survivors(Choices.of(self.recipe, self._method))
        check_amounts(self.recipe, self._method, self._choices, rounds, strategy)
        self.rounds, self._strategy, self._restart = rounds, strategy, restart
        own = self._method.rewind if isinstance(self._method, InRounds) else 0
        self._back = Rewind.of(own if rewind == OWN else rewind, self.recipe.total_steps, epoch)
        chosen = choose_weights(self._model, self.recipe, trained=True)
        self.weights = chosen.weights
        for weight in self.weights:
            self._choices.structure.check(weight.name, weight.parameter.shape, weight.layout)
        self._share = None if finds_amount(self._method) else target_sparsity(self.recipe, self._choices, chosen)
        self._own = own_shares(self.recipe, self.weights)
        batches = None if calibration is None else list(calibration)
        self._dense = lambda: Dense(self._model, chosen, batches, loss or default_loss, self.recipe.seed, masks=self.masks)
        self._masks = {w.name: torch.ones_like(w.parameter, dtype=torch.bool) for w in self.weights}
        self.number, self._over, self._taken, self._before = 0, False, 0, 0
        self._rows: list[dict[str, Any]] = []
        self._records: list[dict[str, Any]] = []
        self._held: Held | None = None
        self._count: Any = None
        self._settings: dict[str, Any] = {
            "recipe": self.recipe.to_dict(), "rounds": rounds, "rewind": [self._back.step, self._back.weights],
            "strategy": strategy, "restart": restart, "snapshot": snapshot is not None,
        }  # fmt: skip
        self._begin(snapshot)

    # -- the rounds -------------------------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[Round]:
        """The trainings still to come, that of the present round first; the next cut is made when one is over."""
        while not self._over:
            yield Round(self)
            self._advance()

    def finish(self) -> nn.Module:
        """Leave nothing behind, check that every masked weight is zero, and return the model.

        Ending before the last round has been trained is allowed and logged.

        Raises:
            BrokenPromise: something has written to a masked weight since the last step.
        """
        if not self._over:
            _log.warning("rounds finished in round %d of %d: sparsity %.4f", self.number, self.rounds, self.sparsity)
        self._release()
        Held(self._model, self.plan()).finish()
        return self._given

    # -- what is known ----------------------------------------------------------------------------------------------

    @property
    def masks(self) -> Masks:
        """Masks by name, True = kept: those the present round trains under."""
        return Masks(self._masks)

    @property
    def sparsity(self) -> float:
        """Share of the selected weights masked now."""
        return self.masks.sparsity

    @property
    def first_step(self) -> int:
        """The step of training, from 0, that comes next."""
        return self._place + self._taken

    @property
    def steps(self) -> int:
        """Optimizer steps taken so far, in all rounds."""
        return self._before + self._taken

    def report(self) -> list[dict[str, Any]]:
        """A row per round that is over: kept, size, sparsity, steps; where losses were recorded, the record of the lowest one
        (``early_stop``, the first of equal ones) and all ``records``; and what the method has found when it cut."""
        return [dict(row) for row in self._rows]

    def plan(self) -> Plan:
        """What the masks of the present round remove."""
        return self._plan(self._masks)

    # -- resume -----------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Everything that a killed run needs besides the model and the optimizer: loads with ``weights_only=True``."""
        return {"version": 1, "said": self._settings, "number": self.number, "over": self._over, "taken": self._taken,
                "before": self._before, "masks": self.masks.state_dict(), "store": self._store.state_dict(),
                "began": self._began, "rows": self.report(), "records": list(self._records),
                "method": self._method.state_dict()}  # fmt: skip

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where :meth:`state_dict` was taken: before the loop, or attached in that round. The model and the optimizer
        are loaded beside it.

        Raises:
            BadInput: it is of other settings, other weights or a newer version, or no such state; nothing is changed then.
        """
        if not isinstance(state, Mapping) or state.get("version") != 1 or any(key not in state for key in _STATE):
            raise BadInput("this is no state of rounds that this library reads: give what Rounds.state_dict() made")
        if self._held is not None and state["number"] != self.number:
            raise BadInput(f"the state is of round {state['number']}, and round {self.number} is attached; load it before the "
                           "loop over the rounds")  # fmt: skip
        mine, theirs = {**self._settings, **self._settings["recipe"]}, {**state["said"], **state["said"]["recipe"]}
        if differ := [key for key in {**mine, **theirs} if key != "recipe" and mine.get(key) != theirs.get(key)]:
            rows = (f"{key} was {theirs.get(key)!r}, now {mine.get(key)!r}" for key in differ)
            raise BadInput("the state is of other rounds: " + ", ".join(rows))
        masks = Masks.from_state_dict(state["masks"])
        if [(n, tuple(m.shape)) for n, m in masks.items()] != [(w.name, w.shape) for w in self.weights]:
            raise BadInput(f"the state is of another model: it masks {', '.join(masks)}")
        self._method.load_state_dict(state["method"])
        self._masks = {w.name: masks[w.name].to(w.parameter.device) for w in self.weights}
        self.number, self._over, self._taken, self._before = (state[key] for key in ("number", "over", "taken", "before"))
        self._store.load_state_dict(state["store"])
        self._began = None if state["began"] is None else dict(state["began"])
        self._rows, self._records = [dict(row) for row in state["rows"]], [dict(one) for one in state["records"]]

    # -- inside a round ---------------------------------------------------------------------------------------------

    def _begin(self, snapshot: Snapshot | None) -> None:
        """Take the snapshot that the rounds go back to, where it is already there to be taken."""
        self._from_outside = snapshot is not None
        if snapshot is not None:
            if not self._back.weights or snapshot.step != self._back.step:
                raise BadInput(f"snapshot= is of step {snapshot.step}, and these rounds go back to step {self._back.step}: say "
                               f"rewind={snapshot.step}")  # fmt: skip
            snapshot.restore(self._model)
        self._store = Snapshots(self._model, [] if self._wanted is None else [self._wanted])
        if snapshot is not None:
            self._store.add(snapshot)
        self._began = self._values() if compares(self._method) else None

    @property
    def _wanted(self) -> int | None:
        """The step of which a snapshot is needed: weights go back to it, or a schedule does, to a later step than the first."""
        return self._back.step if self._back.weights or self._back.step else None

    @property
    def _place(self) -> int:
        """Where in training the present round began."""
        if self._back.step is None:
            return self._before
        return self._back.step if self.number or self._from_outside else 0

    @property
    def _goes_back(self) -> bool:
        """Whether the present round begins with the weights of the snapshot."""
        return self._back.weights and (self._strategy == 1 or self.number in (0, self.rounds))

    def _attach(self, optimizer: torch.optim.Optimizer, schedule: Any, data: Any) -> None:
        if self._held is not None:
            raise BadInput(f"round {self.number} is attached already; one optimizer trains a round")
        self._held = Held(self._model, self.plan()).attach(optimizer)
        self._count = innermost(optimizer).register_step_post_hook(self._counted)
        at = self._back.step
        if not at:  # every round begins as the user lets it begin
            return
        if self._place == 0:
            self._store.attach(optimizer, schedule, data, done=lambda: self.first_step)
        elif self._taken == 0 and self._goes_back:
            self._store[at].restore_course(None if self._restart else innermost(optimizer), schedule, data, randomness=True)
        elif self._taken == 0:
            self._store[at].restore_course(schedule=schedule)

    def _counted(self, *_: Any) -> None:
        self._taken += 1

    def _release(self) -> None:
        """Hold the masks no longer."""
        held, self._held = self._held, None
        if held is not None:
            self._count.remove()
            self._store.detach()
            held.finish()

    # -- between two rounds -----------------------------------------------------------------------------------------

    def _advance(self) -> None:
        """Close the round that is over and begin the next one. If that cannot be done, the round stays what it is."""
        if self._held is None:
            raise BadInput(f"round {self.number} was not trained under its masks: call round.attach(optimizer) in the loop")
        last = self.number == self.rounds
        if not last:
            self._check_snapshot()
        judged = not last or finds_amount(self._method)  # what such a method finds in the last weights is worth knowing too
        masks = self._cut() if judged else None
        masks = None if last else masks
        self._release()
        self._rows.append(self._row(self._method.told() if judged and isinstance(self._method, InRounds) else {}))
        self._before, self._taken, self._records, self._over = self.steps, 0, [], masks is None
        if masks is not None:
            self.number, self._masks = self.number + 1, masks
            self._go_back()

    def _check_snapshot(self) -> None:
        at = self._wanted
        if at is not None and at not in self._store:
            raise BadInput(f"rewind={at} goes back to step {at}, of which there is no snapshot: round 0 has taken "
                           f"{self.steps} steps; train it further, go back to an earlier step, or give snapshot=")  # fmt: skip

    @torch.no_grad()
    def _go_back(self) -> None:
        if self._goes_back:
            self._store[self._back.step or 0].restore(self._model)
        for weight in self.weights:
            weight.parameter.masked_fill_(~self._masks[weight.name], 0)
        self._began = self._values() if self._began is not None else None
        _log.info("round %d: sparsity %.4f, from step %d", self.number, self.sparsity, self.first_step)

    @torch.no_grad()
    def _cut(self) -> dict[str, Tensor] | None:
        """The masks of the next round."""
        end = self._end()
        masks = self._method.cut(end) if isinstance(self._method, InRounds) else end.rank(0)
        return None if masks is None else {name: mask & self._masks[name] for name, mask in masks.items()}

    def _end(self) -> RoundEnd:
        began = self._began or {}
        layers = [Survivors(w.name, w.parameter.detach(), self._masks[w.name], w.layout, began.get(w.name))
                  for w in self.weights]  # fmt: skip
        if self._share is None:
            return RoundEnd(layers, None, _no_amount)
        share, own, dense = *self._shares(), self._dense()

        def supply(weight: Weight) -> Mapping[str, Tensor]:
            return Lazy({**dense(weight).makers, "survives": lambda: self._masks[weight.name]})

        counts = count(self.weights, self._choices, share, own, supply)
        remove = sum(n * self._choices.structure.unit_size(w.parameter.shape, w.layout)
                     for w, n in zip(self.weights, counts.values(), strict=True))  # fmt: skip
        free = sum(w.size for w in self.weights if w.name not in own)

        def rank(spared: int) -> dict[str, Tensor]:
            found = decide(self.weights, self._choices, max(0.0, share - spared / free if spared else share), own, supply)
            return {name: mask & self._masks[name] for name, mask in found.items()}

        return RoundEnd(layers, remove, rank)

    def _shares(self) -> tuple[float, dict[str, float]]:
        """The share removed by the end of this cut, and that of weights with one of their own."""
        assert self._share is not None
        at, names = self.number + 1, [w.name for w in self.weights]
        rates = self._method.rates(names) if isinstance(self._method, InRounds) else {}
        own = {name: cumulative_share(self._share, at, self.rounds, rate) for name, rate in rates.items()}
        own |= {name: cumulative_share(share, at, self.rounds) for name, share in self._own.items()}
        return cumulative_share(self._share, at, self.rounds), own

    def _row(self, told: Mapping[str, Any]) -> dict[str, Any]:
        kept, size = sum(self.masks.kept().values()), self.masks.size
        row: dict[str, Any] = {"round": self.number, "kept": kept, "size": size, "sparsity": self.sparsity,
                               "first_step": self._place, "steps": self._taken}  # fmt: skip
        if self._records:
            row |= {"early_stop": min(self._records, key=lambda one: one["loss"]), "records": list(self._records)}
        return {**row, **told}

    def _values(self) -> dict[str, Tensor]:
        return {w.name: w.parameter.detach().clone() for w in self.weights}

    def _plan(self, masks: Mapping[str, Tensor]) -> Plan:
        return Plan.of(self.weights, masks, self._choices.structure.name, self.recipe.to_dict())


def _no_amount(spared: int) -> dict[str, Tensor]:
    raise BadInput("there is no amount to rank for: the method finds its own")
