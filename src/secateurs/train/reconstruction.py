"""Make what is left of a network give the outputs it gave: every layer that lost columns is fitted anew, in closed form.

In the order in which the network runs, so that a layer is fitted to the inputs which the pruned and already fitted layers
before it give, with the dense layer's outputs on the same data as targets. Batch norms' statistics are taken anew when their
turn comes, since layers further on will see what they make of them (Wang et al. 2024, "Structurally Prune Anything", whose
OBSPA this follows; the order and the inputs are a choice of ours, as they do not say).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from secateurs.apply.masking import masked_model
from secateurs.apply.slicing import slice_tensors
from secateurs.core.reconstruct import refit_from
from secateurs.graph.groups import Graph, Keeps
from secateurs.measure.mode import device_of, evaluating, to_device
from secateurs.models import Left, Weight, from_matrices, matrices, survey
from secateurs.train.in_step import in_step
from secateurs.train.layer_inputs import Rows, calls_of, layers_read, product, tokens_in, unread
from secateurs.train.reestimate import reestimated
from secateurs.train.walk.padding import Tokens
from secateurs.train.walk.replay import Forward, default_forward

__all__ = ["Rebuilt", "Reconstruction", "reconstruct"]


@dataclass(frozen=True)
class Reconstruction:
    """How layers are fitted.

    Attributes:
        dampening: a share of the mean diagonal of the inputs' products, added to it; it draws towards the old weights.
        inputs: ``"pruned"``, what the layer reads in the pruned network; ``"dense"``, what it read before.
        layers: ``"cut"``, those that lost columns; ``"all"`` that can be fitted, since the inputs of others have changed too.
        norms: whether batch norms' statistics are taken anew. Those of random numbers are further from data's than the old
            ones, which are kept then; but while layers are compared the norms have those of the numbers, since what they would
            make of these with data's is like nothing that layers further on ever read.
        places: of a convolution's places on an image, at most so many are looked at.
        seed: of their draw.
    """

    dampening: float = 0.01
    inputs: str = "pruned"
    layers: str = "cut"
    norms: bool = True
    places: int = 64
    seed: int = 0


@dataclass(frozen=True)
class Rebuilt:
    """A copy of the dense model whose removed entries are zero, and whose other weights make up for them.

    ``fitted`` are the weights that were fitted, ``left`` those that lost columns and could not be, with the reason.
    """

    model: nn.Module
    fitted: tuple[str, ...]
    left: tuple[Left, ...]


def reconstruct(
    model: nn.Module, graph: Graph, keeps: Keeps, batches: Sequence[Any], how: Reconstruction, smaller: nn.Module | None = None,
    forward: Forward = default_forward,
) -> Rebuilt:  # fmt: skip
    """Fit the weights of ``model`` to the removal of all but ``keeps``; the model itself is left as it is.

    Args:
        model: dense, what ``graph`` was traced from.
        graph: its groups.
        keeps: group name -> what stays.
        batches: calibration inputs.
        how: the settings.
        smaller: the cut model of the same class, where norms' statistics are over what stays.
        forward: how the model is called.

    Raises:
        NotFinite: an input is NaN or infinite.
        NotPositiveDefinite: naming the layer whose inputs' products have no factor.
        BadInput: a layer's inputs were all zero, or the batches run other layers each.
    """
    on_device = [to_device(batch, device_of(model)) for batch in batches]
    if how.norms:
        return _rebuilt(model, graph, keeps, on_device, how, smaller, forward)
    found = _rebuilt(reestimated(model, on_device, forward), graph, keeps, on_device, how, smaller, forward)
    old = dict(masked_model(model, graph, keeps).named_buffers())
    for name, buffer in found.model.named_buffers():
        buffer.copy_(old[name])
    return found


def _rebuilt(model: nn.Module, graph: Graph, keeps: Keeps, on_device: Sequence[Any], how: Reconstruction,
             smaller: nn.Module | None, forward: Forward) -> Rebuilt:  # fmt: skip
    masked = masked_model(model, graph, keeps, smaller)
    with evaluating(masked):
        calls = calls_of(masked, lambda: forward(masked, on_device[0]))
    twins = _Twins(model, masked, _survivors(model, graph, keeps), how, calls)
    forwards = [partial(forward, one, batch) for one in (model, masked) for batch in on_device]
    with evaluating(model), evaluating(masked):
        stop = twins.stop([tokens_in(model, batch) for batch in on_device])
        in_step(forwards, [twins.stations(model), twins.stations(masked)], stop)
    result = copy.deepcopy(model)
    result.load_state_dict(masked.state_dict())
    return Rebuilt(result, tuple(twins.fitted), twins.left())


def _survivors(model: nn.Module, graph: Graph, keeps: Keeps) -> dict[str, Tensor]:
    """bool of every parameter's shape: what stays of those that lose something."""
    places = {name: torch.arange(p.numel()).view(p.shape) for name, p in model.named_parameters()}
    found = {}
    for name, left in slice_tensors(graph, keeps, places).items():
        if left.numel() < places[name].numel():
            mask = torch.zeros(places[name].numel(), dtype=torch.bool)
            mask[left.flatten()] = True
            found[name] = mask.view(places[name].shape)
    return found


