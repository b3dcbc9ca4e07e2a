"""RigL: Evci et al., "Rigging the Lottery: Making All Tickets Winners", ICML 2020, arXiv:1911.11134.

A sparse network trains from the first step. Every ``every`` steps up to three quarters of training, the
``f(t) = alpha / 2 (1 + cos(pi t / T_end))`` smallest weights of every layer make way for as many dead ones, those whose
gradient is largest. Such a step exchanges weights instead of updating them.
"""

from __future__ import annotations

import math

from secateurs.core.method import Method
from secateurs.core.option import Number
from secateurs.core.regrow import Regrowth
from secateurs.errors import BadInput

__all__ = ["Rigl", "annealed", "span"]


class Rigl(Method):
    """Options.

    ``share``: alpha, the share of a layer's weights that is exchanged at the beginning. ``until``: T_end as a share of
    training. Layer densities are those of ``allocation`` (``erk``, ``er`` or ``uniform-plus``), their counts exact and
    the same all along. Grown weights begin at zero, and what the optimizer remembered of them is forgotten.
    """

    name = "rigl"
    summary = "sparse from the first step; the smallest weights move to where the gradient is largest"
    when = "during training"
    needs = ("training",)
    paper = "Evci et al., Rigging the Lottery: Making All Tickets Winners, ICML 2020"
    defaults = {"criterion": "random", "allocation": "erk", "schedule": "one-shot", "enforcement": "overwrite", "every": 100}
    options = {"share": Number(0.3, 0, 1), "until": Number(0.75, 0, 1)}

    def regrowth(self, every: int, total_steps: int | None) -> Regrowth | None:
        """A share that falls to nothing, grown by gradient, in the place of the step's update."""
        share, end = self.settings["share"], span(self.name, self.settings["until"], total_steps)
        return Regrowth(lambda step: annealed(share, 0.0, step, end), every, end, replaces_step=True) if share else None


def annealed(first: float, last: float, step: int, end: int) -> float:
    """From ``first`` at step 0 to ``last`` at ``end``, half a cosine."""
    return last + (first - last) / 2 * (1 + math.cos(math.pi * step / end))


def span(name: str, until: float, total_steps: int | None) -> int:
    """The last step of ``until``, a share of training, but never the very last: what is grown there would not train.

    Raises:
        BadInput: ``total_steps`` is not known.
    """
    if total_steps is None:
        raise BadInput(f"{name!r} exchanges weights for a share of training: give total_steps=, the optimizer steps of the run")
    return max(1, min(math.floor(until * total_steps), total_steps - 1))
