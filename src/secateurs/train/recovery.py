"""What is done for the quality of what is left, straight after a cut and without training."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from secateurs.apply.masking import kept_statistics, masked_model
from secateurs.apply.running import resized
from secateurs.apply.shrink import shrink
from secateurs.errors import BadInput
from secateurs.graph.groups import Graph, Keeps
from secateurs.train.reconstruction import Rebuilt, Reconstruction, reconstruct
from secateurs.train.reestimate import reestimate

__all__ = ["noise_batches", "recover"]

_BATCH = 64  # random inputs of a batch


def recover(model: nn.Module, graph: Graph, keeps: Keeps, batches: Sequence[Any], how: Reconstruction | None,
            example: Any = None) -> Rebuilt:  # fmt: skip
    """A copy of the dense ``model`` that makes up for the removal of all but ``keeps``; cut, it is the recovered model.

    Args:
        model: what ``graph`` was traced from; left as it is.
        graph: its groups.
        keeps: group name -> what stays.
        batches: calibration inputs.
        how: to fit layers; None takes the batch norms' statistics anew, and no more.
        example: inputs to cut with, where a norm's statistics will be over what stays.

    Raises:
        BadInput: there is no batch norm to take anew, or as in :func:`secateurs.train.reconstruction.reconstruct`.
        NotFinite, NotPositiveDefinite: as there.
    """
    if how is not None:
        return reconstruct(model, graph, keeps, batches, how, _norms_cut(model, graph, keeps, example))
    masked = masked_model(model, graph, keeps)
    if not reestimate(masked, batches):
        raise BadInput("recovery='norms' takes the running statistics of batch norms anew, and this model has none")
    result = copy.deepcopy(model)
    result.load_state_dict(masked.state_dict())
    return Rebuilt(result, (), ())


def _norms_cut(model: nn.Module, graph: Graph, keeps: Keeps, example: Any) -> nn.Module | None:
    """The smaller model, where layer or group norms are over fewer entries in it; None where none is, or it is a program."""
    modules = dict(model.named_modules())
    if not any(isinstance(modules.get(name), (nn.LayerNorm, nn.GroupNorm)) for name in kept_statistics(graph, keeps)):
        return None
    done = shrink(model, graph, keeps, example=example)
    return None if done.is_exported else done.model


def noise_batches(example: Any, count: int, seed: int) -> list[Any]:
    """``count`` random inputs like ``example``, in batches: standard normal numbers, or whole ones between its extremes.

    Arguments of a tuple that are more than one, and mappings, are made as they are; a batch has the floating dtype of the
    example.
    """
    sizes = [min(_BATCH, count - start) for start in range(0, count, _BATCH)]
    made = [resized(example, batch=size, seed=seed + i) for i, size in enumerate(sizes)]
    return [_typed(one, example) for one in made]


def _typed(made: Any, example: Any) -> Any:
    dtypes = iter([t.dtype for t in tree_leaves(example) if isinstance(t, Tensor)])
    return torch.utils._pytree.tree_map(lambda t: t.to(next(dtypes)) if isinstance(t, Tensor) else t, made)
