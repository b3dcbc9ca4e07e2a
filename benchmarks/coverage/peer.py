"""Torch-Pruning as shipped, on one architecture: what its own examples set, and nothing written for the architecture.

Its examples ignore the classifier, name the heads of every projection of queries, keys and values (whole heads go), and
afterwards correct the attributes of attention modules by hand; the same is done here by the usual names. A model passes where
it runs on its example with at least 3 % of the parameters gone (30 % of a tenth); whether what is left is the same function is
not asked.
"""

from __future__ import annotations

import importlib.metadata
import time
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.coverage.apart import Row, one_line
from benchmarks.coverage.architectures import listed
from benchmarks.coverage.entry import Entry, Example, called

__all__ = ["measure"]

RATIO, LEAST = 0.3, 0.03
_COUNTS = ("num_attention_heads", "num_heads", "n_heads", "n_head", "heads", "num_key_value_heads")
_SHARED = ("k_proj", "v_proj")
_PROJECTIONS = ("q_proj", "k_proj", "v_proj", "query", "key", "value", "q", "k", "v", "qkv", "qkv_proj", "query_key_value",
                "q_lin", "k_lin", "v_lin", "c_attn", "Wqkv")  # fmt: skip


def measure(name: str) -> Row:
    """The row of one architecture: ``status`` done or failed, the share of parameters gone, or the reason."""
    entry = next(entry for entry in listed() if entry.name == name)
    row = {"run": name, "tool": f"torch-pruning {importlib.metadata.version('torch-pruning')}", "ratio": RATIO}
    began = time.process_time()
    try:
        gone = _pruned(entry)
    except Exception as error:
        return {**row, "status": "failed", "reason": one_line(error), "seconds": round(time.process_time() - began, 2)}
    row |= {"removed": round(gone, 4), "seconds": round(time.process_time() - began, 2)}
    if gone < LEAST:
        return {**row, "status": "failed", "reason": f"removed {gone:.2%} of the parameters"}
    return {**row, "status": "done"}


def _pruned(entry: Entry) -> float:
    """The share of the parameters that went; raises what Torch-Pruning or the pruned model raises."""
    import torch_pruning as tp

    model = entry.build()
    example = entry.example(model)
    before = _size(model)
    heads = _heads(model)
    pruner = tp.pruner.MagnitudePruner(
        model, dict(example) if isinstance(example, dict) else example[0], importance=tp.importance.MagnitudeImportance(p=2),
        pruning_ratio=RATIO, ignored_layers=_last(model, example), num_heads=heads, prune_num_heads=True, prune_head_dims=False,
        head_pruning_ratio=RATIO,
    )  # fmt: skip
    pruner.step()
    _correct(model, pruner)
    with torch.no_grad():
        called(model, example)
    return 1 - _size(model) / before


def _size(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _heads(model: nn.Module) -> dict[nn.Module, int]:
    """The head count of every projection, from the module it lies in."""
    found: dict[nn.Module, int] = {}
    for module in model.modules():
        count = next((getattr(module, name) for name in _COUNTS if isinstance(getattr(module, name, None), int)), None)
        if count is None and hasattr(module, "config"):
            count = getattr(module.config, "num_attention_heads", None)
        shared = getattr(getattr(module, "config", None), "num_key_value_heads", None) or count
        for name, child in module.named_children():
            if isinstance(child, nn.Linear) and name in _PROJECTIONS and isinstance(count, int):
                found[child] = shared if name in _SHARED else count
    return found


def _correct(model: nn.Module, pruner: Any) -> None:
    """Set the counts and widths that attention modules remember, as the examples do for the models they show."""
    for module in model.modules():
        for name, child in module.named_children():
            if child in pruner.num_heads and name in ("q_proj", "query", "q", "qkv", "q_lin"):
                count = pruner.num_heads[child]
                for attribute in _COUNTS[:-1]:
                    if isinstance(getattr(module, attribute, None), int):
                        setattr(module, attribute, count)
                for attribute in ("all_head_size", "embed_dim", "hidden_size"):
                    if isinstance(getattr(module, attribute, None), int):
                        setattr(module, attribute, child.out_features)


def _last(model: nn.Module, example: Example) -> list[nn.Module]:
    """The layers whose outputs the model gives back: its classifier, head or tail."""
    made: list[tuple[nn.Module, Tensor]] = []
    kinds = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.ConvTranspose2d)
    layers = [module for module in model.modules() if isinstance(module, kinds)]
    hooks = [layer.register_forward_hook(lambda module, inputs, output: made.append((module, output))) for layer in layers]
    with torch.no_grad():
        output = called(model, example)
    for hook in hooks:
        hook.remove()
    outputs = [value for value in torch.utils._pytree.tree_leaves(output) if isinstance(value, Tensor)]
    last = [module for module, value in made if any(value.data_ptr() == out.data_ptr() for out in outputs)]
    return last or [made[-1][0]]
