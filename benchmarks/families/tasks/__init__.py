"""What a family is made of: networks, batches, a loss and an evaluation. The runner knows nothing else about it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn

from benchmarks.families.setting import Setting

__all__ = ["Task", "make_task"]


class Task(Protocol):
    """A model to train on some data. ``carry`` is what passes from step to step beside the weights (a recurrent state)."""

    setting: Setting
    metric: str
    better: str  # "higher" or "lower"

    def widths(self) -> Sequence[float]:
        """The widths a small dense network may have, narrowest first; the last is the large model's."""
        ...

    def build(self, width: float) -> nn.Module:
        """A network of ``width``, drawn from the global random state."""
        ...

    def prepare(self) -> None:
        """Fill the cache, so that several processes do not do it at once."""
        ...

    def start(self, model: nn.Module) -> Any:
        """The carry before the first step."""
        ...

    def loss(self, model: nn.Module, seed: int, step: int, carry: Any) -> tuple[Tensor, Any]:
        """The loss of the batch at ``step``, a pure function of its arguments and the global random state."""
        ...

    def evaluate(self, model: nn.Module, split: str) -> float:
        """The metric on ``"validation"`` or ``"test"``."""
        ...


def make_task(setting: Setting, folder: Path) -> Task:
    """The task of ``setting`` on the data in ``folder``."""
    from benchmarks.families.tasks.cifar import Cifar
    from benchmarks.families.tasks.language import Language
    from benchmarks.families.tasks.translation import Translation

    kinds: dict[str, Callable[[Setting, Path], Task]] = {"cifar": Cifar, "lstm": Language, "translation": Translation}
    return kinds[setting.family](setting, folder)
