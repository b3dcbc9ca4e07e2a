"""What cannot work in an arm's ``retrain:``."""

from __future__ import annotations

from secateurs.comparing.gradual import while_training
from secateurs.comparing.recipes.task_checks import check_optimizer
from secateurs.comparing.recipes.values import whole
from secateurs.comparing.spec import Arm, Retrain
from secateurs.errors import BadInput

__all__ = ["check_retrain"]


def check_retrain(arm: Arm, retrain: Retrain) -> None:
    """Raise :class:`BadInput` if ``arm`` cannot train on so."""
    from secateurs.train.retraining import How, check_how

    if arm.protocol != "prune" or while_training(arm):
        raise BadInput("it is for protocol 'prune' and a method that prunes at once: what prunes while the model trains needs "
                       "every weight")  # fmt: skip
    if retrain.optimizer is not None:
        check_optimizer(retrain.optimizer)
    if retrain.steps is not None:
        whole("steps", retrain.steps, 0)
    if retrain.steps == 0:
        return
    check_how(How(retrain.parts, retrain.adapter, retrain.rank, retrain.alpha, retrain.dropout))
    if retrain.adapter == "lora":
        raise BadInput("adapter='lora' cannot be merged into pruned weights without losing their sparsity: use 'mask-lora'")
