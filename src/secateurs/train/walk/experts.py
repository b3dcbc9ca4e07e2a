"""The inputs of stacked experts: what every expert's matrix is multiplied with while their module runs.

Stacked experts multiply inside one forward, so no hook sees an expert's own input. Here every matrix product of that forward
is looked at: where one factor lies in an expert tensor's memory, the other one is that expert's input, and holds the tokens
routed to it and no others.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from secateurs.errors import BadInput
from secateurs.models import Weight

__all__ = ["configurations", "eager_experts", "watch_experts"]

#: (weight, part, input [tokens, columns]) -> nothing
See = Callable[[Weight, int, Tensor], None]

_PRODUCTS = {functional.linear, torch.matmul, Tensor.matmul, Tensor.__matmul__, torch.mm, Tensor.mm, torch.bmm, Tensor.bmm}


class _Products(TorchFunctionMode):
    """Calls ``see`` for every product with one of the watched tensors."""

    def __init__(self, weights: list[Weight], see: See, real: Tensor | None):
        super().__init__()
        self._by_storage = {w.parameter.untyped_storage().data_ptr(): w for w in weights}
        self._see, self._real = see, real
        self.seen: set[str] = set()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in _PRODUCTS:
            given = [*args, *kwargs.values()][:2]
            if len(given) == 2 and all(isinstance(t, Tensor) for t in given):
                self._look(*given)
        return func(*args, **kwargs)

    def _look(self, x: Tensor, factor: Tensor) -> None:
        weight = self._by_storage.get(factor.untyped_storage().data_ptr())
        if weight is None:
            return
        experts, size = weight.shape[0], weight.size // weight.shape[0]
        first = factor.storage_offset() - weight.parameter.storage_offset()
        if factor.dim() == 3 and factor.numel() == weight.size and x.dim() == 3:
            self.seen.add(weight.name)
            for expert in range(experts):
                self._see(weight, expert, self._routed(x[expert], weight.name))
        elif factor.numel() == size and first % size == 0:
            self.seen.add(weight.name)
            self._see(weight, first // size, x.reshape(-1, x.shape[-1]))

    def _routed(self, x: Tensor, name: str) -> Tensor:
        """Of the input of an expert that gets every token, zeros where it is not chosen: the rows of real, chosen tokens."""
        chosen = x.any(-1)
        if self._real is not None:
            if self._real.numel() != x.shape[0]:
                raise _untold(name)
            chosen = chosen & self._real.reshape(-1)
        return x[chosen]


def watch_experts(
    module: nn.Module, forward: Callable[..., Any], weights: list[Weight], see: See, real: Callable[[Tensor], Tensor | None]
) -> Callable[..., Any]:
    """A forward for ``module`` that does what its own does and shows ``see`` the input of every expert.

    Where there is padding, the experts are run once more on the real tokens alone, for them to be seen.

    Args:
        module: the experts.
        forward: its own.
        weights: those of its tensors that are to be watched.
        see: called with the weight, the expert's number and its input ``[tokens, columns]``.
        real: the mask over the tokens of the module's first input, or None.

    Raises:
        BadInput: (by the forward) padding cannot be told from tokens.
    """

    def run(mask: Tensor | None, args: Any, kwargs: Any) -> Any:
        with _Products(weights, see, mask) as products:
            output = forward(*args, **kwargs)
        for weight in weights:
            if weight.name not in products.seen:
                raise BadInput(f"{weight.name!r}: how {type(module).__name__} multiplies with it cannot be seen; exclude it")
        return output

    def watched(*args: Any, **kwargs: Any) -> Any:
        hidden = next(v for v in (*args, *kwargs.values()) if isinstance(v, Tensor))
        if _to_every_expert(hidden, weights[0].shape[0], args, kwargs):
            return run(real(hidden.reshape(weights[0].shape[0], -1, hidden.shape[-1])[0]), args, kwargs)
        mask = real(hidden)
        if mask is None:
            return run(None, args, kwargs)
        if not _token_wise(args, kwargs, mask):
            raise _untold(weights[0].name)
        run(None, _only(args, mask), _only(kwargs, mask))
        return forward(*args, **kwargs)

    return watched


def _to_every_expert(hidden: Tensor, experts: int, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    """Whether the module gets ``[experts x tokens, features]``, every token for every expert, and no routing beside it."""
    return len([v for v in (*args, *kwargs.values()) if v is not None]) == 1 and math.prod(hidden.shape[:-1]) % experts == 0


def _token_wise(args: tuple[Any, ...], kwargs: Mapping[str, Any], mask: Tensor) -> bool:
    tensors = [v for v in (*args, *kwargs.values()) if v is not None]
    return all(isinstance(t, Tensor) and t.dim() and t.shape[0] == mask.numel() for t in tensors)


def _only(values: Any, mask: Tensor) -> Any:
    if isinstance(values, Mapping):
        return {key: value if value is None else value[mask] for key, value in values.items()}
    return [value if value is None else value[mask] for value in values]


def _untold(name: str) -> BadInput:
    return BadInput(f"{name!r}: which tokens of its experts are padding cannot be told; give calibration batches without "
                    "padding")  # fmt: skip


def configurations(model: nn.Module, key: str) -> list[Any]:
    """Every distinct ``config`` of the model's parts that has ``key``."""
    found: list[Any] = [getattr(module, "config", None) for module in model.modules()]
    return list({id(config): config for config in found if hasattr(config, key)}.values())


@contextmanager
def eager_experts(model: nn.Module) -> Iterator[None]:
    """Transformers' experts computed one by one inside, in the plain way that can be watched; as before outside."""
    configs = configurations(model, "_experts_implementation_internal")
    before = [(config, config._experts_implementation_internal) for config in configs]
    try:
        for config in configs:
            config._experts_implementation_internal = "eager"
        yield
    finally:
        for config, was in before:
            config._experts_implementation_internal = was
