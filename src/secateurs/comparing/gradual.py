"""Which of a comparison's methods prune while the model trains."""

from __future__ import annotations

from secateurs.comparing.spec import Arm
from secateurs.registry import find_method

__all__ = ["while_training"]


def while_training(arm: Arm) -> bool:
    """Whether the arm's method prunes while the model trains.

    Some can in no other way. Any other does, in protocol ``prune``, where it has a schedule, unless it goes block by
    block.
    """
    needs = find_method(arm.settings.get("method", "magnitude")).needs
    scheduled = arm.protocol == "prune" and arm.settings.get("schedule") not in (None, "one-shot")
    return "training" in needs or (scheduled and "calibration" not in needs)
