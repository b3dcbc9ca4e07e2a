"""Wanda: Sun, Liu, Bair & Kolter, "A Simple and Effective Pruning Approach for Large Language Models", ICLR 2024.

A weight is judged by ``|W_ij| ||X_j||_2``, its magnitude times the norm of the input it multiplies, against the others of its
output row. Blocks are pruned one after the other: the norms of a block are those of its dense layers, fed by the pruned
blocks before it. What stays is not updated.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from secateurs.core.cumulative import keep_by_share
from secateurs.core.method import Method
from secateurs.core.structures import PerRow, Structure
from secateurs.errors import BadInput

__all__ = ["Wanda"]


class Wanda(Method):
    """Options.

    ``variant``: ``"per-row"``, every output row loses the same share; ``"alpha"``, of every row the smallest scores until they
    add up to a share alpha of the row's total, one alpha per matrix, so that rows lose unequal numbers and the matrix as many
    weights as it would by rows.
    """

    name = "wanda"
    summary = "smallest |weight| x input norm of every output row, block by block"
    when = "after training"
    needs: ClassVar[tuple[str, ...]] = ("calibration",)
    by_row = True
    paper = "Sun et al., A Simple and Effective Pruning Approach for Large Language Models, ICLR 2024"
    defaults = {"criterion": "wanda", "allocation": "uniform", "schedule": "one-shot", "enforcement": "overwrite"}
    options = {"variant": ("per-row", "alpha")}

    def check(self, structure: Structure) -> None:
        """Sums along a row know no N:M and no blocks."""
        if self.settings["variant"] == "alpha" and not isinstance(structure, PerRow):
            raise BadInput(f"variant='alpha' removes single weights of a row; it does not go with structure={structure.name!r}")

    def choose(self, name: str, scores: Tensor, remove: int) -> Tensor:
        """The lowest of every row, or, for alpha, what lies lowest in the rows' cumulative sums."""
        if self.settings["variant"] == "alpha":
            return keep_by_share(scores, remove, name)[0]
        return super().choose(name, scores, remove)
