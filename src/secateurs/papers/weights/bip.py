"""BiP: Zhang et al., "Advancing Model Pruning via Bi-level Optimization", NeurIPS 2022, arXiv:2210.04092.

Masks and weights are learnt together: ``min_m l(m * theta(m))`` over masks of a given number of ones, where ``theta(m)``
minimises ``l(m * theta) + gamma / 2 |theta|^2``. A step of the training loop is a step of the lower level, ``theta <- theta -
alpha (m * g + gamma theta)`` with ``g`` the gradient of the loss to ``z = m * theta``. After each, on another batch, the upper
level takes one: scores go down ``dl/dm``, and the mask keeps the entries of largest ``|s|``.

``theta(m)`` moves with the mask. Its derivative contains a Hessian; without the curvature of the loss in ``theta``, and with
``diag(g)`` for what mixes mask and weights (the loss knows only their product), first-order quantities are left:
``dl/dm = theta * g - (1 / gamma) (dz/dtheta) * g * g``, where ``dz/dtheta`` is ``m`` by the chain rule and 1 in print.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from secateurs.core.criteria import Criterion
from secateurs.core.method import Method
from secateurs.core.moment import Moment
from secateurs.core.option import Number
from secateurs.core.select import check_finite
from secateurs.core.structures import Block, Rows, Structure
from secateurs.errors import BadInput

__all__ = ["GRADIENTS", "Bip"]

#: (theta, mask, g at z = mask * theta, sign of the scores, 1 / gamma) -> dl/dm, all of one shape.
Gradient = Callable[[Tensor, Tensor, Tensor, Tensor, float], Tensor]

GRADIENTS: dict[str, Gradient] = {
    "published": lambda theta, mask, g, sign, scale: (theta - scale * g) * g,
    "strict": lambda theta, mask, g, sign, scale: (theta - scale * mask * g) * g,
    "code": lambda theta, mask, g, sign, scale: theta * g - scale * sign * (theta * g).square(),
    "none": lambda theta, mask, g, sign, scale: theta * g,
}


class Bip(Method):
    """Options.

    ``gradient``: ``"published"``, ``(theta - g / gamma) g``; ``"strict"``, ``(theta - m g / gamma) g``, which by the chain rule
    it is: the two agree where the mask is one, and ``published`` raises the scores of dead entries by ``g^2 / gamma`` besides;
    ``"code"``, ``theta g -+ (theta g)^2 / gamma``, the sign that of the score, which is what the official program computes;
    ``"none"``, ``theta g``, its accelerated variant, in which masks and weights are trained by turns.
    ``implicit`` is ``1 / gamma``. ``rate``, ``momentum``: of the scores' gradient descent, the rate a tenth from the share
    ``drop`` of training on and a hundredth from ``drop_again`` on. With ``rate=0`` the scores are frozen: plain fine-tuning.

    Scores begin as a copy of the weights, so that the first mask is that of global magnitude pruning. The mask depends on
    their size, hence ``ds = sign(s) dl/dm``. Whole rows (``structure="rows"``, filters) are ranked inside their layer by the L2
    norm of their scores; say ``allocation="uniform"`` with them, and the paper leaves linear layers dense (``exclude``).

    Give the pruner ``data`` for the upper level, and the optimizer ``gamma`` as its weight decay: a masked weight moves by that
    alone. The official program shares memory between scores and weights when it begins (here they are copied), decays the
    scores as well, lowers the rate at 0.75 and 0.9 of training, and lets the upper level's passes into the running statistics
    of batch norm.
    """

    name = "bip"
    summary = "masks and weights of a trained network learnt together, a step of one after each step of the other"
    when = "during training"
    needs = ("training", "batches")
    paper = "Zhang et al., Advancing Model Pruning via Bi-level Optimization, NeurIPS 2022"
    defaults = {"allocation": "global", "schedule": "one-shot", "enforcement": "keep"}
    options = {"gradient": tuple(GRADIENTS), "implicit": Number(1e-4), "rate": Number(0.1), "momentum": Number(0.9, 0, 1),
               "drop": Number(0.5, 0, 1), "drop_again": Number(0.75, 0, 1)}  # fmt: skip

    def __init__(self, options: Mapping[str, Any] | None = None):
        super().__init__(options)
        self._scores: dict[str, Tensor] = {}
        self._velocities: dict[str, Tensor] = {}
        self._in_groups = False

    def check(self, structure: Structure) -> None:
        """Take note of what is ranked: entries by ``|s|``; rows, and blocks of one size, by the L2 norm of their scores."""
        self._in_groups = isinstance(structure, (Rows, Block))

    def criterion(self, name: str) -> Criterion:
        """The size of the scores; there is no other.

        Raises:
            BadInput: another is asked for.
        """
        if name != "magnitude":
            raise BadInput(f"criterion={name!r}: {self.name!r} ranks by the scores it learns; leave criterion out")
        return Criterion("bip", frozenset({"scores"}), self._size)

    def _size(self, weight: Tensor, statistics: Mapping[str, Tensor]) -> Tensor:
        """Of a group the mean is taken, and the mean of squares orders groups as the root of their sum does."""
        scores = statistics["scores"].to(weight.device)
        return scores.square() if self._in_groups else scores.abs()

    def statistics(self, name: str) -> Mapping[str, Tensor]:
        """The scores."""
        return {"scores": self._scores[name]}

    def learn(self, moment: Moment) -> bool:
        """Begin with the weights; after every step take one of the upper level.

        Raises:
            BadInput: the length of the run is not known, by which the rate falls.
            NotFinite: a gradient of the upper level is NaN or infinite; the scores have not changed then.
        """
        if moment.step == 0:
            self._begin(moment)
            return False
        if self.settings["rate"] == 0:
            return False
        self._upper_step(moment, self._rate(moment))
        return True

    def _begin(self, moment: Moment) -> None:
        if moment.total_steps is None:
            raise BadInput(f"{self.name!r} lowers the rate of its scores twice in training: give total_steps=, the optimizer "
                           "steps of the run")  # fmt: skip
        self._scores = {name: value.to(torch.promote_types(value.dtype, torch.float32), copy=True)
                        for name, value in moment.values.items()}  # fmt: skip
        self._velocities = {name: torch.zeros_like(scores) for name, scores in self._scores.items()}

    def _rate(self, moment: Moment) -> float:
        """Of the scores, for the step that has been taken."""
        assert moment.total_steps is not None  # since the beginning
        done = (moment.step - 1) / moment.total_steps
        return self.settings["rate"] * 0.1 ** ((done >= self.settings["drop"]) + (done >= self.settings["drop_again"]))

    def _upper_step(self, moment: Moment, rate: float) -> None:
        gradient, scale = GRADIENTS[self.settings["gradient"]], self.settings["implicit"]
        steps = {}
        for name, g in moment.gradients().items():
            check_finite(g, f"the upper level's gradient of {name}")
            scores = self._scores[name] = self._scores[name].to(g.device)
            theta, mask, sign = moment.values[name].to(scores.dtype), moment.masks[name].to(scores.dtype), scores.sign()
            steps[name] = sign * gradient(theta, mask, g.to(scores.dtype), sign, scale)
        for name, step in steps.items():
            velocity = self._velocities[name] = self._velocities[name].to(step.device)
            self._scores[name].sub_(velocity.mul_(self.settings["momentum"]).add_(step), alpha=rate)

    def state_dict(self) -> dict[str, Any]:
        """Scores and their velocities by name."""
        return {"scores": _copied(self._scores), "velocities": _copied(self._velocities)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take them back.

        Raises:
            BadInput: one is missing, or there are none although training has begun.
        """
        if missing := [key for key in ("scores", "velocities") if key not in state]:
            raise BadInput(f"the state of {self.name!r} lacks {' and '.join(missing)}; save all of Pruner.state_dict()")
        if self._scores and not state["scores"]:
            raise BadInput(f"the state of {self.name!r} was taken before the pruner was attached, so it has no scores; load it "
                           "before attach()")  # fmt: skip
        self._scores, self._velocities = _copied(state["scores"]), _copied(state["velocities"])


def _copied(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in tensors.items()}
