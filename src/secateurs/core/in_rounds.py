"""Methods that prune in rounds of full training, as lottery tickets do: what the engine tells them, and what it asks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import Tensor

from secateurs.core.layout import Layout
from secateurs.core.method import Method
from secateurs.core.structures import Structure
from secateurs.errors import BadInput

__all__ = ["InRounds", "RoundEnd", "Survivors", "cumulative_share"]


def cumulative_share(share: float, round_: int, rounds: int, rate: float = 1.0) -> float:
    """The share removed after ``round_`` of ``rounds``, where every round takes the same share of what is left.

    ``p = 1 - (1 - share)^(1 / rounds)`` of the survivors go in a round (Frankle & Carbin 2019, section 2); a layer pruned at
    another ``rate`` loses ``rate p`` of its own, so that its share is ``1 - (1 - rate p)^round_``.
    """
    if rate == 1:
        return share if round_ == rounds else 1 - (1 - share) ** (round_ / rounds)
    return 1 - (1 - rate * (1 - (1 - share) ** (1 / rounds))) ** round_


@dataclass(frozen=True)
class Survivors:
    """A weight at the end of a round: its trained ``values``, the mask it was trained under (True = kept), and the values it
    ``began`` the round with, where the method compares them."""

    name: str
    values: Tensor = field(repr=False)
    kept: Tensor = field(repr=False)
    layout: Layout = Layout()
    began: Tensor | None = field(default=None, repr=False)


@dataclass(frozen=True)
class RoundEnd:
    """What a method knows when a round of training is over.

    Attributes:
        layers: the selected weights, in the order of the model.
        remove: weights that go by the end of this cut, those already gone included; None where the method finds the amount.
        rank: ``rank(spared)`` gives masks by the recipe's criterion and allocation over the survivors, of which ``spared``
            fewer go than ``remove`` says. Masks are nested in the present ones.
    """

    layers: Sequence[Survivors]
    remove: int | None
    rank: Callable[[int], dict[str, Tensor]] = field(repr=False)

    @property
    def kept(self) -> int:
        """Weights left before the cut."""
        return sum(int(layer.kept.sum()) for layer in self.layers)


class InRounds(Method):
    """A method carried out by :class:`secateurs.Rounds`: train, cut, go back, and again.

    ``rewind`` is where it goes back to unless the user says otherwise. One that ``finds_amount`` derives how much goes from
    the weights and takes no sparsity; one that ``compares`` is given the values every round began with.
    """

    when = "during training"
    needs = ("rounds",)
    rewind: ClassVar[int | float | str | None] = 0
    finds_amount: ClassVar[bool] = False
    compares: ClassVar[bool] = False

    def __init__(self, options: Mapping[str, Any] | None = None):
        super().__init__(options)
        #: Set by what carries the rounds out.
        self.in_rounds = False

    def check(self, structure: Structure) -> None:
        """Only rounds of training carry it out."""
        if not self.in_rounds:
            raise BadInput(f"{self.name!r} trains in rounds, so one call or one training cannot carry it out: use "
                           f"secateurs.Rounds(model, {self.name!r}, ...), or protocol 'tickets' in a comparison")  # fmt: skip

    def rates(self, names: Sequence[str]) -> Mapping[str, float]:
        """Weights that lose another share of their survivors in a round than the rest, as a multiple of it; by default none."""
        return {}

    def cut(self, end: RoundEnd) -> dict[str, Tensor] | None:
        """The next masks by name, nested in the present ones; None where the rounds should end without another cut."""
        return end.rank(0)

    def told(self) -> Mapping[str, Any]:
        """What the last :meth:`cut` has found, as plain data for the round's row of the report."""
        return {}
