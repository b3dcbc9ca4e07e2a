"""Pruning inside the Lightning ``Trainer``."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from secateurs.errors import BadInput
from secateurs.extras import require
from secateurs.recipe import Recipe
from secateurs.train.integrations.settings import to_recipe
from secateurs.train.pruner import Pruner

if TYPE_CHECKING:
    from lightning.pytorch import Callback
else:
    Callback = require("lightning.pytorch", "lightning").Callback

__all__ = ["PrunerCallback"]


class PrunerCallback(Callback):
    """Prunes the module that a Lightning ``Trainer`` trains.

    >>> Trainer(max_epochs=5, callbacks=[PrunerCallback("gmp", sparsity=0.9, begin=0.1, end=0.75)])  # doctest: +SKIP

    ``settings`` are the fields of :class:`secateurs.Recipe`; a whole recipe may stand in the place of the method's name.
    ``total_steps`` is the Trainer's estimate of its optimizer steps unless given. The pruner's state is part of every
    checkpoint, and ``trainer.fit(..., ckpt_path=...)`` continues it. Checkpoints written during training hold the weights as
    they are trained; from the end of training on the masked ones are zero. ``sparsity`` is logged. ``callback.pruner`` is the
    session.

    Args:
        method: the method's name, or a whole recipe.
        optimizer: which of the module's optimizers trains the weights, where there are several.
        settings: fields of the recipe.

    Raises:
        BadInput: the recipe is wrong; when training begins, whatever else cannot work (see :class:`secateurs.Pruner`).
    """

    def __init__(self, method: str | Recipe = "gmp", *, optimizer: int = 0, **settings: Any):
        self.recipe = to_recipe(method, settings)
        self.optimizer = optimizer
        self.pruner: Pruner | None = None
        self._resumed: dict[str, Any] = {}

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Build the pruner, take up the checkpoint's state, attach."""
        if self.pruner is not None:
            self.pruner.detach()
        self.pruner = Pruner(pl_module, self.recipe.with_defaults({"total_steps": self._steps(trainer)}))
        if self._resumed:
            self.pruner.load_state_dict(self._resumed)
            self._resumed = {}
        self.pruner.attach(self._chosen(trainer.optimizers))

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *args: Any) -> None:
        """Log the sparsity after the last update."""
        if self.pruner is not None and self.pruner.history:
            pl_module.log("sparsity", self.pruner.history[-1]["sparsity"])

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Write the zeros into the weights."""
        if self.pruner is not None:
            self.pruner.finish()

    def state_dict(self) -> dict[str, Any]:
        """The pruner's, for the checkpoint."""
        return self._resumed if self.pruner is None else self.pruner.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the checkpoint's state until there is a pruner to continue."""
        self._resumed = state_dict

    def _steps(self, trainer: Any) -> int | None:
        if self.recipe.total_steps is not None:
            return None
        steps = trainer.estimated_stepping_batches
        if math.isinf(steps):
            raise BadInput("this training has no end (max_epochs=-1, no max_steps): give max_steps, or total_steps here")
        return int(steps)

    def _chosen(self, optimizers: list[Any]) -> Any:
        if not 0 <= self.optimizer < len(optimizers):
            raise BadInput(f"optimizer={self.optimizer}: this module has {len(optimizers)} optimizers, counted from 0")
        return optimizers[self.optimizer]
