"""An exported program as a module to go on with: evaluated, trained, its batch norms measured anew, on other batches."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_flatten_with_path

from secateurs.apply.running import double, largest_difference, outputs, resized, tolerance
from secateurs.errors import BadInput

__all__ = ["as_module", "free_batch"]

_NORMS = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}
_PARTS = ("weight", "bias", "running_mean", "running_var")


def as_module(program: fx.GraphModule) -> None:
    """Make ``program`` a module that can be put in training and evaluation mode, in place.

    Batch norms become modules again, under the names of their tensors, so that training uses and moves their statistics as it
    does in a module of the user's own; so do dropouts. The names in the state dict stay.
    """
    for node in list(program.graph.nodes):
        if node.target is torch.ops.aten.batch_norm.default:
            _norm(program, node)
        elif node.target is torch.ops.aten.dropout.default:
            _dropout(program, node)
    for mode in ("train", "eval"):
        vars(program).pop(mode, None)  # what export puts there raises NotImplementedError
    program.graph.lint()
    program.recompile()
    program.eval()


def free_batch(program: fx.GraphModule, masked: nn.Module, example: Any, seed: int = 0) -> bool:
    """Let ``program`` take other batches than the traced one, if it computes what ``masked`` does on two of them, in float64.

    ``masked`` is the dense model with what leaves at zero. Other dimensions of the inputs are checked at every call.

    Returns:
        Whether it does; otherwise the program is left as it is, and refuses other batches.
    """
    shapes = dict(_shapes(_as_called(example)))
    trial, reference = double(program), double(masked)
    trial.validate_inputs = False  # type: ignore[assignment]
    size = next(iter(shapes.values()))[0]
    for batch in (size + 1, 2 * size):
        if not _agree(trial, reference, resized(example, batch=batch, seed=seed)):
            return False
    program.validate_inputs = False  # type: ignore[assignment]
    program.register_forward_pre_hook(_Sizes(shapes), with_kwargs=True)
    return True


def _as_called(example: Any) -> tuple[Any, Any]:
    """Its positional and keyword arguments, as a hook sees them."""
    if isinstance(example, Mapping):
        return (), dict(example)
    return (tuple(example) if isinstance(example, (tuple, list)) else (example,)), {}


def _agree(ours: nn.Module, theirs: nn.Module, case: Any) -> bool:
    try:
        (mine, fine), (wanted, exact) = outputs(ours, case), outputs(theirs, case)
    except Exception:  # the user's code, or a literal of the program: either takes the traced batch alone
        return False
    return largest_difference(mine, wanted) <= tolerance(fine, exact)


class _Sizes:
    """A hook that refuses inputs whose dimensions, but for the first, are not those of the trace."""

    def __init__(self, shapes: dict[str, tuple[int, ...]]) -> None:
        self.shapes = shapes

    def __call__(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        found = dict(_shapes((args, kwargs)))
        ours, theirs = ({name: shape[1:] for name, shape in sizes.items()} for sizes in (self.shapes, found))
        if ours != theirs:
            raise BadInput(f"an exported program takes batches of {sorted(ours.values())}, as it was traced; found "
                           f"{sorted(theirs.values())}")  # fmt: skip


def _shapes(inputs: Any) -> Iterator[tuple[str, tuple[int, ...]]]:
    leaves, _ = tree_flatten_with_path(inputs)
    for path, leaf in leaves:
        if isinstance(leaf, Tensor) and leaf.ndim:
            yield torch.utils._pytree.keystr(path), tuple(leaf.shape)


def _norm(program: fx.GraphModule, node: fx.Node) -> None:
    """Put a batch norm module where the tensors of ``node`` lie, if it is theirs alone."""
    source, *parts, training, momentum, eps, _ = node.args
    owner = _owner(parts)
    if owner is None or training or not isinstance(node.meta.get("val"), Tensor) or _shared(program, owner, node):
        return
    old = program.get_submodule(owner)
    norm = _NORMS[node.meta["val"].dim()](len(old.running_mean), eps, momentum, affine=parts[0] is not None)  # type: ignore
    for name in (*_PARTS, "num_batches_tracked"):
        if name in old._parameters:
            norm._parameters[name] = old._parameters[name]
        elif name in old._buffers:
            norm._buffers[name] = old._buffers[name]
    path, _, attribute = owner.rpartition(".")
    setattr(program.get_submodule(path), attribute, norm)
    with program.graph.inserting_before(node):
        made = program.graph.call_module(owner, (source,))
    made.meta = node.meta
    _take_over(program, node, made)


def _owner(parts: Any) -> str | None:
    """The module that holds the tensors of a norm under their usual names; None where there is none."""
    targets = [str(part.target) if isinstance(part, fx.Node) and part.op == "get_attr" else None for part in parts]
    paths = {target.rpartition(".")[0] for target in targets if target is not None}
    usual = all(target is None or target.rpartition(".")[2] == name for target, name in zip(targets, _PARTS, strict=True))
    affine = (targets[0] is None) == (targets[1] is None)
    return paths.pop() if len(paths) == 1 and usual and affine and None not in targets[2:] and "" not in paths else None


def _shared(program: fx.GraphModule, owner: str, node: fx.Node) -> bool:
    """Whether something else reads the tensors of ``owner``, or it holds more than they."""
    held = program.get_submodule(owner)
    others = (n for n in program.graph.nodes if n.op in ("get_attr", "call_module") and f"{n.target}.".startswith(f"{owner}."))
    return bool(list(held.children())) or any(set(n.users) - {node} or n.op == "call_module" for n in others)


def _dropout(program: fx.GraphModule, node: fx.Node) -> None:
    source, share, training = operator.itemgetter(0, 1, 2)(node.args)
    if training:
        return
    name = f"_{node.name}"
    program.add_submodule(name, nn.Dropout(share))
    with program.graph.inserting_before(node):
        made = program.graph.call_module(name, (source,))
    made.meta = node.meta
    _take_over(program, node, made)


def _take_over(program: fx.GraphModule, node: fx.Node, made: fx.Node) -> None:
    inputs = [part for part in node.all_input_nodes if part.op == "get_attr"]
    node.replace_all_uses_with(made)
    program.graph.erase_node(node)
    for part in inputs:
        if not part.users:
            program.graph.erase_node(part)