class _Twins:
    """The dense model and its masked copy, layer beside layer."""

    def __init__(self, model: nn.Module, masked: nn.Module, survivors: Mapping[str, Tensor], how: Reconstruction,
                 calls: Mapping[str, int]):  # fmt: skip
        self._survivors, self._how, self._calls = survivors, how, calls
        self._dense, self._masked = layers_read(model), layers_read(masked)
        self._norms = {name: norm for name, norm in masked.named_modules() if _counts(norm) and calls[name] == 1}
        self._cut = [w for w in survey(masked).weights if w.name in survivors and _lost_columns(w, survivors[w.name])]
        self.fitted: list[str] = []

    def stations(self, model: nn.Module) -> dict[str, nn.Module]:
        """The modules of ``model`` at which something is to be done, by name."""
        modules = dict(model.named_modules())
        wanted = self._dense.values() if self._how.layers == "all" else self._cut
        layers = {w.name: modules[w.sites[0].path] for w in wanted if not self._obstacle(w)}
        return {**layers, **{name: modules[name] for name in self._norms if self._how.norms}}

    def stop(self, tokens: Sequence[Tokens]) -> Any:
        """What :func:`secateurs.train.in_step.in_step` calls; the inputs are of the dense runs, then of the masked ones."""

        def stop(name: str, brought: list[Any]) -> None:
            before, after = brought[: len(tokens)], brought[len(tokens) :]
            if name in self._norms:
                _recount(self._norms[name], after)
            else:
                self._fit(name, before, after, tokens)

        return stop

    def _fit(self, name: str, before: list[Tensor], after: list[Tensor], tokens: Sequence[Tokens]) -> None:
        if name not in {w.name for w in self._cut} and all(map(torch.equal, before, after)):
            return  # nothing before it has changed
        dense, weight = self._dense[name], self._masked[name]
        old, new = matrices(dense).detach().double(), matrices(weight).clone()
        stays = matrices(weight, self._survivors.get(name, torch.ones(weight.shape, dtype=torch.bool)))
        kept = [(part.any(1).nonzero().flatten(), part.any(0).nonzero().flatten()) for part in stays]
        sums = self._products(name, before, after, tokens, [columns for _, columns in kept])
        for part, ((rows, columns), (cross, gram)) in enumerate(zip(kept, sums, strict=True)):
            if len(rows) and len(columns):
                matrix = old[part][rows]
                fit = refit_from(matrix, cross, gram, self._how.dampening, prior=matrix[:, columns], name=name)
                new[part][rows[:, None], columns] = fit.to(new.dtype)
        with torch.no_grad():
            weight.parameter.copy_(from_matrices(weight, new))
        self.fitted.append(name)

    def _products(self, name: str, before: list[Tensor], after: list[Tensor], tokens: Sequence[Tokens], kept: list[Tensor],
                  ) -> list[tuple[Tensor, Tensor]]:  # fmt: skip
        """Per part of the weight: the dense inputs by those it will read, and these by themselves, over all batches."""
        how = self._how
        dense, pruned = (Rows(one[name], how.places, how.seed) for one in (self._dense, self._masked))
        sums: list[tuple[Tensor, Tensor]] = []
        for x, y, mask in zip(before, after, tokens, strict=True):
            theirs = dense(x, mask)
            read = theirs if how.inputs == "dense" else pruned(y, mask)
            mine = [rows[:, columns] for rows, columns in zip(read, kept, strict=True)]
            found = [(product(a, b), product(b, b)) for a, b in zip(theirs, mine, strict=True)]
            sums = [(c + d, g + h) for (c, g), (d, h) in zip(sums, found, strict=True)] if sums else found
        return sums

    def left(self) -> tuple[Left, ...]:
        """The weights that lost columns and were not fitted."""
        return tuple(Left(w.name, w.shape, w.size, reason) for w in self._cut if (reason := self._obstacle(w)))

    def _obstacle(self, weight: Weight) -> str:
        """Why a weight is not fitted; empty where it is."""
        calls = self._calls[weight.sites[0].path]
        if (reason := unread(weight)) or calls == 1:
            return reason
        return f"its layer runs {calls} times in one forward" if calls else "its layer is not called as one"


def _lost_columns(weight: Weight, stays: Tensor) -> bool:
    return weight.kind != "embedding" and not bool(matrices(weight, stays).any(1).all())


def _counts(module: nn.Module) -> bool:
    return isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None


def _recount(norm: nn.Module, inputs: Sequence[Tensor]) -> None:
    """The running statistics as their averages over the inputs."""
    assert isinstance(norm, _NormBase) and norm.num_batches_tracked is not None
    norm.reset_running_stats()
    for count, x in enumerate(inputs, 1):
        nn.functional.batch_norm(x, norm.running_mean, norm.running_var, training=True, momentum=1 / count)
        norm.num_batches_tracked.add_(1)
