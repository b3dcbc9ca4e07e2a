"""Taking the wrappers off a model."""

from __future__ import annotations

from torch import nn
from torch.optim.swa_utils import AveragedModel

from secateurs.errors import BadInput

__all__ = ["unwrap"]


def unwrap(model: nn.Module) -> nn.Module:
    """The module inside ``DistributedDataParallel``, ``DataParallel``, ``torch.compile`` and ``AveragedModel``, however nested.

    Raises:
        BadInput: ``model`` is not a module.
    """
    if not isinstance(model, nn.Module):
        raise BadInput(f"got a {type(model).__name__} where a torch.nn.Module is needed")
    while (inner := _inner(model)) is not None:
        model = inner
    return model


def _inner(model: nn.Module) -> nn.Module | None:
    if isinstance(model, (nn.parallel.DistributedDataParallel, nn.DataParallel, AveragedModel)):
        return model.module
    # torch.compile's wrapper, known by its one child: importing its class would load the compiler
    return dict(model.named_children()).get("_orig_mod")
