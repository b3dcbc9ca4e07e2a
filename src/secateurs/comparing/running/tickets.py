"""Rounds of full training inside one run: each can be killed at any step, and the run goes on to the same bits."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from secateurs.comparing.running.cell import Cell, Stage
from secateurs.comparing.running.training import Training
from secateurs.core.masks import Masks
from secateurs.errors import CorruptFile
from secateurs.files import write_whole
from secateurs.planning import Plan
from secateurs.recipe import Recipe
from secateurs.train.rounds import Round, Rounds

__all__ = ["Tickets", "tickets"]


class Tickets:
    """The session of a run in rounds: :class:`secateurs.Rounds` as one training of it after the other needs it."""

    def __init__(self, rounds: Rounds):
        self.rounds = rounds
        self.round: Round | None = None

    def attach(self, optimizer: torch.optim.Optimizer) -> None:
        """Hold the masks of the present round, and give ``optimizer`` the state it begins with."""
        assert self.round is not None
        self.round.attach(optimizer)

    def state_dict(self) -> dict[str, Any]:
        """Of the rounds."""
        return self.rounds.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Of the rounds, in the same one."""
        self.rounds.load_state_dict(state)

    def finish(self) -> nn.Module:
        """The plain model."""
        return self.rounds.finish()

    def plan(self) -> Plan:
        """What the last masks remove."""
        return self.rounds.plan()

    @property
    def masks(self) -> Masks:
        """The last ones."""
        return self.rounds.masks

    @property
    def average_density(self) -> float:
        """Mean share of the selected weights in use over the steps of all rounds."""
        rows = self.rounds.report()
        steps = sum(row["steps"] for row in rows)
        return sum(row["steps"] * (1 - row["sparsity"]) for row in rows) / steps if steps else 1.0


def tickets(cell: Cell) -> Stage:
    """The rounds of the run's arm over the initial weights of its seed; each has the task's whole budget of steps."""
    arm, budget = cell.run.arm, cell.run.task.budget
    model = cell.ready.fresh(cell.run.seed)
    recipe = Recipe.from_dict({**cell.settings(), "total_steps": budget})
    rounds = Rounds(model, recipe, rounds=arm.rounds, rewind=arm.rewind, strategy=arm.strategy,
                    calibration=cell.calibration(), loss=cell.ready.loss)  # fmt: skip
    return Stage(model, budget, cell.from_random, session=Tickets(rounds), width=cell.run.task.width)


@dataclass
class Carried:
    """Trains the rounds of a stage one after the other.

    Args:
        stage: made by :func:`tickets`.
        train: carries out a stage and its training's number of steps taken before, and returns the training.
        evaluate: the metric of the model.
        path: where the state at the beginning of a round is kept.
    """

    stage: Stage
    train: Callable[[Stage, int, int], Training]
    evaluate: Callable[[nn.Module], float]
    path: Path

    def all(self) -> tuple[Stage, Training]:
        """The stage with its steps and rows of all rounds, and the last round's training with the time of all."""
        session, model = self.stage.session, self.stage.model
        assert isinstance(session, Tickets)
        rows, training = self._load(session.rounds, model), None
        for round_ in session.rounds:
            session.round, first = round_, round_.first_step
            self._save(session.rounds, model, rows)
            part = dataclasses.replace(self.stage, steps=max(0, self.stage.steps - first), first=first, into=first)
            training = self.train(part, round_.number, session.rounds.steps)
            rows.append(self._row(round_, training, model))
        assert training is not None
        training.seconds = sum(row["seconds"][0] for row in rows)
        training.evaluation_seconds = sum(row["seconds"][1] for row in rows)
        told = [{**its, **mine} for its, mine in zip(session.rounds.report(), rows, strict=True)]
        return dataclasses.replace(self.stage, steps=session.rounds.steps, rounds=told), training

    def _row(self, round_: Round, training: Training, model: nn.Module) -> dict[str, Any]:
        """What a round came to; ``early_stop`` is the first entry of its history with the lowest validation loss."""
        losses = [{**entry, "step": round_.first_step + entry["step"]} for entry in training.history
                  if entry.get("validation_loss") is not None]  # fmt: skip
        early = min(losses, key=lambda entry: entry["validation_loss"]) if losses else None
        return {"round": round_.number, "value": self.evaluate(model), "early_stop": early, "history": list(training.history),
                "seconds": [training.seconds, training.evaluation_seconds]}  # fmt: skip

    def _save(self, rounds: Rounds, model: nn.Module, rows: list[dict[str, Any]]) -> None:
        stream = io.BytesIO()
        torch.save({"rounds": rounds.state_dict(), "model": model.state_dict(), "rows": rows}, stream)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(self.path, stream.getvalue())

    def _load(self, rounds: Rounds, model: nn.Module) -> list[dict[str, Any]]:
        """Go on with the round that a killed run was in; the rows of those before it."""
        if not self.path.is_file():
            return []
        try:
            state = torch.load(self.path, weights_only=True, map_location="cpu")
        except Exception as error:
            raise CorruptFile(f"the state {str(self.path)!r} cannot be read ({type(error).__name__}); delete it, and the run "
                              "begins again") from error  # fmt: skip
        rounds.load_state_dict(state["rounds"])
        model.load_state_dict(state["model"])
        return list(state["rows"])
