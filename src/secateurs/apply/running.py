"""Running models side by side: in double precision, on the example and on random inputs like it."""

from __future__ import annotations

import copy
import operator
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from secateurs.apply.rewriting import place
from secateurs.errors import BadInput

__all__ = ["double", "largest_difference", "outputs", "resized", "tolerance"]

_LOW = (torch.float32, torch.float16, torch.bfloat16)
EXACT, COARSE = 1e-9, 1e-4


def double(model: nn.Module) -> nn.Module:
    """A copy of ``model`` that computes in float64; a traced program does so even where it was written in another precision."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch's own, about copying a traced program
        twin = copy.deepcopy(model)
    for module in twin.modules():
        if isinstance(module, nn.RMSNorm) and module.eps is None and module.weight is not None:
            module.eps = torch.finfo(module.weight.dtype).eps  # the default follows the precision
    twin = twin.double()
    if isinstance(twin, fx.GraphModule):
        _double_graph(twin)
        with suppress(NotImplementedError):  # a program as torch.export made it has no modes
            twin.eval()
        return twin
    return twin.eval()


def _double_graph(module: fx.GraphModule) -> None:
    for node in module.graph.nodes:
        if node.op == "get_attr":
            value = operator.attrgetter(node.target)(module)
            if isinstance(value, Tensor) and value.dtype in _LOW:
                place(module, node.target, value.double())
        elif node.op == "call_function":
            if node.target is torch.ops.aten.rms_norm.default and len(node.args) < 4 and "eps" not in node.kwargs:
                node.update_kwarg("eps", torch.finfo(node.meta["val"].dtype).eps)
            node.args = fx.node.map_aggregate(node.args, _wide)
            node.kwargs = fx.node.map_aggregate(node.kwargs, _wide)
    module.recompile()


def _wide(value: Any) -> Any:
    if isinstance(value, torch.dtype):
        return torch.float64 if value in _LOW else torch.complex128 if value == torch.complex64 else value
    return value


def _wants_experts(func: Any, args: Any) -> bool:
    return getattr(func, "_schema", None) is not None and func._schema.name == "aten::_grouped_mm" and (
        args[0].dtype == torch.float64 and args[0].ndim == 2 and args[1].ndim == 3
    )  # fmt: skip


def _experts(rows: Tensor, weights: Tensor, offs: Tensor, bias: Tensor | None = None, out_dtype: Any = None) -> Tensor:
    """``aten::_grouped_mm``, which has no float64: rows up to each of ``offs`` times the matrix of their expert."""
    ends = offs.tolist()
    parts = [rows[a:b] @ weight for a, b, weight in zip([0, *ends], ends, weights, strict=False)]
    rest = rows.new_zeros(len(rows) - ends[-1], weights.shape[-1])
    return torch.cat([*parts, rest]) if bias is None else torch.cat([*parts, rest]) + bias


class _Precision(TorchDispatchMode):
    """Computes in float64 what the model would convert to less, and notes where that did not work."""

    low = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        args, kwargs = tree_map(_wide, args), tree_map(_wide, kwargs or {})
        out = _experts(*args, **kwargs) if _wants_experts(func, args) else func(*args, **kwargs)
        self.low = self.low or any(isinstance(t, Tensor) and t.dtype in _LOW for t in tree_leaves(out))
        return out


@torch.no_grad()
def outputs(model: nn.Module, example: Any) -> tuple[list[Tensor], bool]:
    """The tensors ``model`` (from :func:`double`) returns on ``example``, and whether all was computed in float64.

    ``example`` is a tensor, a tuple of arguments or a mapping of them; its floating-point tensors are made float64.
    """
    example = tree_map(lambda t: t.double() if isinstance(t, Tensor) and t.dtype in _LOW else t, example)
    with _default_double(), _same_draws(), _Precision() as seen:
        if isinstance(example, Mapping):
            out = model(**example)
        else:
            out = model(*example) if isinstance(example, (tuple, list)) else model(example)
    tensors = [t for t in tree_leaves(out) if isinstance(t, Tensor)]
    if not tensors:
        raise BadInput(f"the model's output, a {type(out).__name__}, holds no tensors to compare")
    return tensors, not seen.low


@contextmanager
def _same_draws() -> Iterator[None]:
    """A model that draws random numbers (which patches to mask) draws the same at every call."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


@contextmanager
def _default_double() -> Iterator[None]:
    was = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(was)


def tolerance(*exact: bool) -> float:
    """The largest difference allowed, relative to the largest output.

    1e-9 where every operation was in float64, 1e-4 where the model insists on less.
    """
    return EXACT if all(exact) else COARSE


def largest_difference(ours: list[Tensor], theirs: list[Tensor]) -> float:
    """The largest absolute difference over the largest absolute output (at least 1); infinite where shapes differ.

    Equal infinities (masked logits) and NaN in both differ by nothing.
    """
    if [t.shape for t in ours] != [t.shape for t in theirs]:
        return float("inf")
    worst, scale = 0.0, 1.0
    for a, b in zip(ours, theirs, strict=True):
        if not a.numel():
            continue
        if not a.is_floating_point():
            worst = max(worst, float((a != b).sum()))
            continue
        same = (a == b) | (a.isnan() & b.isnan())
        gap = torch.where(same, torch.zeros((), dtype=torch.float64), (a.double() - b.double()).abs())
        worst = max(worst, float("inf") if not bool(gap.isfinite().all()) else float(gap.max()))
        finite = b.double()[b.isfinite()]
        scale = max(scale, float(finite.abs().max()) if finite.numel() else 1.0)
    return worst / scale


def resized(example: Any, batch: int | None = None, stretch: Mapping[int, int] | None = None, seed: int = 0) -> Any:
    """Random inputs like ``example``: standard normal where it is floating point, between its extremes where it is whole.

    ``batch`` is the new size of dimension 0 where it is that of the first tensor; ``stretch`` maps old sizes of the other
    dimensions to new ones, in every tensor.
    """
    first = next((t for t in tree_leaves(example) if isinstance(t, Tensor) and t.ndim), None)
    if first is None:
        raise BadInput("the example holds no tensor")
    generator = torch.Generator().manual_seed(seed)
    return tree_map(lambda t: _like(t, len(first), batch, stretch or {}, generator) if isinstance(t, Tensor) else t, example)


def _like(tensor: Tensor, old: int, batch: int | None, stretch: Mapping[int, int], generator: torch.Generator) -> Tensor:
    sizes = [stretch.get(n, n) for n in tensor.shape[1:]]
    if tensor.ndim:
        sizes.insert(0, batch if batch is not None and len(tensor) == old else len(tensor))
    if tensor.is_floating_point():
        return torch.randn(sizes, generator=generator, dtype=torch.float64).to(tensor.device)
    if tensor.dtype == torch.bool or not tensor.numel():
        return torch.ones(sizes, dtype=tensor.dtype, device=tensor.device)
    low, high = int(tensor.min()), int(tensor.max())
    return torch.randint(low, high + 1, sizes, generator=generator).to(tensor)
