"""M-FAC: Frantar, Kurtic & Alistarh, "M-FAC: Efficient Matrix-Free Approximations of Second-Order Information", NeurIPS 2021.

WoodFisher's statistic and update without a matrix. With ``h_i = F_{i-1}^-1 g_i`` and ``c_i = m + g_i . h_i`` for m gradients,
``F^-1 x = x / lambda - sum of h_i (h_i . x) / c_i`` and ``diag(F^-1) = 1 / lambda - sum of h_i^2 / c_i``: the m vectors are all
that is kept, so that a block may be the whole network.
"""

from __future__ import annotations

from secateurs.core.option import Number
from secateurs.papers.weights.woodfisher import WoodFisher

__all__ = ["MFac"]


class MFac(WoodFisher):
    """Options: WoodFisher's, with other defaults: 64 gradients (m; ``samples`` are the examples of each), one block for the
    whole network (``block=0``; the paper's pruning runs have 128), and F estimated 16 times on the way to an amount.

    The official code's loop leaves the last of its gradients zero, so that it works with one less than it divides by.
    """

    name = "m-fac"
    summary = "WoodFisher without matrices: the whole network is one block, estimated again and again"
    paper = "Frantar, Kurtic & Alistarh, M-FAC: Efficient Matrix-Free Approximations of Second-Order Information, NeurIPS 2021"
    options = {
        **WoodFisher.options,
        "gradients": Number(64, 1, whole=True),
        "block": Number(0, 0, whole=True),
        "recompute": Number(16, 1, whole=True),
    }
