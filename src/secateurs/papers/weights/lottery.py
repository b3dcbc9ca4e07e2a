"""Lottery tickets: Frankle & Carbin, "The Lottery Ticket Hypothesis", ICLR 2019, arXiv:1803.03635.

Train, remove ``p = 1 - (1 - P)^(1/n)`` of the surviving weights of every layer, smallest ``|w|`` first, set the survivors back
to their initial values, and again, n times; what is left and its initial values are the ticket.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from secateurs.core.in_rounds import InRounds
from secateurs.core.option import Number

__all__ = ["Lottery"]


class Lottery(InRounds):
    """Iterative magnitude pruning with rewinding to the initial weights, biases, norms and running statistics.

    The paper ranks inside layers (LeNet, Conv-2/4/6), or all convolutions together (``allocation="global"``), and leaves
    ResNets' classifiers dense (``exclude=``). ``output`` is the output layer's rate as a share of the others', 0.5 in the
    paper for LeNet and Conv; it is 1 here, so that the sparsity asked for is that of all selected weights. With another rate
    the layer counts by itself, as an override does.

    Against the published code: that keeps ``|w|`` above the value at the cut, so one weight more goes per ranking; here
    counts are ``floor(s N + 1/2)`` of a layer's N for the cumulative share s.
    """

    name = "lottery"
    summary = "smallest weights in rounds of training, survivors set back to their first values"
    paper = "Frankle & Carbin, The Lottery Ticket Hypothesis: Finding Sparse, Trainable Neural Networks, ICLR 2019"
    defaults = {"criterion": "magnitude", "allocation": "uniform"}
    options = {"output": Number(1.0, 0.0, 1.0)}

    def rates(self, names: Sequence[str]) -> Mapping[str, float]:
        """The last layer's, where it has one of its own."""
        return {} if self.settings["output"] == 1 else {names[-1]: float(self.settings["output"])}
