"""Sparsity-informed adaptive pruning: Diao et al., "Pruning Deep Neural Networks from a Sparsity Perspective", ICLR 2023.

After each round of training the PQ index I of a group of d surviving weights says how many must stay,
``r = d (1 + eta)^(-q/(q-p)) (1 - I)^(pq/(q-p))``; the ``c = floor(d min(gamma (1 - r/d), beta))`` smallest magnitudes of the
group go, and the survivors go back to their initial values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from secateurs.core.in_rounds import InRounds, RoundEnd, Survivors
from secateurs.core.option import Number
from secateurs.core.pq_index import PQ, index_of_rows
from secateurs.core.select import check_finite

__all__ = ["Sap", "begins_to_rise"]


class Sap(InRounds):
    """How much goes is found in the weights, so no sparsity is asked for.

    ``scope``: the entries of an output ``"neuron"``, a ``"layer"``, or all together (``"global"``) are a group. ``p`` < ``q``
    are the norms; larger ``eta``, ``gamma`` remove more, ``beta`` is the largest share of a group's survivors to go in a
    round. ``stop="rise"`` ends the rounds when the mean index has begun to rise after falling, the paper's sign that the
    limit of compressibility is near. The report's ``pq_index`` is the mean over groups, each weighted with its survivors.

    Against the published code: that rounds r up to an integer first; groups that are empty or hold one entry lose nothing
    in both.
    """

    name = "sap"
    summary = "smallest weights in rounds of training, as many as their PQ index allows"
    paper = "Diao et al., Pruning Deep Neural Networks from a Sparsity Perspective, ICLR 2023"
    defaults = {"criterion": "magnitude", "allocation": "uniform"}
    options = {"scope": ("neuron", "layer", "global"), "p": Number(0.5), "q": Number(1.0), "eta": Number(0.0),
               "gamma": Number(1.0), "beta": Number(0.9, 0.0, 1.0), "stop": ("never", "rise")}  # fmt: skip
    finds_amount = True

    def __init__(self, options: Mapping[str, Any] | None = None):
        super().__init__(options)
        self._pq = PQ(self.settings["p"], self.settings["q"])
        self._trajectory: list[float] = []

    def cut(self, end: RoundEnd) -> dict[str, Tensor] | None:
        """Masks without what the index lets go; None where nothing goes any more, or the index has begun to rise."""
        for layer in end.layers:
            check_finite(layer.values, layer.name)
        groups = [_Group(layers, self.settings["scope"]) for layers in self._ranked_together(end.layers)]
        found = [index_of_rows(group.sizes, group.kept, self._pq) for group in groups]
        weight = sum(float(group.left.sum()) for group in groups)
        mean = sum(float((index * group.left).sum()) for group, index in zip(groups, found, strict=True)) / max(weight, 1)
        self._trajectory.append(mean)
        if self.settings["stop"] == "rise" and begins_to_rise(self._trajectory):
            return None
        masks: dict[str, Tensor] = {}
        for group, index in zip(groups, found, strict=True):
            masks |= group.without([self._removed(int(d), i) for d, i in zip(group.left, index.tolist(), strict=True)])
        return masks if any(not torch.equal(masks[layer.name], layer.kept) for layer in end.layers) else None

    def _removed(self, d: int, index: float) -> int:
        return self._pq.removed(d, index, self.settings["eta"], self.settings["gamma"], self.settings["beta"])

    def _ranked_together(self, layers: Sequence[Survivors]) -> list[list[Survivors]]:
        return [list(layers)] if self.settings["scope"] == "global" else [[layer] for layer in layers]

    def told(self) -> Mapping[str, Any]:
        """The index of this round."""
        return {"pq_index": self._trajectory[-1]}

    def state_dict(self) -> dict[str, Any]:
        """The index of every round so far."""
        return {"trajectory": list(self._trajectory)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back the trajectory."""
        self._trajectory = [float(value) for value in state["trajectory"]]


class _Group:
    """Layers as rows of entries that are ranked against each other: ``[rows, entries]``."""

    def __init__(self, layers: list[Survivors], scope: str):
        self._layers, self._scope = layers, scope
        self.sizes = torch.cat([self._rows(layer, layer.values.abs().double()) for layer in layers], 1)
        self.kept = torch.cat([self._rows(layer, layer.kept) for layer in layers], 1)
        self.left = self.kept.sum(1)

    def _rows(self, layer: Survivors, values: Tensor) -> Tensor:
        if self._scope != "neuron":
            return values.reshape(1, -1)
        return values.movedim(layer.layout.out_dim, 0).flatten(1)

    def without(self, remove: list[int]) -> dict[str, Tensor]:
        """The layers' masks when the ``remove`` smallest survivors of every row have gone; the lower of equal ones stays."""
        order = torch.where(self.kept, self.sizes, torch.full_like(self.sizes, -1)).argsort(dim=1, descending=True, stable=True)
        stay = self.left - torch.tensor(remove, device=self.left.device)
        places = torch.arange(self.kept.shape[1], device=self.kept.device)
        kept = torch.zeros_like(self.kept).scatter_(1, order, places < stay[:, None])
        parts = kept.split([self._rows(layer, layer.kept).shape[1] for layer in self._layers], 1)
        return {layer.name: self._shaped(layer, part) for layer, part in zip(self._layers, parts, strict=True)}

    def _shaped(self, layer: Survivors, rows: Tensor) -> Tensor:
        if self._scope != "neuron":
            return rows.reshape(layer.kept.shape)
        moved = layer.kept.movedim(layer.layout.out_dim, 0).shape
        return rows.reshape(moved).movedim(0, layer.layout.out_dim).contiguous()


def begins_to_rise(trajectory: Sequence[float]) -> bool:
    """Whether the last value is above the one before, and an earlier one was above that: down, then up."""
    return len(trajectory) > 2 and trajectory[-1] > trajectory[-2] and max(trajectory[:-2]) > trajectory[-2]
