"""What a published method is to the engine: facts for the registry, default choices, and the few hooks it may override."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from secateurs.core.criteria import Criterion, find_criterion
from secateurs.core.layer import Layer, Solution
from secateurs.core.moment import Moment
from secateurs.core.option import Number, Option, check_option, default_of
from secateurs.core.regrow import Regrowth
from secateurs.core.schedules import Schedule, Turn, together
from secateurs.core.select import keep_mask, keep_mask_grouped
from secateurs.core.structures import Structure
from secateurs.errors import BadInput, near

__all__ = ["Known", "Method"]

#: By a weight's name, what is known of it.
Known = Callable[[str], Mapping[str, Any]]

WHEN = ("before training", "during training", "after training", "at run time")


class Method:
    """Subclass it in one file under ``secateurs.papers`` and add a line to ``secateurs.registry``.

    The class attributes are the registry's facts. ``defaults`` are recipe fields the method sets where the user says
    nothing; ``options`` are the method's own settings: the lawful values, the first being the default, or a
    :class:`~secateurs.core.option.Number`.

    A method that ``needs`` ``"calibration"`` is carried out block by block: :meth:`solve` prunes one layer after the other,
    each fed by what was pruned before it. ``measures`` names what it wants to know of a layer's inputs besides what its
    criterion needs, and with ``by_row`` single weights are ranked inside their output row, whichever allocation is used.

    While a model trains, a method may also begin with masks drawn by other choices (``beginning``: recipe fields, for the
    recipe's ``initial_sparsity``), exchange weights for dead ones (:meth:`regrowth`), learn its scores step by step
    (:meth:`learn`, :meth:`statistics`), and, there as in one shot, go to an amount in several rankings (:meth:`path`) and
    change what stays (:meth:`compensate`).

    A method with ``structures`` removes these where the user names none. Of coupled groups it judges the ``members``: rows that
    produce an index (``out``), columns that read it (``in``), a ``norm``'s entries, parameters used by themselves (``direct``).
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    prunes: ClassVar[tuple[str, ...]] = ("weights",)
    when: ClassVar[str]
    needs: ClassVar[tuple[str, ...]] = ()
    measures: ClassVar[tuple[str, ...]] = ()
    by_row: ClassVar[bool] = False
    structures: ClassVar[tuple[str, ...]] = ()
    members: ClassVar[tuple[str, ...]] = ("out", "in", "norm", "direct")
    paper: ClassVar[str]
    beginning: ClassVar[Mapping[str, Any]] = {}
    defaults: Mapping[str, Any] = {}
    options: ClassVar[Mapping[str, Option]] = {}

    def __init__(self, options: Mapping[str, Any] | None = None):
        given = dict(options or {})
        for key, value in given.items():
            if key not in self.options:
                known = ", ".join(self.options) or "none"
                raise BadInput(f"{self.name!r} has no option {key!r}; its options: {known}" + near(key, self.options))
            if lawful := check_option(self.options[key], value):
                raise BadInput(f"option {key}={value!r} of {self.name!r}: {lawful}")
        self.settings = {key: given.get(key, default_of(option)) for key, option in self.options.items()}

    #: Which layers are ranked at a step, and for which moment of the schedule.
    order: Callable[[Schedule, int, int], Turn | None] = staticmethod(together)

    def check(self, structure: Structure) -> None:
        """Raise :class:`BadInput` if the method cannot work with ``structure``; by default it can with all."""

    def criterion(self, name: str) -> Criterion:
        """How weights are judged where the recipe's criterion is ``name``; a method may give it options."""
        return find_criterion(name)

    def choose(self, name: str, scores: Tensor, remove: int) -> Tensor:
        """Units kept, of unit scores ``[groups, units]``: exactly ``remove`` go.

        Every group loses the same number; where that does not divide, the first ones lose one more.
        """
        if scores.shape[0] == 1:
            return keep_mask(scores, remove, name)
        each, more = divmod(remove, scores.shape[0])
        if not more:
            return keep_mask_grouped(scores, each, name)
        return torch.cat([keep_mask_grouped(scores[:more], each + 1, name), keep_mask_grouped(scores[more:], each, name)])

    def path(self, now: float, target: float) -> list[float]:
        """The sparsities to rank for, one after the other, from ``now`` to ``target``, the last; as many whatever they are."""
        return [target]

    def compensate(self, values: Mapping[str, Tensor], masks: Mapping[str, Tensor], known: Known) -> Mapping[str, Tensor]:
        """New values, by name, for weights that have just been given ``masks`` (True = kept); by default for none.

        ``known(name)`` are the statistics of a weight, those by which it was ranked. What is masked becomes zero whatever is
        returned.
        """
        return {}

    @property
    def compensates(self) -> bool:
        """Whether it changes what stays (:meth:`compensate`)."""
        return type(self).compensate is not Method.compensate

    def regrowth(self, every: int, total_steps: int | None) -> Regrowth | None:
        """When and how weights are exchanged for dead ones, of a recipe's ``every`` and ``total_steps``; None for never.

        Raises:
            BadInput: ``total_steps`` is needed, and None.
        """
        return None

    def learn(self, moment: Moment) -> bool:
        """Look at a step that has been taken; whether all weights are to be ranked anew now.

        It is asked once before, when training begins (step 0): bad settings are refused then, before anything is changed.
        """
        return False

    def statistics(self, name: str) -> Mapping[str, Tensor]:
        """What the method itself knows of a weight, for its criterion, by statistic."""
        return {}

    def reconstruction(self) -> Mapping[str, Any]:
        """Settings of the reconstruction after structures have gone, where they are not the usual ones."""
        return {}

    def made_up(self) -> int:
        """How many random inputs are made where the user gives no calibration data; by default none are."""
        return 0

    def solve(self, layer: Layer) -> Solution:
        """Prune one layer of a block-by-block walk; by default the criterion's mask, and what stays is not changed."""
        return Solution(layer.kept())

    def state_dict(self) -> dict[str, Any]:
        """What the method itself must remember to resume; nothing by default."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back :meth:`state_dict`."""
        if state:
            raise BadInput(f"{self.name!r} keeps no state, but the checkpoint has {', '.join(state)}")

    @classmethod
    def facts(cls) -> dict[str, Any]:
        """The registry entry as plain data."""
        return {"name": cls.name, "summary": cls.summary, "prunes": list(cls.prunes), "when": cls.when,
                "needs": list(cls.needs), "paper": cls.paper, "defaults": dict(cls.defaults),
                "options": {key: _plain(option) for key, option in cls.options.items()}}  # fmt: skip


def _plain(option: Option) -> list[Any] | dict[str, Any]:
    """For JSON: the lawful values, or a number's default and what it may be."""
    return {"default": option.default, "lawful": str(option)} if isinstance(option, Number) else list(option)
