"""What is left of every dimension of every value of a traced program, and the arguments of its operators by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, fx

__all__ = ["Call", "Places", "shape"]


class Places:
    """Which positions of each dimension remain, for every value of a program.

    ``lookup`` gives, for a node, one list per tensor it returns with, for each dimension, the remaining positions (int64,
    ascending) or None where all do.
    """

    def __init__(self, lookup: Callable[[fx.Node], Sequence[Sequence[Tensor | None]]]) -> None:
        self._lookup = lookup

    def all(self, node: fx.Node) -> Sequence[Sequence[Tensor | None]]:
        """Of each tensor that ``node`` returns, for each dimension."""
        return self._lookup(node)

    def of(self, node: Any, dim: int, output: int = 0) -> Tensor | None:
        """The remaining positions of dimension ``dim`` (negative ones count from the end)."""
        if not isinstance(node, fx.Node):
            return None
        dims = self._lookup(node)[output]
        return dims[dim] if dims else None

    def size(self, node: fx.Node, dim: int, output: int = 0) -> Any:
        """The new size of dimension ``dim``."""
        kept = self.of(node, dim, output)
        return shape(node, output)[dim] if kept is None else len(kept)

    def touched(self, node: Any) -> bool:
        """Whether anything is removed from a tensor of ``node``."""
        return isinstance(node, fx.Node) and any(kept is not None for dims in self._lookup(node) for kept in dims)


def shape(node: fx.Node, output: int = 0) -> Sequence[Any]:
    """The traced shape of a tensor that ``node`` returns."""
    value = node.meta["val"]
    return (value[output] if isinstance(value, (list, tuple)) else value).shape


class Call:
    """The arguments of one operator node by the names its schema gives them."""

    def __init__(self, node: fx.Node) -> None:
        self.node = node
        self.names = [argument.name for argument in node.target._schema.arguments]  # type: ignore[union-attr]
        self.defaults = {a.name: a.default_value for a in node.target._schema.arguments}  # type: ignore[union-attr]

    def __getitem__(self, name: str) -> Any:
        place = self.names.index(name)
        if place < len(self.node.args):
            return self.node.args[place]
        return self.node.kwargs.get(name, self.defaults[name])

    def __setitem__(self, name: str, value: Any) -> None:
        place = self.names.index(name)
        if place < len(self.node.args):
            self.node.update_arg(place, value)
        else:
            self.node.update_kwarg(name, value)
