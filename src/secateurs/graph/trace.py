"""From a model and an example to its groups, by ``torch.export``."""

from __future__ import annotations

import contextlib
import io
import logging
import sys
import traceback
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import fx, nn
from torch.export import ExportedProgram

from secateurs.errors import BadInput
from secateurs.graph.collect import collect
from secateurs.graph.groups import Graph
from secateurs.graph.walk import walk
from secateurs.graph.zeros import freeze_sums

__all__ = ["export", "trace", "unrunnable"]

Example = torch.Tensor | tuple[Any, ...] | list[Any] | Mapping[str, Any]


def trace(model: nn.Module, example: Example, *, dynamic: Any = None) -> Graph:
    """The groups of ``model``: which slices must leave together, and what must stay and why.

    The model is exported in evaluation mode with its operators whole, and every dimension of every value is typed (DepGraph,
    CVPR 2023, and SPA, 2024, propagate indices instead; types make views exact). The model itself is left as it was.

    Args:
        model: Any module that ``torch.export`` takes.
        example: A tensor, a tuple of positional arguments, or a mapping of keyword arguments.
        dynamic: ``dynamic_shapes`` for the export; such dimensions are frozen like all dimensions of inputs.

    Raises:
        BadInput: the model cannot be exported with this example; the message holds the exporter's reason and where it arose.
    """
    program = export(model, example, dynamic=dynamic)
    walked = walk(program, _first_names(model))
    freeze_sums(program, walked)
    return collect(program, walked)


def export(model: nn.Module, example: Example, *, dynamic: Any = None) -> ExportedProgram:
    """``model`` as an exported program in evaluation mode; raises :class:`BadInput` where that fails."""
    if not isinstance(model, nn.Module):
        raise BadInput(f"a {type(model).__name__} cannot be traced: give a torch.nn.Module")
    args, kwargs = _arguments(example)
    with _still(model):
        try:
            with _silent():
                program = torch.export.export(model, args, kwargs, dynamic_shapes=dynamic, strict=False)
        except Exception as error:
            raise BadInput(_why(model, args, kwargs, error)) from error
    for module in program.graph_module.modules():
        if isinstance(module, fx.GraphModule):
            _bury(module)
    return program


def _bury(module: fx.GraphModule) -> None:
    """Drop what nothing returned depends on (the weights an attention averages for nobody): it must not freeze anything."""
    for node in reversed(module.graph.nodes):
        schema = getattr(node.target, "_schema", None)
        writes = schema is not None and schema.is_mutable
        if node.op in ("call_function", "get_attr") and not node.users and not writes and not _nested(node):
            module.graph.erase_node(node)
    module.recompile()


def _nested(node: fx.Node) -> bool:
    """Whether a call runs a graph of its own, which might write."""
    return isinstance(node.target, torch._ops.HigherOrderOperator)


def _why(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], error: Exception) -> str:
    """What went wrong, where, and what would work: the model's own error on this example, or else the exporter's."""
    reason = f"torch.export cannot trace this {type(model).__name__}: {_line(error)}{_where(error)}; {_advice(error)}"
    return _own_error(model, args, kwargs) or reason


def unrunnable(model: nn.Module, example: Example) -> str:
    """Why ``model`` does not run on ``example``, in words, and where; empty where it does."""
    with _still(model):
        return _own_error(model, *_arguments(example))


def _own_error(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    try:
        with torch.no_grad():
            model(*args, **kwargs)
    except Exception as own:
        what = f"this {type(model).__name__} does not run on the example"
        return f"{what}: {_line(own)}{_where(own)}; give the inputs its forward takes"
    return ""


def _advice(error: Exception) -> str:
    if "data-dependent" in str(error):
        return ("values of tensors must not decide which code runs or how long a tensor is, nor be read by item() or float(); "
                "use torch.where")  # fmt: skip
    return ("write that part with torch's own functions, or wrap it in torch.library.custom_op: what such an operator touches "
            "stays whole")  # fmt: skip


def _line(error: Exception) -> str:
    """The first line of a message that says something, not too long."""
    line = next((line.strip() for line in str(error).splitlines() if line.strip()), "no message")
    line = line.partition(" (unhinted: ")[0].rstrip(".")  # of an expression: it is said again
    return f"{type(error).__name__}: {line if len(line) <= 240 else line[:239] + '…'}"


def _where(error: Exception) -> str:
    """The last line outside PyTorch and this package that was running."""
    own = (str(Path(torch.__file__).parent), str(Path(__file__).parents[1]), "<")
    frames = [
        f
        for f in traceback.extract_tb(error.__traceback__)
        if not f.filename.startswith(own) and "contextlib" not in f.filename
    ]
    return f", at {frames[-1].filename}:{frames[-1].lineno}: {frames[-1].line}" if frames else ""


def _arguments(example: Example) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if isinstance(example, torch.Tensor):
        return (example,), {}
    if isinstance(example, Mapping):
        return (), dict(example)
    if isinstance(example, (tuple, list)):
        return tuple(example), {}
    raise BadInput(f"example={example!r} is no tensor, tuple of arguments or mapping of keyword arguments")


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """The exporter prints the half-made graph of what fails, which says nothing that the error does not; else as it was."""
    symbols, said = logging.getLogger("torch.fx.experimental.symbolic_shapes"), io.StringIO()
    level = symbols.level
    symbols.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stderr(said):
            yield
        sys.stderr.write(said.getvalue())
    finally:
        symbols.setLevel(level)


@contextlib.contextmanager
def _still(model: nn.Module) -> Iterator[None]:
    """Evaluation mode, without fused fast paths or a returned cache, and everything as before afterwards."""
    training = [module for module in model.modules() if module.training]
    held: list[Any] = [getattr(module, "config", None) for module in model.modules()]
    configs = {id(config): config for config in held if getattr(config, "use_cache", None) is True}
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    model.eval()
    try:
        for config in configs.values():
            config.use_cache = False  # a cache that is returned would keep every key and value as long as it is
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The tensor attribute.*assigned during export")  # views a recurrent layer keeps
            yield
    finally:
        for config in configs.values():
            config.use_cache = True
        torch.backends.mha.set_fastpath_enabled(fast)
        for module in training:
            module.training = True


def _first_names(model: nn.Module) -> dict[str, str]:
    """Further name -> first name, of every tensor the model holds under several names."""
    first: dict[int, str] = {}
    named = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    return {name: first.setdefault(id(tensor), name) for name, tensor in named}
