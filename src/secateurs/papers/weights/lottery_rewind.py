"""Stabilised lottery tickets: Frankle et al., "Stabilizing the Lottery Ticket Hypothesis", 2019, arXiv:1903.01611."""

from __future__ import annotations

from secateurs.core.in_rounds import InRounds

__all__ = ["LotteryRewind"]


class LotteryRewind(InRounds):
    """As ``lottery``, but survivors are set back to the values of step k, a little into training: ``W_k``.

    Masks come from one ranking of ``|W_T|`` over all layers. ``rewind`` says k, 5 % of training unless it is said; k = 0 with
    the same allocation is ``lottery`` to the bit. A round goes on at step k with the learning rate, the data order, the
    random state and the momentum of that step, so that a round without a mask repeats the dense training to the bit. The
    published code keeps the weights alone and begins each level with a new optimizer: ``restart=True``.
    """

    name = "lottery-rewind"
    summary = "smallest weights in rounds of training, survivors set back to an early step"
    paper = "Frankle et al., Stabilizing the Lottery Ticket Hypothesis, 2019"
    defaults = {"criterion": "magnitude", "allocation": "global"}
    rewind = 0.05
