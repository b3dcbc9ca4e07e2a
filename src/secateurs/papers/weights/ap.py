"""AP: "Selective activation" beside another pruner, Liu et al. 2022, "AP: Selective Activation for De-sparsifying Pruned
Neural Networks".

Of the p % of the survivors that go in a round, the other pruner X removes p - q %; the rest are negative weights, those that
moved least while the round trained: a ReLU unit whose negative incoming weights go is active more often.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from secateurs.core.in_rounds import InRounds, RoundEnd
from secateurs.core.option import Number
from secateurs.core.select import cut_mask, find_cut
from secateurs.errors import BadInput
from secateurs.registry import METHODS, find_method

__all__ = ["Ap"]


class Ap(InRounds):
    """Options.

    ``of``: the pruner X, one that ranks weights in one shot or in rounds. ``q``: the share of the survivors, before the cut,
    that goes by movement ``|w_T - w_0|``, w_0 being the round's first value; 0 is X itself. ``sign``: ``"negative"``, or
    ``"positive"``, the control in which no effect is expected. Exactly as many weights go as X alone would remove.

    The published code, read for lack of the paper's own algorithm box, trains twice in a round; here the training that
    scores a round is the first of the next. It ranks batch norms' scales among the weights, counts layers with a bias
    twice, and takes one weight more than q says; here it is the selected weights and exact counts. Weights taken by movement
    are ranked over all layers together and may empty one.
    """

    name = "ap"
    summary = "any pruner in rounds, and negative weights that moved least, so that units fire more"
    paper = "Liu et al., AP: Selective Activation for De-sparsifying Pruned Neural Networks, 2022"
    options = {"of": ("global-magnitude", *(name for name in METHODS if name not in ("global-magnitude", "ap"))),
               "q": Number(0.02, 0.0, 1.0), "sign": ("negative", "positive")}  # fmt: skip
    defaults = {"criterion": "magnitude", "allocation": "global"}
    compares = True

    def __init__(self, options: Mapping[str, Any] | None = None):
        super().__init__(options)
        self._of = find_method(self.settings["of"])()
        if {"training", "calibration"} & set(self._of.needs) or self._of.structures or getattr(self._of, "finds_amount", False):
            raise BadInput(f"option of={self.settings['of']!r} of 'ap': it goes with pruners that rank weights to a given "
                           "amount when a round is over, as 'global-magnitude', 'taylor' and 'lottery'")  # fmt: skip
        chosen = ("criterion", "allocation", "structure")
        self.defaults = {key: value for key, value in self._of.defaults.items() if key in chosen}
        self.criterion, self.choose = self._of.criterion, self._of.choose  # type: ignore[method-assign]
        if isinstance(self._of, InRounds):
            self.rates, self.rewind = self._of.rates, self._of.rewind  # type: ignore[method-assign, misc]

    def cut(self, end: RoundEnd) -> dict[str, Tensor]:
        """X's masks with fewer weights gone, without the negative ones that moved least.

        Raises:
            BadInput: fewer negative weights are left than q asks for.
        """
        masks = end.rank(math.floor(end.kept * self.settings["q"]))
        assert end.remove is not None
        take = end.remove - sum(int((~mask).sum()) for mask in masks.values())
        if take < 1:
            return masks
        moved = [_movement(layer.values, layer.began, masks[layer.name], self.settings["sign"]) for layer in end.layers]
        there = sum(int(torch.isfinite(scores).sum()) for scores in moved)
        if there < take:
            raise BadInput(f"option q={self.settings['q']} of 'ap' takes {take} {self.settings['sign']} weights in this round; "
                           f"beside what {self.settings['of']!r} removes only {there} are left: make q smaller")  # fmt: skip
        cut = find_cut(lambda: moved, take)
        ties, found = cut.ties_kept, {}
        for layer, scores in zip(end.layers, moved, strict=True):
            stays = cut_mask(scores, type(cut)(cut.value, ties))
            ties -= int(((scores == cut.value) & stays).sum())
            found[layer.name] = masks[layer.name] & stays
        return found


def _movement(values: Tensor, began: Tensor | None, kept: Tensor, sign: str) -> Tensor:
    """``|w_T - w_0|`` in float64 where a weight may go, and infinity where it may not."""
    assert began is not None
    candidate = kept & (values < 0 if sign == "negative" else values > 0)
    movement = (values.double() - began.double()).abs()
    return torch.where(candidate, movement, torch.full_like(movement, math.inf))
