"""SparseGPT: Frantar & Alistarh, "Massive Language Models Can Be Accurately Pruned in One-Shot", ICML 2023.

Every layer is a least-squares problem: remove weights so that its outputs on the calibration tokens change least. Columns
are taken from left to right, and what each loses is made up for by those to its right, through the factor of the Hessian
``X^T X``. Which weights of a block of columns go is decided when its turn comes, by ``w^2 / U_jj^2`` as updated until then.
Blocks of the model are pruned one after the other, each fed by the pruned ones before it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from secateurs.core.count import largest_remainder
from secateurs.core.layer import Layer, Solution
from secateurs.core.method import Method
from secateurs.core.obs import Blockwise, Fixed, Groups, Rule, Solved, solve
from secateurs.core.obs_factor import Factor, factorise
from secateurs.core.option import Number
from secateurs.core.structures import NM, Element, Structure
from secateurs.errors import BadInput

__all__ = ["SparseGpt"]

_ROWS = 256  # of which the reported error is that of: all of a layer's would cost as much as solving it


class SparseGpt(Method):
    """Options.

    ``dampening``: share of the Hessian's mean diagonal that is added to it; a Hessian without a Cholesky factor stops with the
    layer's name, unless ``increase_dampening`` allows ten times as much, up to 1. ``block``: columns judged together.
    ``quantize``: round what stays to 4 or 8 bits in the same sweep, min-max per row, so that one update makes up for both.
    ``mask``: ``"updated"``, as published, or ``"criterion"``, the weights that the recipe's criterion removes from every layer
    as a whole. That criterion (Wanda's, unless told) also serves allocations that look at scores.
    """

    name = "sparsegpt"
    summary = "weights whose loss the others of their row make up for best, which are updated, block by block"
    when = "after training"
    needs = ("calibration",)
    measures = ("gram",)
    paper = "Frantar & Alistarh, SparseGPT: Massive Language Models Can Be Accurately Pruned in One-Shot, ICML 2023"
    defaults = {"criterion": "wanda", "allocation": "uniform", "schedule": "one-shot", "enforcement": "overwrite"}
    options = {
        "dampening": Number(0.01), "increase_dampening": (False, True), "block": Number(128, 1, whole=True),
        "quantize": ("none", "int8", "int4"), "mask": ("updated", "criterion"),
    }  # fmt: skip

    def check(self, structure: Structure) -> None:
        """Single weights of a layer, or N:M."""
        if not isinstance(structure, (Element, NM)):
            row = structure.name == "element"
            raise BadInput(f"'sparsegpt' ranks single weights by blocks of columns, or N:M; it does not go with "
                           f"{'allocation' if row else 'structure'}={'per-row' if row else structure.name!r}")  # fmt: skip

    def solve(self, layer: Layer) -> Solution:
        """Every matrix by itself, its mask and the weights that stay."""
        order = None if self.settings["mask"] == "criterion" else _order(layer)
        matrices = layer.matrices if order is None else layer.matrices[..., order]
        factors = self._factors(layer, order)
        solved = [solve(w, f, rule, bits=self._bits, name=layer.name)
                  for w, f, rule in zip(matrices, factors, self._rules(layer), strict=True)]  # fmt: skip
        facts = {"error": _error(matrices, factors, solved), "dampening": max(f.dampening for f in factors)}
        kept, values = torch.stack([s.mask for s in solved]), torch.stack([s.weight for s in solved])
        if order is not None:
            kept, values = kept[..., order.argsort()], values[..., order.argsort()]
        return Solution(kept, values, facts)

    @property
    def _bits(self) -> int | None:
        return {"none": None, "int8": 8, "int4": 4}[self.settings["quantize"]]

    def _factors(self, layer: Layer, order: Tensor | None) -> list[Factor]:
        """One per matrix, of the columns in ``order``, shared by all layers that read the same input."""
        found: dict[str, Any] = layer.shared
        if "factors" not in found:
            share, increase = self.settings["dampening"], self.settings["increase_dampening"]
            grams = (gram if order is None else gram[order][:, order] for gram in layer.measured["gram"])
            found["factors"] = [
                factorise(gram, share, name=layer.name, increase=increase, overwrite=not increase) for gram in grams
            ]
        return list(found["factors"])

    def _rules(self, layer: Layer) -> list[Rule]:
        """Which weights of every matrix go."""
        parts, rows, columns = layer.matrices.shape
        width = self.settings["block"]
        if self.settings["mask"] == "criterion":
            return [Fixed(mask, width) for mask in layer.kept()]
        if isinstance(layer.structure, NM):
            return [Groups(layer.structure)] * parts
        shares = largest_remainder([layer.remove / parts] * parts, layer.remove, [rows * columns] * parts)
        return [Blockwise.of((rows, columns), share, width) for share in shares]


def _order(layer: Layer) -> Tensor | None:
    """The columns of a convolution tap by tap, where N:M groups channels at one tap; None where they lie right already."""
    if layer.taps == 1 or not isinstance(layer.structure, NM):
        return None
    channels = layer.matrices.shape[-1] // layer.taps
    if channels % layer.structure.m:
        raise BadInput(f"{layer.name!r} is a convolution of {channels} input channels with {layer.taps} taps: 'sparsegpt' pads "
                       f"no group of structure={layer.structure.name!r} at every tap; exclude it")  # fmt: skip
    return torch.arange(channels * layer.taps, device=layer.matrices.device).view(channels, layer.taps).T.flatten()


def _error(matrices: Tensor, factors: list[Factor], solved: list[Solved]) -> float:
    """Squared output error as a share of the squared output, by the dampened Hessian; of up to 256 rows of every matrix."""
    rows = torch.linspace(0, matrices.shape[1] - 1, min(_ROWS, matrices.shape[1]), device=matrices.device).long()
    lost = sum(float(s.errors[rows].sum(dtype=torch.float64)) for s in solved)
    outputs = ((w[rows].to(f.unit.dtype) @ f.unit) * f.scale for w, f in zip(matrices, factors, strict=True))
    whole = sum(float(y.double().square().sum()) for y in outputs)
    return lost / whole if whole else 0.0
