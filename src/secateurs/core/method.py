"""What a published method is to the engine: facts for the registry, default choices, and the few hooks it may override."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from torch import Tensor

from secateurs.core.schedules import Schedule, Turn, together
from secateurs.core.select import keep_mask, keep_mask_grouped
from secateurs.core.structures import Structure
from secateurs.errors import BadInput, near

__all__ = ["Method"]

WHEN = ("before training", "during training", "after training", "at run time")


class Method:
    """Subclass it in one file under ``secateurs.papers`` and add a line to ``secateurs.registry``.

    The class attributes are the registry's facts. ``defaults`` are recipe fields the method sets where the user says
    nothing; ``options`` are the method's own settings with their lawful values, the first being the default.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    prunes: ClassVar[tuple[str, ...]] = ("weights",)
    when: ClassVar[str]
    needs: ClassVar[tuple[str, ...]] = ()
    paper: ClassVar[str]
    defaults: Mapping[str, Any] = {}
    options: ClassVar[Mapping[str, tuple[Any, ...]]] = {}

    def __init__(self, options: Mapping[str, Any] | None = None):
        given = dict(options or {})
        for key, value in given.items():
            if key not in self.options:
                known = ", ".join(self.options) or "none"
                raise BadInput(f"{self.name!r} has no option {key!r}; its options: {known}" + near(key, self.options))
            if value not in self.options[key]:
                raise BadInput(f"option {key}={value!r} of {self.name!r}: use one of {', '.join(map(repr, self.options[key]))}")
        self.settings = {key: given.get(key, values[0]) for key, values in self.options.items()}

    #: Which layers are ranked at a step, and for which moment of the schedule.
    order: Callable[[Schedule, int, int], Turn | None] = staticmethod(together)

    def check(self, structure: Structure) -> None:
        """Raise :class:`BadInput` if the method cannot work with ``structure``; by default it can with all."""

    def choose(self, name: str, scores: Tensor, remove: int) -> Tensor:
        """Units kept, of unit scores ``[groups, units]``: every group (or the one group) loses exactly ``remove``."""
        if scores.shape[0] == 1:
            return keep_mask(scores, remove, name)
        return keep_mask_grouped(scores, remove, name)

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
                "options": {key: list(values) for key, values in cls.options.items()}}  # fmt: skip
