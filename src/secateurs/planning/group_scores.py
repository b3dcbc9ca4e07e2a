"""Score the indices of every coupled group by any criterion of single weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from secateurs.core.criteria import Criterion, noise
from secateurs.core.group_scores import NORMALISERS, REDUCTIONS, normalise, reduce_members, slice_sums, table_sums
from secateurs.core.select import check_finite
from secateurs.errors import BadInput, near
from secateurs.graph.groups import Group, Slice

__all__ = ["GroupSupply", "Scoring", "score_groups", "weight_scores"]

#: By tensor name, the statistics a criterion needs of it; None where it cannot be judged, and then it has no say.
GroupSupply = Callable[[str], Mapping[str, Tensor] | None]


@dataclass(frozen=True)
class Scoring:
    """How weights' scores become a group's.

    Attributes:
        criterion: of single weights.
        aggregate: over the members: ``sum``, with which a score is all that goes with an index; ``mean`` (1/J of the sum over
            J tensors, DepGraph's rule), ``max``, ``l2``.
        normalize: inside the group, see :func:`secateurs.core.group_scores.normalise`; ``none`` leaves groups of one kind
            comparable by size, ``mean`` is DepGraph's rule.
        power: to which every score is raised before it is added up; None is 2 for criteria that need no data, which makes the
            magnitude of a group a squared norm, and 1 for others, whose scores are changes of the loss.
        biases: whether biases have a say.
        seed: of random criteria.
        roles: of the members that have a say.
    """

    criterion: Criterion
    aggregate: str = "sum"
    normalize: str = "none"
    power: float | None = None
    biases: bool = False
    seed: int = 0
    roles: tuple[str, ...] = ("out", "in", "norm", "direct")

    def __post_init__(self) -> None:
        for word, value, known in (("aggregate", self.aggregate, REDUCTIONS), ("normalize", self.normalize, NORMALISERS)):
            if value not in known:
                raise BadInput(f"{word}={value!r} is unknown; use one of {', '.join(known)}" + near(value, known))
        if self.power is not None and (isinstance(self.power, bool) or not 0 < self.power < 100):
            raise BadInput(f"power={self.power!r}: give a number above 0; 2 makes squared norms of magnitudes, 1 sums")

    @property
    def exponent(self) -> float:
        """The power in use; ``l2`` is a norm, whatever the criterion."""
        if self.power is not None:
            return self.power
        return 2.0 if self.aggregate == "l2" or not self.criterion.needs else 1.0

    def counts(self, piece: Slice) -> bool:
        """Whether a member has a say; a norm's bias is a bias."""
        bias = piece.role == "bias" or (piece.role == "norm" and piece.tensor.rpartition(".")[2] == "bias")
        return self.biases if bias else piece.role in self.roles


@torch.no_grad()
def score_groups(groups: Sequence[Group], tensors: Mapping[str, Tensor], scoring: Scoring, supply: GroupSupply,
                 parents: Mapping[str, Group] | None = None) -> dict[str, Tensor]:  # fmt: skip
    """The normalised scores by group name: float64 ``[size]``, of a ragged child ``[parents, size]``; higher = keep.

    Args:
        groups: to be scored.
        tensors: the parameters by name; other tensors (buffers) are not judged.
        scoring: the rules.
        supply: what the criterion needs to know of a tensor.
        parents: groups by name, where children's parents are found.

    Raises:
        NotFinite: a score is NaN or infinite.
        BadInput: a statistic is missing, or no member of a group could be judged.
    """
    if scoring.criterion.needs == {"noise"}:  # judges nothing: each index draws its own
        shapes = {group.name: _shape(group, parents or {}) for group in groups}
        return {n: noise(scoring.seed, n, shape, torch.device("cpu")).double() for n, shape in shapes.items()}
    found: dict[str, list[Tensor]] = {group.name: [] for group in groups}
    for name, pieces in _by_tensor(groups, scoring).items():
        known = supply(name) if name in tensors and tensors[name].is_floating_point() else None
        if known is None:
            continue
        scores = weight_scores(name, tensors[name], scoring, known)
        for group, piece in pieces:
            found[group.name].append(_member(scores, group, piece, parents or {}, scoring.exponent))
    return {group.name: _reduced(group, found[group.name], scoring) for group in groups}


def _by_tensor(groups: Iterable[Group], scoring: Scoring) -> dict[str, list[tuple[Group, Slice]]]:
    """The members that count, tensor by tensor: each tensor is judged once."""
    pieces: dict[str, list[tuple[Group, Slice]]] = {}
    for group in groups:
        counted = [piece for piece in group.slices if scoring.counts(piece)]
        for piece in counted or [piece for piece in group.slices if piece.role != "buffer"]:
            pieces.setdefault(piece.tensor, []).append((group, piece))
    return pieces


def weight_scores(name: str, weight: Tensor, scoring: Scoring, known: Mapping[str, Tensor]) -> Tensor:
    """The criterion's score of every entry of a weight; errors as of :func:`score_groups`."""
    missing = sorted(scoring.criterion.needs - {"noise"} - known.keys())
    if missing:
        raise BadInput(f"criterion={scoring.criterion.name!r} needs {missing[0]!r} of {name!r}: give calibration batches")
    extra = {"noise": noise(scoring.seed, name, weight.shape, weight.device)} if "noise" in scoring.criterion.needs else {}
    scores = scoring.criterion.score(weight.detach(), {**known, **extra})
    check_finite(scores, name)
    return scores


def _member(scores: Tensor, group: Group, piece: Slice, parents: Mapping[str, Group], power: float) -> Tensor:
    if group.parent is None:
        return slice_sums(scores, piece.dim, piece.index.to(scores.device), power).cpu()
    rows = next((s for s in parents[group.parent].slices if s.tensor == piece.tensor), None)
    if rows is None:
        raise BadInput(f"{group.name!r} cannot be told apart by {group.parent!r} in {piece.tensor!r}, which does not carry it")
    here = scores.device
    return table_sums(scores, (rows.dim, rows.index.to(here)), (piece.dim, piece.index.to(here)), power).cpu()


def _reduced(group: Group, members: list[Tensor], scoring: Scoring) -> Tensor:
    if not members:
        raise BadInput(f"criterion={scoring.criterion.name!r} can judge no member of {group.name!r}: leave the group out with "
                       "exclude=, or use another criterion")  # fmt: skip
    return normalise(reduce_members(members, scoring.aggregate), scoring.normalize)


def _shape(group: Group, parents: Mapping[str, Group]) -> torch.Size:
    return torch.Size([group.size] if group.parent is None else [parents[group.parent].size, group.size])
