"""Where a round of training begins: at the first weights, at those of a later step, or with the weights there are."""

from __future__ import annotations

import re
from dataclasses import dataclass

from secateurs.core.schedules import resolve_step
from secateurs.errors import BadInput

__all__ = ["Rewind"]

_RATE = re.compile(r"rate(?::(?P<step>\d+)|:(?P<share>\d*\.\d+))?$")
_EPOCHS = re.compile(r"(?P<epochs>\d+(?:\.\d+)?) epochs?$")


@dataclass(frozen=True)
class Rewind:
    """``step`` is the place in training that a round goes back to, None for none; ``weights`` whether they go back with it."""

    step: int | None
    weights: bool = True

    @classmethod
    def of(cls, said: int | float | str | None, total_steps: int | None, epoch: int | None = None) -> Rewind:
        """What the user has said.

        Args:
            said: an integer is a step, a float a share of training, ``"6 epochs"`` so many of ``epoch`` steps: the weights go
                back there. ``"rate"``, ``"rate:500"``, ``"rate:0.1"``: the weights go on, and the learning rate goes back to
                the start, to a step or to a share (Renda et al. 2020, learning-rate rewinding). None: nothing goes back.
            total_steps: of one round's training from its first step.
            epoch: steps in an epoch.

        Raises:
            BadInput: none of these, a share without ``total_steps``, or epochs without ``epoch``.
        """
        if said is None:
            return cls(None, False)
        if isinstance(said, str):
            if rate := _RATE.match(said):
                place = float(rate["share"]) if rate["share"] else int(rate["step"] or 0)
                return cls(resolve_step(place, total_steps, "rewind"), False)
            if (epochs := _EPOCHS.match(said)) and epoch is not None:
                return cls(resolve_step(round(float(epochs["epochs"]) * epoch), total_steps, "rewind"))
            if epochs:
                raise BadInput(f"rewind={said!r} counts epochs, so epoch= is needed too: the optimizer steps in one")
            raise BadInput(f"rewind={said!r}: give a step (an integer), a share of training (a float), '2 epochs', 'rate', "
                           "'rate:500', or None")  # fmt: skip
        return cls(resolve_step(said, total_steps, "rewind"))
