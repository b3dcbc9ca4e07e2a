"""PERP: Zimmer, Andoni, Spiegel & Pokutta, "PERP: Rethinking the Prune-Retrain Paradigm in the Era of LLMs", 2023.

After pruning, a small part of the parameters makes up for what was lost: biases, norms, and low-rank adapters that keep the
zeros. Here the blocks are pruned and reconstructed one after the other, each to give on what the blocks before it give now
what its dense weights give, ``min ||block_pruned(x) - block_dense(x)||^2``. To retrain by the model's own loss instead, prune
by any method and use :class:`secateurs.Retraining`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from secateurs.core.method import Method
from secateurs.core.option import Number
from secateurs.errors import BadInput
from secateurs.train.retraining import ADAPTERS, BlockRetraining, How

__all__ = ["Perp"]


class Perp(Method):
    """Options.

    ``biases``, ``norms``: whether they train, where a block has them. ``adapter``: on every pruned weight, or ``"none"``;
    ``rank``, ``alpha``, ``dropout``: of the adapters (see :mod:`secateurs.train.retraining.adapters`); a weight too small for
    the rank gets none. ``steps`` of AdamW per block, one calibration batch each, with the learning rate ``lr`` at its highest:
    a rise over a tenth of the steps and a linear fall. The loss is the squared output error as a share of the squared output.

    The recipe's criterion says what is pruned: ``magnitude``, ``wanda``, ``gblm``. A block whose error does not fall is left as
    it was pruned, and a lone layer's lone bias is solved, not trained. Differs from the authors' code: exact counts instead of
    a threshold that may take one entry more; the mask is the plan's, not ``W != 0``; the loss is relative, so that one learning
    rate serves blocks of any scale. Cost: per block a dense and three pruned passes over the data and ``steps`` forward and
    backward passes of the block.
    """

    name = "perp"
    summary = "smallest weights of every layer, then each block's norms, biases and adapters relearn its output"
    when = "after training"
    needs = ("calibration",)
    paper = "Zimmer et al., PERP: Rethinking the Prune-Retrain Paradigm in the Era of LLMs, 2023"
    defaults = {"criterion": "magnitude", "allocation": "uniform", "schedule": "one-shot", "enforcement": "overwrite"}
    options = {
        "biases": (True, False), "norms": (True, False), "adapter": (*(name for name in ADAPTERS if name != "lora"), "none"),
        "rank": Number(16, 1, whole=True), "alpha": Number(32), "dropout": Number(0, 0, 0.99),
        "steps": Number(100, 1, whole=True), "lr": Number(5e-4),
    }  # fmt: skip

    def __init__(self, options: Mapping[str, Any] | None = None):
        super().__init__(options)
        if not self._parts and self.settings["adapter"] == "none":
            raise BadInput("'perp' with biases=False, norms=False and adapter='none' trains nothing: leave one of them on")

    def block_retraining(self) -> BlockRetraining:
        """What trains in a block, and for how long."""
        said = self.settings
        adapter = None if said["adapter"] == "none" else said["adapter"]
        how = How(self._parts, adapter, said["rank"], said["alpha"], said["dropout"])
        return BlockRetraining(how, said["steps"], said["lr"])

    @property
    def _parts(self) -> tuple[str, ...]:
        return tuple(part for part in ("biases", "norms") if self.settings[part])
