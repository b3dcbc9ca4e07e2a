"""Singh & Alistarh, "WoodFisher: Efficient Second-Order Approximation for Neural Network Compression", NeurIPS 2020.

Of the dampened empirical Fisher matrix ``F = lambda I + (1/N) sum of g_n g_n^T`` blocks along the diagonal are inverted.
Weights go by the optimal-brain-surgeon statistic ``w_q^2 / (2 [F^-1]_qq)``, and those that stay are given
``dw = -F^-1 (w / diag(F^-1))`` over the removed, which makes up for them.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from secateurs.core.criteria import Criterion, find_criterion
from secateurs.core.fisher import Estimate
from secateurs.core.method import Known, Method
from secateurs.core.option import Number

__all__ = ["WoodFisher", "geometric"]


class WoodFisher(Method):
    """In one shot (``sc.prune``, with ``calibration=``), or while the network trains (``sc.Pruner``, with ``data=`` and
    ``schedule="cubic"``), F being estimated anew at every update.

    Options. ``gradients``: N. ``samples``: m, the examples of whose mean loss a gradient is taken. ``block``: c, the
    consecutive weights of a tensor that share a block; 1 is OBD, 0 one block for the whole network. ``damping``: lambda.
    ``compensation``: ``"sum"`` of what each removal alone would ask for, as published; ``"exact"``, the best update for all of
    a block's removals together; or ``"none"``. ``scale`` multiplies the update. ``recompute``: how many times F is estimated
    on the way to an amount, the density falling by the same factor each time.

    Layers are ranked together; ``allocation="uniform"`` ranks inside each. The statistic of the official code is
    ``w^2 / ([F^-1]_qq + 1e-10)``, twice this one, and its masks keep what is above a percentile; here counts are exact.
    """

    name = "woodfisher"
    summary = "smallest w^2 / [inverse Fisher]_qq of the whole network; the weights that stay are updated"
    when = "after training"
    needs = ("gradient", "labels", "batches")
    paper = "Singh & Alistarh, WoodFisher: Efficient Second-Order Approximation for Neural Network Compression, NeurIPS 2020"
    defaults = {"criterion": "obs", "allocation": "global", "schedule": "one-shot", "enforcement": "overwrite"}
    options = {
        "gradients": Number(400, 1, whole=True),
        "samples": Number(1, 1, whole=True),
        "block": Number(2000, 0, whole=True),
        "damping": Number(1e-5, 1e-12),
        "compensation": ("sum", "exact", "none"),
        "scale": Number(1.0),
        "recompute": Number(1, 1, whole=True),
    }

    def criterion(self, name: str) -> Criterion:
        """The statistic with this method's estimate of F; another criterion as it is."""
        said = {key: self.settings[key] for key in ("gradients", "samples", "block", "damping")}
        return find_criterion(name, **said) if name == "obs" else find_criterion(name)

    def path(self, now: float, target: float) -> list[float]:
        """As many amounts as F is estimated for."""
        return geometric(now, target, self.settings["recompute"])

    def compensate(self, values: Mapping[str, Tensor], masks: Mapping[str, Tensor], known: Known) -> Mapping[str, Tensor]:
        """The weights with the update added."""
        how = self.settings["compensation"]
        if how == "none":
            return {}
        estimate = Estimate(*(self.settings[key] for key in ("gradients", "samples", "block", "damping")))
        inverse = known(next(iter(values)))["fisher"].whole(estimate)
        return inverse.compensated(values, masks, exact=how == "exact", scale=self.settings["scale"])


def geometric(now: float, target: float, steps: int) -> list[float]:
    """``steps`` sparsities from ``now`` to ``target``, the last, between which the density falls by one and the same factor.

    >>> geometric(0.0, 0.75, 2)
    [0.5, 0.75]
    """
    first, last = 1 - now, 1 - target
    return [1 - first ** (1 - i / steps) * last ** (i / steps) for i in range(1, steps)] + [target]
