"""Parameters, bytes and multiply-adds as exact functions of what every group keeps, from the graph alone."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from secateurs.core.polynomial import Polynomial, product, total
from secateurs.errors import BadInput
from secateurs.graph.groups import Group, Slice

__all__ = ["Cost", "Costs", "dimension_lengths", "tensor_entries", "tensors_of"]


@dataclass(frozen=True)
class Cost:
    """Entries of all parameters, multiply-adds of one forward pass on the example, bytes of all stored tensors."""

    parameters: int
    multiply_adds: int
    bytes: int


@dataclass(frozen=True)
class Costs:
    """The same as functions of kept counts by group name; ``whole`` is what every group keeps when nothing goes."""

    parameters: Polynomial
    multiply_adds: Polynomial
    bytes: Polynomial
    whole: Mapping[str, int]

    def __call__(self, kept: Mapping[str, int] | None = None) -> Cost:
        """The costs where the groups named keep so many and the others everything."""
        counts = {**self.whole, **(kept or {})}
        return Cost(self.parameters(counts), self.multiply_adds(counts), self.bytes(counts))

    @classmethod
    def of(cls, model: nn.Module, groups: Sequence[Group], multiply_adds: Polynomial) -> Costs:
        """Count ``model``'s tensors, tied ones once; ``groups`` are those that may lose something."""
        entries = tensor_entries(tensors_of(model), groups)
        parameters = {name for name, _ in model.named_parameters()}
        return cls(
            total(entries[name] for name in entries if name in parameters),
            multiply_adds,
            total(entries[name] * Polynomial.constant(t.element_size()) for name, t in tensors_of(model).items()),
            {group.name: group.size for group in groups},
        )


def tensors_of(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and stored buffers by their first name, each tensor once."""
    stored = model.state_dict(keep_vars=True).keys()
    buffers = {name: buffer for name, buffer in model.named_buffers() if name in stored}
    return {**dict(model.named_parameters()), **buffers}


def tensor_entries(tensors: Mapping[str, Tensor], groups: Iterable[Group]) -> dict[str, Polynomial]:
    """How many entries every tensor has, as a function of kept counts."""
    carried: dict[tuple[str, int], list[tuple[Group, Slice]]] = {}
    for group in groups:
        for piece in group.slices:
            carried.setdefault((piece.tensor, piece.dim), []).append((group, piece))
    return {
        name: product(dimension_lengths(length, carried.get((name, dim), ())) for dim, length in enumerate(tensor.shape))
        for name, tensor in tensors.items()
    }


def dimension_lengths(length: int, pieces: Sequence[tuple[Group, Slice]]) -> Polynomial:
    """The length of a dimension of ``length`` positions that carries ``pieces``.

    Positions that carry the same groups (heads and head dimensions, say) are a product of them, repeated: so many positions
    divided by the groups' sizes, times what the groups keep.

    Raises:
        BadInput: they are not.
    """
    if not pieces:  # as in a dimension without positions, of tokens that a configuration leaves out
        return Polynomial.constant(length)
    names = list(dict.fromkeys(group.name for group, _ in pieces))
    sizes = {group.name: group.size for group, _ in pieces}
    carries = torch.zeros(length, len(names), dtype=torch.bool)
    for group, piece in pieces:
        carries[piece.index.reshape(-1), names.index(group.name)] = True
    segments, counts = torch.unique(carries, dim=0, return_counts=True)
    carried = [[name for name, here in zip(names, row, strict=True) if here] for row in segments.tolist()]
    return total(_segment(mine, count, sizes) for mine, count in zip(carried, counts.tolist(), strict=True))


def _segment(groups: Sequence[str], positions: int, sizes: Mapping[str, int]) -> Polynomial:
    combinations = math.prod(sizes[name] for name in groups)
    if positions % combinations:
        raise BadInput(f"{positions} positions do not hold {' x '.join(groups)} equally often: the groups are not whole")
    return product([Polynomial.constant(positions // combinations), *map(Polynomial.of, groups)])
