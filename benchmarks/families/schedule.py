"""Learning rates as pure functions of the step, so that a resumed run needs no scheduler state."""

from __future__ import annotations

import math

from benchmarks.families.setting import Setting

__all__ = ["learning_rate"]

_WARM = 0.05  # share of the steps with a rising rate


def learning_rate(setting: Setting, step: int) -> float:
    """The rate of the 0-based ``step``.

    Without ``decay``: a linear warm-up over 5 % of the steps, then half a cosine to zero. With ``decay`` = ``{"epoch": e,
    "hold": h, "factor": f}``: constant for ``h`` epochs of ``e`` steps, then divided by ``f`` at the start of every epoch.
    """
    if setting.decay:
        late = step // int(setting.decay["epoch"]) + 1 - int(setting.decay["hold"])
        return setting.lr / setting.decay["factor"] ** max(0, late)
    warm = max(1, round(_WARM * setting.steps))
    if step < warm:
        return setting.lr * (step + 1) / warm
    return setting.lr * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, setting.steps - warm)))
