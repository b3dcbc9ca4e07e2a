"""The traced program over smaller tensors: right wherever its shapes type-check, whatever the user's module looks like."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.passes.fake_tensor_prop import FakeTensorProp

from secateurs.apply.inlining import TYPED_AS, inlined
from secateurs.apply.literals import rewrite_literals
from secateurs.apply.places import Places
from secateurs.errors import BadInput
from secateurs.graph.axes import Dim, leaves
from secateurs.graph.groups import Graph, Keeps

__all__ = ["like", "place", "places", "program_of", "rewrite"]

_CHECKS = (torch.ops.aten._assert_tensor_metadata.default,)  # of shapes and dtypes as traced: they speak of the dense program


def program_of(graph: Graph) -> fx.GraphModule:
    """The traced program, on the tensors of the traced model, taking what that model takes."""
    module = graph.program.module()
    assert isinstance(module, fx.GraphModule)
    while any(inlined(module, node) for node in list(module.graph.nodes)):
        pass  # a region may hold another
    for node in reversed(list(module.graph.nodes)):
        if (node.op == "call_module" and node.target == "_guards_fn") or node.target in _CHECKS:
            module.graph.erase_node(node)
        elif node.op == "get_attr":
            node.meta.setdefault("val", operator.attrgetter(node.target)(module))
    module.delete_all_unused_submodules()
    module.recompile()
    return module


def rewrite(
    graph: Graph, keeps: Keeps, tensors: Mapping[str, Tensor], module: fx.GraphModule | None = None
) -> fx.GraphModule:
    """The program over ``tensors`` (:func:`~secateurs.apply.slicing.slice_tensors` of the traced ones), literals rewritten.

    ``module``, by default a new :func:`program_of` the graph, becomes the result. Every shape of it is checked on fake
    tensors, against the type of its value, before anything runs.

    Raises:
        BadInput: an operator's literals cannot express what remains, or a shape does not fit; names the node.
    """
    module = program_of(graph) if module is None else module
    where = places(graph, keeps)
    rewrite_literals(module, where)
    _replace(module, tensors)
    module.graph.lint()
    module.recompile()
    _check_shapes(module, where)
    return module


def places(graph: Graph, keeps: Keeps) -> Places:
    """Which positions of every dimension of every value of the program remain."""
    signature = graph.program.graph_signature
    lifted = (signature.inputs_to_parameters, signature.inputs_to_buffers, signature.inputs_to_lifted_tensor_constants)
    names = {target: name for table in lifted for name, target in table.items()}
    moving = {graph.axes[name] for name, kept in keeps.items() if kept.shape[-1] < graph[name].size}
    cache: dict[Dim, Tensor | None] = {}

    def one(dim: Dim) -> Tensor | None:
        if dim not in cache:
            cache[dim] = _remaining(graph, dim, keeps) if moving.intersection(leaves(dim)) else None
        return cache[dim]

    def lookup(node: fx.Node) -> Sequence[Sequence[Tensor | None]]:
        name = names.get(str(node.target), node.name) if node.op == "get_attr" else node.meta.get(TYPED_AS, node.name)
        return [[one(dim) for dim in dims] for dims in graph.types.get(name, ())] or [[]]

    return Places(lookup)


def _remaining(graph: Graph, dim: Dim, keeps: Keeps) -> Tensor:
    try:
        return graph.kept(dim, keeps)
    except BadInput:  # its positions differ per index of a parent on another dimension: only their number is known
        return torch.full((graph.length(dim, keeps),), -1)


def place(module: nn.Module, name: str, value: Tensor) -> None:
    """Put ``value`` where the qualified ``name`` says: as a parameter where there was one, else as buffer or plain tensor."""
    path, _, attribute = name.rpartition(".")
    owner = module.get_submodule(path)
    setattr(owner, attribute, like(getattr(owner, attribute), value))


def like(old: Tensor, value: Tensor) -> Tensor:
    """``value`` as a parameter with the settings of ``old``, where that is one; else as it is."""
    if not isinstance(old, nn.Parameter):
        return value
    fresh = nn.Parameter(value, requires_grad=old.requires_grad)
    fresh.__dict__.update(old.__dict__)
    return fresh


def _replace(module: fx.GraphModule, tensors: Mapping[str, Tensor]) -> None:
    """``tensors`` in place of the traced ones, as memory of their own; what was tied is tied."""
    fresh: dict[int, Any] = {}
    for name in dict.fromkeys(str(node.target) for node in module.graph.nodes if node.op == "get_attr"):
        old = operator.attrgetter(name)(module)
        path, _, attribute = name.rpartition(".")
        if id(old) in fresh:
            setattr(module.get_submodule(path), attribute, fresh[id(old)])
        elif name in tensors:
            place(module, name, tensors[name].detach().clone())
            fresh[id(old)] = operator.attrgetter(name)(module)


@torch.no_grad()
def _check_shapes(module: fx.GraphModule, where: Places) -> None:
    """Symbolic sizes are checked at the value they had in the trace, on tensors of their own: they stay symbolic."""
    wanted = {node: _sizes(node, where) for node in module.graph.nodes if node.op == "call_function" and "val" in node.meta}
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    given = {node: node.meta.get("val") for node in module.graph.nodes if node.op == "placeholder"}
    with mode:
        inputs = [_empty(value) for value in given.values()]
    _Check(module, mode, wanted).propagate_dont_convert_inputs(*inputs)
    for node, value in given.items():
        node.meta["val"] = value


def _empty(value: Any) -> Any:
    if not isinstance(value, Tensor):
        return _hint(value)
    return torch.empty([_hint(n) for n in value.shape], dtype=value.dtype, device=value.device)


def _hint(size: Any) -> Any:
    return size.node.hint if isinstance(size, torch.SymInt) else size


def _sizes(node: fx.Node, where: Places) -> list[list[Any]]:
    values = node.meta["val"] if isinstance(node.meta["val"], (list, tuple)) else [node.meta["val"]]
    dims = where.all(node)
    return [[_hint(n) if kept is None else len(kept) for n, kept in zip(value.shape, known, strict=True)] if known else []
            for value, known in zip(values, dims, strict=False) if isinstance(value, Tensor)]  # fmt: skip


class _Check(FakeTensorProp):
    """Fake execution that stops at the first value whose shape is not what its type says."""

    def __init__(self, module: fx.GraphModule, mode: FakeTensorMode, wanted: Mapping[fx.Node, list[list[Any]]]) -> None:
        super().__init__(module, mode)
        self.extra_traceback = False  # an error says where it is, in one line
        self.wanted = wanted

    def run_node(self, n: fx.Node) -> Any:
        """As its parent, with the promise checked."""
        try:
            result = super().run_node(n)
        except (RuntimeError, ValueError, TypeError, IndexError, AssertionError) as error:
            reason = str(error).splitlines()[0]
            raise BadInput(f"the smaller program does not fit at {n.name!r} ({_called(n)}): {reason}") from error
        values = result if isinstance(result, (list, tuple)) else [result]
        for value, sizes in zip(values, self.wanted.get(n, ()), strict=False):
            if sizes and isinstance(value, Tensor) and list(value.shape) != sizes:
                raise BadInput(f"the smaller program gives {tuple(value.shape)} at {n.name!r} ({_called(n)}), "
                               f"its type says {tuple(sizes)}")  # fmt: skip
        return result


def _called(node: fx.Node) -> str:
    return str(node.target) if isinstance(node.target, (str, torch._ops.OpOverload)) else node.target.__name__
