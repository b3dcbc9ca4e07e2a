"""What the layers of a model read on calibration data, as rows of the columns their weights multiply with.

A convolution's input has as many rows as there are places its kernel is laid on. Neighbours hold nearly the same numbers, so a
sample of the places says as much: ``places`` of every image, the same ones wherever a layer's inputs are compared.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from secateurs.measure.mode import device_of, evaluating, to_device
from secateurs.models import Weight, survey
from secateurs.train.walk.columns import columns, reading, unmeasured
from secateurs.train.walk.padding import Tokens
from secateurs.train.walk.replay import Forward, default_forward

__all__ = ["Rows", "calls_of", "gram_matrices", "layers_read", "product", "tokens_in", "unread"]

_ALL = Tokens()
_ROLES = ("linear", "conv", "depthwise-conv")


def layers_read(model: nn.Module) -> dict[str, Weight]:
    """The weights, by name, whose inputs can be measured and whose columns can be fitted: one layer each, not tied."""
    return {weight.name: weight for weight in survey(model).weights if not unread(weight)}


def unread(weight: Weight) -> str:
    """Why the columns of ``weight`` cannot be fitted to its inputs; empty where they can."""
    if reason := unmeasured(weight):
        return reason
    if weight.kind not in _ROLES:
        return f"its kind is {weight.kind!r}: only linear layers and convolutions are fitted"
    return "several layers share it" if len(weight.sites) > 1 else ""


class Rows:
    """The rows a layer reads, one tensor ``[tokens, columns]`` per part of its weight; padding is left out.

    Args:
        weight: of one layer.
        places: of a convolution's places on every image, at most so many, drawn by ``seed``.
        seed: of the draw.
    """

    def __init__(self, weight: Weight, places: int, seed: int):
        self._weight, self._places = weight, places if weight.kind != "linear" else None
        self._seed = seed

    def __call__(self, x: Tensor, tokens: Tokens = _ALL) -> list[Tensor]:
        """Those of an input ``x``."""
        weight, draw = self._weight, None if self._places is None else self._draw
        return [self._flat(part, tokens) for part in columns(weight, weight.sites[0].module, x.detach(), draw)]

    def _draw(self, count: int) -> Tensor:
        generator = torch.Generator().manual_seed(self._seed)
        return torch.randperm(count, generator=generator)[: self._places].sort().values

    def _flat(self, part: Tensor, tokens: Tokens) -> Tensor:
        mask = tokens.mask(part, self._weight.name) if self._places is None else None
        rows = part.reshape(-1, part.shape[-1])
        return rows if mask is None else rows[mask]


def gram_matrices(
    model: nn.Module, weights: Mapping[str, Weight], batches: Iterable[Any], *, places: int = 64, seed: int = 0,
    forward: Forward = default_forward,
) -> dict[str, Tensor]:  # fmt: skip
    """``X^T X`` of the inputs of every layer, float64 ``[parts, columns, columns]``, by name; of those never called none.

    Layers that read one tensor in the same way share the work. The model runs in evaluation mode and is left as it is.
    """
    found: dict[str, Tensor] = {}
    device = device_of(model)
    with evaluating(model):
        for batch in batches:
            once = _Once(found)
            with ExitStack() as stack:
                for name, weight in weights.items():
                    read = Rows(weight, places, seed)
                    hook = once.hook(name, read, tokens_in(model, batch))
                    stack.callback(weight.sites[0].module.register_forward_pre_hook(hook, with_kwargs=True).remove)
                forward(model, to_device(batch, device))
    return found


def tokens_in(model: nn.Module, batch: Any) -> Tokens:
    """Which tokens of a batch are padding, for layers that see hidden states laid out as the attention mask is."""
    mask = batch.get("attention_mask") if isinstance(batch, Mapping) else None
    if not isinstance(mask, Tensor) or mask.dim() != 2 or bool((mask > 0).all()):
        return Tokens()
    return Tokens(own=mask.to(device_of(model)) > 0)


def calls_of(model: nn.Module, run: Callable[[], Any]) -> dict[str, int]:
    """How often ``run`` calls every module of ``model``, by name."""
    found = dict.fromkeys((name for name, _ in model.named_modules()), 0)

    def hook(name: str) -> Callable[..., None]:
        def count(*_: Any) -> None:
            found[name] += 1

        return count

    with ExitStack() as stack:
        for name, module in model.named_modules():
            stack.callback(module.register_forward_pre_hook(hook(name)).remove)
        run()
    return found


class _Once:
    """Adds up products during one forward; an input that several layers read alike is multiplied once."""

    def __init__(self, sums: dict[str, Tensor]):
        self._sums = sums
        self._seen: dict[Hashable, Tensor] = {}
        self._held: list[Tensor] = []  # while the forward runs nothing may be stored where an input was

    def hook(self, name: str, read: Rows, tokens: Tokens) -> Callable[..., None]:
        def add(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            x = next(iter((*args, *kwargs.values())))
            key = (x.data_ptr(), x.shape, x.stride(), x._version, reading(module))
            if key not in self._seen:
                self._seen[key] = torch.stack([product(rows, rows) for rows in read(x, tokens)])
                self._held.append(x)
            self._sums[name] = self._sums[name] + self._seen[key] if name in self._sums else self._seen[key]

        return add


def product(left: Tensor, right: Tensor) -> Tensor:
    """``A^T B`` of rows ``[tokens, a]`` and ``[tokens, b]``, float64; multiplied in float32, or in float64 where they are."""
    return (_wide(left).T @ _wide(right)).double()


def _wide(rows: Tensor) -> Tensor:
    return rows.to(torch.promote_types(rows.dtype, torch.float32))
