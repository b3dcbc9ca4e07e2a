"""Pruning inside the Hugging Face ``Trainer``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from secateurs.errors import BadInput
from secateurs.extras import require
from secateurs.recipe import Recipe
from secateurs.train.integrations.settings import to_recipe
from secateurs.train.integrations.state_file import load_pruner, save_pruner
from secateurs.train.pruner import Pruner

if TYPE_CHECKING:
    from transformers import TrainerCallback
else:
    TrainerCallback = require("transformers", "transformers").TrainerCallback

__all__ = ["STATE_FILE", "PrunerCallback"]

STATE_FILE = "pruner.safetensors"


class PrunerCallback(TrainerCallback):
    """Prunes the model that a ``Trainer`` trains.

    >>> callback = PrunerCallback("gmp", sparsity=0.9, begin=0.1, end=0.75)  # doctest: +SKIP
    >>> Trainer(model, args, train_dataset=data, callbacks=[callback]).train()  # doctest: +SKIP

    ``settings`` are the fields of :class:`secateurs.Recipe`; a whole recipe may stand in the place of the method's name.
    ``total_steps`` is the Trainer's number of optimizer steps unless given. Each checkpoint holds the pruner's state as
    ``pruner.safetensors``, and ``trainer.train(resume_from_checkpoint=...)`` continues it. Checkpoints written during training
    hold the weights as they are trained; from the end of training on the masked ones are zero, so ``trainer.save_model()``
    saves the pruned model. The logs have ``sparsity``. ``callback.pruner`` is the session.

    Args:
        method: the method's name, or a whole recipe.
        resume_from: the checkpoint that training resumes from, where that is not ``checkpoint-<step>`` in the ``output_dir``.
        settings: fields of the recipe.

    Raises:
        BadInput: the recipe is wrong; when training begins, whatever else cannot work (see :class:`secateurs.Pruner`).
    """

    def __init__(self, method: str | Recipe = "gmp", *, resume_from: str | Path | None = None, **settings: Any):
        self.recipe = to_recipe(method, settings)
        self.resume_from = resume_from
        self.pruner: Pruner | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Build the pruner, take up the checkpoint's state, attach."""
        if args.load_best_model_at_end:
            raise BadInput("load_best_model_at_end brings back the best checkpoint, which is most often an early one that is "
                           "not pruned yet; turn it off")  # fmt: skip
        if self.pruner is not None:
            self.pruner.detach()
        self.pruner = Pruner(kwargs["model"], self.recipe.with_defaults({"total_steps": state.max_steps}))
        if state.global_step:
            load_pruner(self.pruner, self._resumed(args, state) / STATE_FILE)
        self.pruner.attach(kwargs["optimizer"])

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Add the pruner's state to the checkpoint."""
        if self.pruner is not None and state.is_world_process_zero:
            save_pruner(self.pruner, _checkpoint(args, state) / STATE_FILE)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        """Add ``sparsity`` to what is logged, and to the Trainer's history."""
        if self.pruner is None or logs is None:
            return
        logs["sparsity"] = self.pruner.sparsity
        if state.log_history and state.log_history[-1].get("step") == state.global_step:
            state.log_history[-1]["sparsity"] = logs["sparsity"]

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Write the zeros into the weights."""
        if self.pruner is not None:
            self.pruner.finish()

    def _resumed(self, args: Any, state: Any) -> Path:
        return Path(self.resume_from) if self.resume_from is not None else _checkpoint(args, state)


def _checkpoint(args: Any, state: Any) -> Path:
    return Path(args.output_dir) / f"checkpoint-{state.global_step}"
