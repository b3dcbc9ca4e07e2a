"""How often one forward call of a layer uses each entry of its weights: one small rule per kind of layer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

__all__ = ["Work", "rule_of"]


@dataclass(frozen=True)
class Work:
    """What one call did: ``(weight, uses of each entry)`` pairs, and multiply-adds that involve no weight."""

    weights: tuple[tuple[Tensor, int], ...] = ()
    weightless: int = 0


Rule = Callable[[Any, tuple[Any, ...], dict[str, Any], Any], Work]  # (module, inputs, named inputs, output)


def rule_of(module: nn.Module) -> Rule | None:
    """The rule for this layer, or None: the first entry of the table it is an instance of."""
    for kinds, rule in _RULES:
        if isinstance(module, kinds):
            return rule
    # GPT-2's linear layer, stored [in, out], known by name so that transformers need not be imported
    return _conv1d if type(module).__name__ == "Conv1D" and type(module).__module__.startswith("transformers.") else None


def _linear(module: nn.Linear, inputs: tuple[Any, ...], named: dict[str, Any], output: Tensor) -> Work:
    return Work(((module.weight, output.numel() // module.weight.shape[0]),))


def _conv1d(module: Any, inputs: tuple[Any, ...], named: dict[str, Any], output: Tensor) -> Work:
    return Work(((module.weight, output.numel() // module.weight.shape[1]),))


def _convolution(module: Any, inputs: tuple[Any, ...], named: dict[str, Any], output: Tensor) -> Work:
    return Work(((module.weight, output.numel() // module.out_channels),))  # once per output position, padding included


def _transposed(module: Any, inputs: tuple[Any, ...], named: dict[str, Any], output: Tensor) -> Work:
    return Work(((module.weight, _first(inputs, named).numel() // module.in_channels),))  # once per input position


def _lookup(module: Any, inputs: tuple[Any, ...], named: dict[str, Any], output: Tensor) -> Work:
    return Work(((module.weight, 0),))  # rows are read, nothing is multiplied


def _recurrent(module: nn.RNNBase, inputs: tuple[Any, ...], named: dict[str, Any], output: Any) -> Work:
    sequence = _first(inputs, named)
    sequence = sequence.data if isinstance(sequence, PackedSequence) else sequence
    tokens = sequence.numel() // module.input_size
    names = [name for name, _ in module.named_parameters(recurse=False) if name.startswith("weight")]
    return Work(tuple((getattr(module, name), tokens) for name in names))


def _cell(module: nn.RNNCellBase, inputs: tuple[Any, ...], named: dict[str, Any], output: Any) -> Work:
    tokens = _first(inputs, named).numel() // module.input_size
    return Work(((module.weight_ih, tokens), (module.weight_hh, tokens)))


def _attention(module: nn.MultiheadAttention, inputs: tuple[Any, ...], named: dict[str, Any], output: Any) -> Work:
    query, key = (*inputs, *(named[name] for name in ("query", "key") if name in named))[:2]
    asked, held = query.numel() // module.embed_dim, key.numel() // module.kdim  # tokens of the whole batch
    if module.in_proj_weight is not None:
        projections = torch.chunk(module.in_proj_weight, 3)
    else:
        projections = (module.q_proj_weight, module.k_proj_weight, module.v_proj_weight)
    weights = (*zip(projections, (asked, held, held), strict=True), (module.out_proj.weight, asked))
    batch = 1 if key.dim() == 2 else key.shape[0 if module.batch_first else 1]
    length = held // batch + (module.bias_k is not None) + module.add_zero_attn
    return Work(weights, weightless=2 * asked * length * module.embed_dim)  # scores, then the weighted sum of values


def _first(inputs: tuple[Any, ...], named: dict[str, Any]) -> Any:
    return inputs[0] if inputs else next(iter(named.values()))


_RULES: tuple[tuple[tuple[type[nn.Module], ...], Rule], ...] = (
    ((nn.Linear, nn.Bilinear), _linear),
    ((nn.Conv1d, nn.Conv2d, nn.Conv3d), _convolution),
    ((nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d), _transposed),
    ((nn.Embedding, nn.EmbeddingBag), _lookup),
    ((nn.RNNBase,), _recurrent),
    ((nn.RNNCellBase,), _cell),
    ((nn.MultiheadAttention,), _attention),
)
