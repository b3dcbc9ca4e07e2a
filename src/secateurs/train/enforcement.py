"""How a mask is enforced while a model trains: the three lawful variants.

============================  =======================  =========================  ==================================
variant                       forward uses             gradient at masked entries  a masked weight can return
============================  =======================  =========================  ==================================
``keep`` (GMP's own)          w * m                    0                          with the value it had when masked
``overwrite``                 w (zeroed every step)    as computed                no: a zero is always ranked lowest
``straight-through``          w * m                    as if m were 1             with the value it went on learning
============================  =======================  =========================  ==================================

In ``keep`` a stored value moves only by weight decay and momentum. In ``overwrite`` gradient and momentum may lift a masked
weight inside a step; it is zero again before it is ranked and before the next forward.

In ``keep`` and ``straight-through`` reading ``layer.weight`` gives the product, a new tensor, while attached: edit a weight in
place through ``dict(model.named_parameters())``, not through the layer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from secateurs.core.masks import Masks
from secateurs.errors import BadInput
from secateurs.models import Weight

__all__ = ["ENFORCEMENTS", "Enforcement", "Keep", "MaskCell", "Overwrite", "StraightThrough"]

_CELLS = "_secateurs_cells"
_FLAT = "_secateurs_flat_weights"


class MaskCell:
    """One mask, shared by every place that uses it, tied weights and deep copies (an EMA model) included.

    The mask is updated in place, so compiled code and copies see each update. Its bytes double as numbers: multiplying by a
    ``uint8`` view is several times faster on a CPU than by ``bool``.
    """

    def __init__(self, mask: Tensor):
        self.mask = mask
        self.number = mask.view(torch.uint8)
        #: Whether gradients reach masked entries for now, where they else would not.
        self.open = False

    def set(self, mask: Tensor) -> None:
        """Take over ``mask``."""
        self.mask.copy_(mask)

    def on(self, device: torch.device) -> Tensor:
        """The mask as ``uint8`` on ``device``, moving there for good if the model has moved."""
        if self.number.device != device:
            self.mask = self.mask.to(device)
            self.number = self.mask.view(torch.uint8)
        return self.number

    def __deepcopy__(self, memo: dict[int, Any]) -> MaskCell:
        return self


class Enforcement:
    """The contract; this base does nothing."""

    #: Rank again after every step, not only when the schedule says so.
    restless = False

    def __init__(self, weights: Sequence[Weight], cells: dict[str, MaskCell]):
        self.weights, self.cells = weights, cells

    def masks(self) -> Masks:
        """The masks in force."""
        return Masks({w.name: self.cells[w.name].mask for w in self.weights})

    def check(self) -> None:
        """Raise :class:`BadInput` if :meth:`install` cannot work; it is asked before anything is changed."""

    def install(self) -> None:
        """Begin."""

    def after_step(self) -> None:
        """After every optimizer step, before anything is ranked, and after every change of the masks."""

    def remove(self) -> None:
        """End: every module is as it was, weights untouched."""

    @contextmanager
    def dense_gradients(self) -> Iterator[None]:
        """Inside, gradients are those to ``m * w``, at every entry."""
        for cell in self.cells.values():
            cell.open = True
        try:
            yield
        finally:
            for cell in self.cells.values():
                cell.open = False


class Overwrite(Enforcement):
    """``w <- w * m`` after every step."""

    @torch.no_grad()
    def after_step(self) -> None:
        """Zero the masked weights in place."""
        for weight in self.weights:
            _mask_in_place(weight.parameter, self.cells[weight.name].on(weight.parameter.device))


View = Callable[[Tensor, Tensor], Tensor]  # (values, mask as a number) -> what the forward pass uses
_PART = 1 << 19  # entries


def _masked(values: Tensor, mask: Tensor) -> Tensor:
    return values * mask


def _mask_in_place(values: Tensor, mask: Tensor) -> None:
    """``values *= mask``, part by part on a CPU, where a whole mask would first be turned into floats outside the cache."""
    if values.device.type != "cpu" or not values.is_contiguous():
        values.mul_(mask)
        return
    for part, its in zip(values.view(-1).split(_PART), mask.view(-1).split(_PART), strict=True):
        part.mul_(its)


class _StraightThroughFunction(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(parameter: Tensor, mask: Tensor) -> Tensor:
        return parameter * mask

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        """Nothing is needed for the backward pass."""

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0], None


def _straight_through(values: Tensor, mask: Tensor) -> Tensor:
    return _StraightThroughFunction.apply(values, mask)


class Keep(Enforcement):
    """Forward with ``w * m``; the parameter keeps its values.

    Every module that holds a masked parameter gets a subclass of its class in which the attribute is a property that
    multiplies. Parameters, their names and the state dict do not change, and code that reads ``module.weight`` without
    calling the module (attention, tied heads) sees the masked weight too.
    """

    view: View = staticmethod(_masked)

    def check(self) -> None:
        """No module may be masked already, or insist on the parameter itself."""
        for weight in self.weights:
            for site in weight.sites:
                _refuse(site.module, weight.name)
                _refuse_masked(site.module, weight.name)

    def install(self) -> None:
        """Swap the classes."""
        for weight in self.weights:
            for site in weight.sites:
                site.module.__dict__.setdefault(_CELLS, {})[site.attribute] = self.cells[weight.name]
        for module in self._modules():
            module.__class__ = _masked_class(type(module), tuple(module.__dict__[_CELLS]), self.view)

    def remove(self) -> None:
        """Swap them back."""
        for module in self._modules():
            unmask(module)

    def _modules(self) -> list[nn.Module]:
        return list({id(site.module): site.module for weight in self.weights for site in weight.sites}.values())


class StraightThrough(Keep):
    """As :class:`Keep`, but the gradient passes as if the mask were one, and the masks are ranked after every step."""

    restless = True
    view = staticmethod(_straight_through)


ENFORCEMENTS: dict[str, type[Enforcement]] = {"keep": Keep, "overwrite": Overwrite, "straight-through": StraightThrough}


def unmask(module: nn.Module) -> None:
    """Give one module its own class back; a module that is not masked stays as it is."""
    if getattr(type(module), "_secateurs_masked", False):
        module.__class__ = type(module)._secateurs_base  # type: ignore[attr-defined]
        del module.__dict__[_CELLS]
        if isinstance(module, nn.RNNBase):
            module._flat_weights = [getattr(module, name, None) for name in module._flat_weights_names]


def _refuse(module: nn.Module, name: str) -> None:
    if isinstance(module, (nn.Embedding, nn.EmbeddingBag)) and (module.sparse or module.max_norm is not None):
        raise BadInput(f"{name!r} is an embedding with sparse gradients or max_norm, which needs the parameter itself in the "
                       "forward; use enforcement='overwrite'")  # fmt: skip


def _refuse_masked(module: nn.Module, name: str) -> None:
    if getattr(type(module), "_secateurs_masked", False):
        raise BadInput(f"the layer of {name!r} is masked already: another pruner holds one of its weights, or it is a copy of "
                       "a model being pruned; give one pruner all weights of a layer, or make the copy plain with "
                       "pruner.apply_to(copy)")  # fmt: skip


def _property(attribute: str, view: View) -> property:
    def read(module: nn.Module) -> Tensor:
        parameter: Any = module._parameters[attribute]
        cell: MaskCell = module.__dict__[_CELLS][attribute]
        return _seen(cell, view)(parameter, cell.on(parameter.device))

    return property(read)


def _seen(cell: MaskCell, view: View) -> View:
    return _straight_through if cell.open else view


def _refuse_pickling(module: nn.Module, protocol: Any) -> Any:
    raise BadInput(f"{type(module).__name__} is being pruned and cannot be pickled; save model.state_dict() and "
                   "pruner.state_dict(), or call pruner.finish() first")  # fmt: skip


def _refuse_replicas(module: nn.Module) -> nn.Module:
    raise BadInput(f"torch.nn.DataParallel cannot copy a {type(module).__name__} whose values are kept under the mask; "
                   "use DistributedDataParallel, one process, or enforcement='overwrite'")  # fmt: skip


def _deepcopy(module: nn.Module, memo: dict[int, Any]) -> nn.Module:
    import copy

    twin = type(module).__new__(type(module))
    memo[id(module)] = twin
    twin.__dict__.update({key: copy.deepcopy(value, memo) for key, value in module.__dict__.items()})
    return twin


_classes: dict[tuple[type, tuple[str, ...], View], type] = {}


def _masked_class(base: type, attributes: tuple[str, ...], view: View) -> type:
    """The subclass of ``base`` whose ``attributes`` are masked; one for all modules alike."""
    key = (base, attributes, view)
    if key not in _classes:
        body: dict[str, Any] = {name: _property(name, view) for name in attributes}
        body |= {"_secateurs_masked": True, "_secateurs_base": base, "__module__": base.__module__,
                 "__reduce_ex__": _refuse_pickling, "__deepcopy__": _deepcopy,
                 "_replicate_for_data_parallel": _refuse_replicas}  # fmt: skip
        if issubclass(base, nn.RNNBase):
            body |= _recurrent_body(base)
        if getattr(base, "forward", None) is nn.Embedding.forward and attributes == ("weight",):
            body["forward"] = _embedding_forward(view)
        _classes[key] = type(base.__name__, (base,), body)
    return _classes[key]


def _embedding_forward(view: View) -> Callable[[nn.Embedding, Tensor], Tensor]:
    """Mask the rows that are looked up, where they are fewer than the table has: most of a large vocabulary is not touched."""

    def forward(module: nn.Embedding, ids: Tensor) -> Tensor:
        if ids.numel() >= module.num_embeddings:
            return nn.Embedding.forward(module, ids)
        table: Any = module._parameters["weight"]
        cell: MaskCell = module.__dict__[_CELLS]["weight"]
        rows = nn.functional.embedding(ids, table, module.padding_idx, scale_grad_by_freq=module.scale_grad_by_freq)
        return _seen(cell, view)(rows, nn.functional.embedding(ids, cell.on(table.device)))

    return forward


def _recurrent_body(base: type) -> dict[str, Any]:
    """A recurrent layer reads its weights through the list ``_flat_weights``, several times a forward: multiply once."""

    def listed(module: nn.RNNBase) -> list[Tensor]:
        return [getattr(module, name, None) for name in module._flat_weights_names]  # type: ignore[misc]

    def read(module: nn.RNNBase) -> list[Tensor]:
        return module.__dict__.get(_FLAT) or listed(module)

    def write(module: nn.RNNBase, value: list[Tensor]) -> None:
        """What is listed is always what the attributes say."""

    def forward(module: nn.RNNBase, *args: Any, **kwargs: Any) -> Any:
        module.__dict__[_FLAT] = listed(module)
        try:
            return base.forward(module, *args, **kwargs)  # type: ignore[attr-defined]
        finally:
            del module.__dict__[_FLAT]

    def nothing(module: nn.RNNBase) -> None:
        """The list needs neither repacking nor a check for replaced weights."""

    return {"_flat_weights": property(read, write), "forward": forward,
            "flatten_parameters": nothing, "_update_flat_weights": nothing}  # fmt: skip
