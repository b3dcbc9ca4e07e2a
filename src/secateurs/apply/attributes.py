"""Sizes that modules keep beside their tensors, set anew after a cut.

Layers of torch say in their documentation what each attribute means, so theirs are set from the shapes. What a user's module
remembers (``num_heads``, ``head_dim``) is read off the traced shapes of the values it computes: an attribute of old size 12,
where a dimension of 12 became 8, becomes 8. That is a proposal only; a proposal counts once the outputs were compared.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import fx, nn

from secateurs.apply.inlining import TYPED_AS
from secateurs.apply.literals import blocks
from secateurs.apply.places import Places, shape
from secateurs.graph.axes import Axis
from secateurs.graph.groups import Graph

__all__ = ["PROPOSALS", "Sizes", "groups_left", "propose", "set_layers", "sizes_seen"]

Sizes = Mapping[str, Mapping[int, frozenset[tuple[int, str]]]]
"""Path of a module -> old size -> what dimensions of it became in the values the module computes: new size, kind of group."""

_NAMED = re.compile(r"heads?$|n_head|head_dim|head_size|num_key_value|kv_heads|embed_dim|hidden_size|all_head|inner_dim|dim$|"
                    r"_dim_|d_model|d_inner|n_embd|_size$|width|channels|features|groups$|n_rep|planes")  # fmt: skip
_KINDS = (
    (re.compile(r"head_dim|head_size|d_kv|key_value_proj_dim|dim_head"), ("head-dims",)),
    (re.compile(r"heads?$"), ("heads", "kv-heads")),
)
_NOT_WIDTHS = re.compile(
    r"kernel|stride|dilation|window|patch|image|vocab|batch|position|layer|depth|max_|num_embeddings|chunk"
)


def sizes_seen(graph: Graph, program: fx.GraphModule, places: Places, model: nn.Module) -> Sizes:
    """What became of each size, by module: from the values each module and its children compute."""
    seen: dict[str, dict[int, set[tuple[int, str]]]] = {}
    known = {path for path, _ in model.named_modules()}
    kinds = {graph.axes[group.name]: group.kind for group in graph.groups if group.name in graph.axes}
    for node in program.graph.nodes:
        stack = [path for path, _ in (node.meta.get("nn_module_stack") or {}).values() if path in known]
        for path in dict.fromkeys(stack[-2:]):
            for old, new in _pairs(node, places, graph, kinds):
                seen.setdefault(path, {}).setdefault(old, set()).add(new)
    return {path: {old: frozenset(new) for old, new in pairs.items()} for path, pairs in seen.items()}


def _pairs(node: fx.Node, places: Places, graph: Graph, kinds: Mapping[Axis, str]) -> Iterator[tuple[int, tuple[int, str]]]:
    types = graph.types.get(node.meta.get(TYPED_AS, node.name), ())
    for output, (dims, row) in enumerate(zip(places.all(node), types, strict=False)):
        for dim, (kept, kind) in enumerate(zip(dims, row, strict=True)):
            old = shape(node, output)[dim]
            if isinstance(old, int):
                yield old, (old if kept is None else len(kept), kinds.get(kind, "") if isinstance(kind, Axis) else "")


def _linear(layer: Any) -> None:
    layer.out_features, layer.in_features = layer.weight.shape


def _bilinear(layer: Any) -> None:
    layer.out_features, layer.in1_features, layer.in2_features = layer.weight.shape


def _embedding(layer: Any) -> None:
    layer.num_embeddings, layer.embedding_dim = layer.weight.shape


def _batch_norm(layer: Any) -> None:
    tensor = layer.weight if layer.weight is not None else layer.running_mean
    if tensor is not None:
        layer.num_features = len(tensor)


def _shape_norm(layer: Any) -> None:
    if layer.weight is not None:
        layer.normalized_shape = tuple(layer.weight.shape)


def _recurrent(layer: Any) -> None:
    layer.input_size = layer.weight_ih_l0.shape[1]
    layer.hidden_size = layer.weight_ih_l0.shape[0] // {"LSTM": 4, "GRU": 3}.get(layer.mode, 1)
    if layer.proj_size:
        layer.proj_size = layer.weight_hr_l0.shape[0]


def _cell(layer: Any) -> None:
    layer.input_size, layer.hidden_size = layer.weight_ih.shape[1], layer.weight_hh.shape[1]


def _prelu(layer: Any) -> None:
    layer.num_parameters = len(layer.weight)


def _transposed_linear(layer: Any) -> None:
    layer.nx, layer.nf = layer.weight.shape


def _is_conv1d(layer: nn.Module) -> bool:
    """Whether it is the transposed linear layer of transformers."""
    return type(layer).__name__ == "Conv1D" and hasattr(layer, "nf") and hasattr(layer, "nx")


_LAYERS: tuple[tuple[type | tuple[type, ...], Callable[[Any], None]], ...] = (
    (nn.Linear, _linear),
    (nn.Bilinear, _bilinear),
    ((nn.Embedding, nn.EmbeddingBag), _embedding),
    ((nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm), _batch_norm),
    ((nn.LayerNorm, nn.RMSNorm), _shape_norm),
    (nn.RNNBase, _recurrent),
    (nn.modules.rnn.RNNCellBase, _cell),
    (nn.PReLU, _prelu),
)


def set_layers(model: nn.Module, groups: Mapping[str, int]) -> None:
    """Set what torch's own layers (and transformers' ``Conv1D``) remember of their shapes; ``groups``: :func:`groups_left`."""
    for path, layer in model.named_modules():
        for kinds, set_ in _LAYERS:
            if isinstance(layer, kinds):
                set_(layer)
        if _is_conv1d(layer):
            _transposed_linear(layer)
        if isinstance(layer, nn.modules.conv._ConvNd):
            _convolution(layer, groups.get(f"{path}.weight".removeprefix("."), layer.groups))
        if isinstance(layer, nn.GroupNorm) and path in groups:
            layer.num_groups = groups[path]
            layer.num_channels = len(layer.weight) if layer.weight is not None else layer.num_channels


def _convolution(layer: Any, groups: int) -> None:
    first, second = layer.weight.shape[:2]
    layer.groups = groups
    layer.in_channels, layer.out_channels = (first, second * groups) if layer.transposed else (second * groups, first)


def groups_left(program: fx.GraphModule, places: Places) -> dict[str, int]:
    """How many groups are left in each grouped convolution (by the name of its weight) and group norm (by its path)."""
    return dict(_groups(program, places))


def _groups(program: fx.GraphModule, places: Places) -> Iterator[tuple[str, int]]:
    for node in program.graph.nodes:
        if node.op != "call_function" or not hasattr(node.target, "_schema"):
            continue
        arguments = {a.name: i for i, a in enumerate(node.target._schema.arguments)}
        if "groups" in arguments and "weight" in arguments and len(node.args) > arguments["groups"]:
            old = node.args[arguments["groups"]]
            weight = node.args[arguments["weight"]]
            turned = "transpose" in str(node.target)
            channels = places.size(node, 1) if turned else places.size(node.args[0], 1)
            yield str(weight.target), old if old == 1 else channels // places.size(weight, 1)
        elif "num_groups" in arguments:
            stack = list((node.meta.get("nn_module_stack") or {}).values())
            kept, old = places.of(node.args[0], 1), node.args[arguments["num_groups"]]
            if stack:
                yield stack[-1][0], old if kept is None else blocks(kept, shape(node.args[0])[1], old, node.name)


def propose(model: nn.Module, seen: Sizes, accept: Callable[[str], bool], changed: bool = True) -> dict[str, dict[str, Any]]:
    """Set attributes of users' modules as :data:`PROPOSALS` say: ``{path: {attribute: its old value}}`` of what was set.

    Where a size is both kept and changed in one module, ``changed`` chooses which of the two is proposed.
    """
    done: dict[str, dict[str, Any]] = {}
    for path, module in model.named_modules():
        pairs = seen.get(path)
        if pairs is None or type(module).__module__.startswith("torch.nn.modules") or _is_conv1d(module):
            continue
        for attribute, value in list(vars(module).items()):
            if attribute.startswith("_") or not accept(attribute):
                continue
            new = _new_value(attribute, value, pairs, changed)
            if new is not None and new != value:
                setattr(module, attribute, new)
                done.setdefault(path, {})[attribute] = value
    return done


def _new_value(attribute: str, value: Any, pairs: Mapping[int, frozenset[tuple[int, str]]], changed: bool) -> Any:
    if type(value) is int:
        seen = pairs.get(value, frozenset())
        meant = next((kinds for name, kinds in _KINDS if name.search(attribute)), ())
        options = {new for new, kind in seen if kind in meant} or {new for new, _ in seen}
        moved = options - {value}
        return next(iter(moved)) if len(moved) == 1 and (changed or value not in options) else None
    if type(value) in (tuple, list) and value and all(type(item) is int for item in value):
        items = [_new_value(attribute, item, pairs, changed) for item in value]
        return type(value)(item if new is None else new for item, new in zip(value, items, strict=True))
    return None


def _named(attribute: str) -> bool:
    return bool(_NAMED.search(attribute)) and not _NOT_WIDTHS.search(attribute)


def _any(attribute: str) -> bool:
    return True


def _none(attribute: str) -> bool:
    return False


PROPOSALS: tuple[tuple[Callable[[str], bool], bool], ...] = ((_named, True), (_named, False), (_any, True), (_none, True))
"""What is tried, in order, until the outputs agree: which attributes, and what is chosen where a size went both ways."""
