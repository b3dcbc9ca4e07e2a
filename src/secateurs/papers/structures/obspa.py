"""OBSPA: Wang et al., "Structurally Prune Anything: Any Architecture, Any Framework, Any Time", 2024.

Optimal brain surgery on coupled structures, without fine-tuning. With ``H = X X^T + lambda I`` of a consumer's inputs, index k
of a group costs ``S_k = sum over consumers of tr(W_c [(H^-1)_cc]^-1 W_c^T)``, the least increase of the layers' squared output
error when the columns ``c`` of k go and the other columns are refitted. What costs least, relative to its group's mean, goes,
and then every layer that has lost columns is refitted, in the order in which the network runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from secateurs.core.criteria import Criterion, Statistics, find_criterion
from secateurs.core.method import Method
from secateurs.core.option import Number
from secateurs.core.reconstruct import block_costs, damped, inverse
from secateurs.errors import BadInput

__all__ = ["Obspa"]


class Obspa(Method):
    """Options.

    ``dampening``: ``lambda`` as a share of H's mean diagonal, in the costs and in the fit.
    ``inputs``: ``"pruned"``, a layer is fitted to what it reads in the pruned network; ``"dense"``, to what it read before.
    ``layers``: ``"cut"``, those that lost columns; ``"all"``, every linear layer and convolution behind the first cut.
    ``source``: ``"data"``, calibration data like the network's own or other; ``"noise"``, random inputs, made here where none
    are given: batch norms then keep their old statistics, since those of noise are further off, but have those of the noise
    while layers are judged and fitted, which so read numbers of the size and spread that they would of data.
    ``count``: how many random inputs are made.
    ``places``: of an image, at most so many of a convolution's places are looked at.

    Norms, depthwise convolutions, embeddings and recurrent layers are cut and not fitted. The paper's dampening and the inputs
    it fits to are not known to us; nor whether its batch norms are measured anew.
    """

    name = "obspa"
    summary = "the structures whose consumers' outputs can do without them, and consumers refitted in closed form"
    prunes = ("channels", "heads", "neurons")
    structures = ("channels", "heads", "neurons")
    when = "after training"
    needs = ("calibration",)
    paper = "Wang et al., Structurally Prune Anything: Any Architecture, Any Framework, Any Time, 2024"
    defaults = {"criterion": "obspa", "normalize": "mean", "scope": "global", "least": 0.1, "recovery": "reconstruct"}
    options = {"dampening": Number(0.01), "inputs": ("pruned", "dense"), "layers": ("cut", "all"), "source": ("data", "noise"),
               "count": Number(512, 1, whole=True), "places": Number(64, 1, whole=True)}  # fmt: skip

    def criterion(self, name: str) -> Criterion:
        """The costs of blocks of columns; another criterion has no use for the options."""
        if name != self.name:
            return find_criterion(name)
        return Criterion(name, frozenset({"gram"}), _single, partial(costs, dampening=self.settings["dampening"]))

    def reconstruction(self) -> Mapping[str, Any]:
        """Noise says nothing of the statistics that data has."""
        same = {name: self.settings[name] for name in ("dampening", "inputs", "layers", "places")}
        return {**same, "norms": self.settings["source"] == "data"}

    def made_up(self) -> int:
        """Random inputs where they are asked for."""
        return int(self.settings["count"]) if self.settings["source"] == "noise" else 0


def costs(matrix: Tensor, gram: Tensor, blocks: Tensor, dampening: float = 0.01) -> Tensor:
    """``tr(W_c [(H^-1)_cc]^-1 W_c^T)`` of every block, ``[size]``, in float64.

    A layer whose inputs were all zero loses nothing with any of its columns.
    """
    if not torch.count_nonzero(gram):
        return torch.zeros(len(blocks), dtype=torch.float64, device=gram.device)
    return block_costs(matrix.double(), inverse(damped(gram.double(), dampening)), blocks)


def _single(weight: Tensor, statistics: Statistics) -> Tensor:
    raise BadInput("criterion='obspa' judges blocks of a layer's columns: name structures, as in structures=['channels']")
