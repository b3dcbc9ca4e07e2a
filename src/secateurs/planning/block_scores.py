"""Score the indices of coupled groups by what their consumers lose: blocks of columns, judged by the inputs they multiply with.

An index that goes takes columns out of every layer that reads it. The rows that produce it have no cost of their own: what
they compute is not wanted any more (SPA, 2024; Frantar & Alistarh 2022, section 4).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from secateurs.core.group_scores import normalise, reduce_members
from secateurs.core.reconstruct import columns_of
from secateurs.core.select import check_finite
from secateurs.errors import BadInput
from secateurs.graph.groups import Group, Slice
from secateurs.planning.group_scores import GroupSupply, Scoring

__all__ = ["consumers", "score_blocks"]


def consumers(groups: Iterable[Group]) -> set[str]:
    """The tensors of which some dimension is read by a layer."""
    return {piece.tensor for group in groups for piece in group.slices if piece.role == "in"}


@torch.no_grad()
def score_blocks(groups: Sequence[Group], tensors: Mapping[str, Tensor], scoring: Scoring, supply: GroupSupply,
                 parents: Mapping[str, Group] | None = None) -> dict[str, Tensor]:  # fmt: skip
    """The normalised scores by group name: float64 ``[size]``, of a ragged child ``[parents, size]``; higher = keep.

    Args:
        groups: to be scored.
        tensors: the parameters by name.
        scoring: of a criterion that judges blocks; ``aggregate`` goes over the consumers.
        supply: ``gram`` ``[parts, in, in]`` of a consumer's inputs, a part per group of a convolution; None for a tensor that
            no such layer holds, which then has no say.
        parents: groups by name, where children's parents are found.

    Raises:
        NotFinite: a score is NaN or infinite.
        BadInput: a group has no consumer that could be judged.
    """
    found: dict[str, list[Tensor]] = {group.name: [] for group in groups}
    for group in groups:
        for piece in group.slices:
            known = supply(piece.tensor) if piece.role == "in" and piece.tensor in tensors else None
            if known is not None:
                parent = (parents or {})[group.parent] if group.parent is not None else None
                member = _member(tensors[piece.tensor], known["gram"], piece, parent, scoring)
                check_finite(member, piece.tensor)
                found[group.name].append(member.cpu())
    return {group.name: _reduced(group, found[group.name], scoring) for group in groups}


def _member(weight: Tensor, gram: Tensor, piece: Slice, parent: Group | None, scoring: Scoring) -> Tensor:
    """``[size]``, or ``[parents, size]``: what every block of columns of one consumer costs, added up over its parts."""
    judge = scoring.criterion.blocks
    assert judge is not None  # who calls this has looked
    parts, width = gram.shape[:2]
    matrices = weight.detach().movedim(piece.dim, 1).reshape(parts, -1, width)
    area = width // weight.shape[piece.dim]
    above = [s for s in parent.slices if s.tensor == piece.tensor] if parent is not None else []
    if parent is None:
        blocks = columns_of(piece.index, area).to(gram.device)
        return torch.stack([judge(m, g, blocks) for m, g in zip(matrices, gram, strict=True)]).sum(0).double()
    if not above:
        raise BadInput(f"{piece.tensor!r} does not carry {parent.name!r}, by whose index this group's may differ")
    if above[0].dim == piece.dim:
        index = _inside(piece, above[0])
        blocks = columns_of(index.flatten(0, 1), area).to(gram.device)
        return judge(matrices[0], gram[0], blocks).double().view(index.shape[:2])
    if parent.size != parts:
        raise BadInput(f"the {parts} parts of {piece.tensor!r} are not the {parent.size} of {parent.name!r}")
    blocks = columns_of(piece.index, area).to(gram.device)
    return torch.stack([judge(m, g, blocks) for m, g in zip(matrices, gram, strict=True)]).double()


def _inside(child: Slice, parent: Slice) -> Tensor:
    """int64 ``[parents, size, per]``: the positions of every index of the child inside every index of its parent."""
    rows = [[mine[torch.isin(mine, own)] for mine in child.index] for own in parent.index]
    return torch.stack([torch.stack(row) for row in rows])


def _reduced(group: Group, members: list[Tensor], scoring: Scoring) -> Tensor:
    if not members:
        raise BadInput(f"criterion={scoring.criterion.name!r} judges the layers that read {group.name!r}, and none is a linear "
                       "layer or a convolution of its own: leave it out with exclude=, or use another criterion")  # fmt: skip
    return normalise(reduce_members(members, scoring.aggregate), scoring.normalize)
