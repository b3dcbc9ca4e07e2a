"""A session of retraining: a small part of a pruned model trains, in any training loop, and its zeros stay zeros."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from secateurs.core.masks import Masks
from secateurs.errors import BadInput, BrokenPromise
from secateurs.models import Left, unwrap
from secateurs.planning import GroupPlan, Plan
from secateurs.train.guard import check_free, claim, innermost, release
from secateurs.train.hold import planned_weights
from secateurs.train.retraining.placing import How, check_how, place
from secateurs.train.walk.state import digest

__all__ = ["Retraining"]


class Retraining:
    """Train a small part of a model that ``plan`` has pruned (Zimmer et al. 2023, "PERP: Rethinking the Prune-Retrain
    Paradigm in the Era of LLMs").

    >>> pruned = sc.prune(model, "magnitude", sparsity=0.5)                          # doctest: +SKIP
    >>> session = sc.Retraining(pruned.model, pruned.plan, parts=["norms"], adapter="mask-lora")  # doctest: +SKIP
    >>> optimizer = torch.optim.AdamW(session.parameters(), lr=5e-4, weight_decay=0)  # doctest: +SKIP
    >>> session.attach(optimizer)                                                    # doctest: +SKIP
    >>> ...                                  # any training loop over pruned.model   # doctest: +SKIP
    >>> model = session.finish()             # merged, checked, a plain module again # doctest: +SKIP

    From here to :meth:`finish` all other parameters are frozen; that none of them has changed, to the bit, is checked at the
    end, and that every planned zero is one after every step and after the merge. Buffers (a batch norm's statistics) follow
    the mode the model is in. Of a 16-bit parameter a 32-bit copy trains. Layers compute with ``weight`` as usual, while the
    model's state dict has the parametrisations' keys. Wrap the model (``DistributedDataParallel``) afterwards, not before.

    Args:
        model: pruned; changed in place.
        plan: of its pruning. Masks are the plan's, so that a live weight that happens to be 0 goes on training.
        parts: of :data:`PARTS`: ``"biases"`` (those of norms not among them), ``"norms"``, ``"head"`` (the last linear layer).
        adapter: one of :data:`~secateurs.train.retraining.adapters.ADAPTERS` on every other pruned weight, or None.
        rank, alpha, dropout: of the adapters. Weights too small for the rank stay frozen, and are told in ``left``.
        seed: of the adapters' first values.

    Attributes:
        left: pruned weights without an adapter, each with the reason.
        step_count: optimizer steps taken.

    Raises:
        BadInput: a part the model does not have, an adapter that fits no pruned weight, a plan of another model or not yet
            carried out, or a weight that another session holds. Nothing is changed then.
    """

    def __init__(
        self, model: nn.Module, plan: Plan, *, parts: Sequence[str] = (), adapter: str | None = None, rank: int = 16,
        alpha: float = 32.0, dropout: float = 0.0, seed: int = 0,
    ) -> None:  # fmt: skip
        if isinstance(plan, GroupPlan):
            raise BadInput("the plan removes whole structures, after which nothing is masked: train the smaller model as it is")
        if isinstance(model, (nn.parallel.DistributedDataParallel, nn.DataParallel)):
            raise BadInput(f"the model is inside {type(model).__name__}, which would not see what trains: wrap it afterwards")
        how = How((parts,) if isinstance(parts, str) else tuple(parts), adapter, rank, alpha, dropout, seed)
        check_how(how)
        self._given, self._model, self._plan, self._how = model, unwrap(model), plan, how
        _check_plain(self._model, plan)
        self.weights = planned_weights(self._model, plan)
        self._masks = {weight.name: plan.masks[weight.name].to(weight.parameter.device) for weight in self.weights}
        self._check_zeros("prune the model with this plan first (plan.replay(model))", BadInput)
        check_free(self.weights)
        self._total = sum(parameter.numel() for parameter in self._model.parameters())
        self._placed = place(self._model, self._masks, how)
        self.left: tuple[Left, ...] = self._placed.left
        self._frozen = self._digest()
        self._placed.insert()
        claim(self.weights, "Retraining")
        self.step_count = 0
        self._handle: Any = None
        self._finished = False

    def parameters(self) -> Iterator[nn.Parameter]:
        """What trains: give these to the optimizer."""
        return self._placed.parameters()

    def report(self) -> list[dict[str, Any]]:
        """Of every part and of all: how many tensors and numbers train, and their share of the model's parameters."""
        rows = self._placed.rows()
        whole = {"part": "total", **{key: sum(row[key] for row in rows) for key in ("tensors", "parameters")}}
        return [{**row, "share": row["parameters"] / self._total} for row in [*rows, whole]]

    @property
    def share(self) -> float:
        """Numbers that train, as a share of the model's parameters."""
        return sum(parameter.numel() for parameter in self.parameters()) / self._total

    def attach(self, optimizer: torch.optim.Optimizer) -> Retraining:
        """Check the zeros after every step of ``optimizer``.

        Raises:
            BadInput: it does not train all of :meth:`parameters`, or a session is attached or finished already.
        """
        if self._handle is not None or self._finished:
            raise BadInput("this session has had its optimizer; one Retraining serves one")
        optimizer = innermost(optimizer)
        if not hasattr(optimizer, "register_step_post_hook"):
            raise BadInput(f"attach() got a {type(optimizer).__name__}; give it the torch optimizer that trains the model")
        trained = {id(p) for group in optimizer.param_groups for p in group["params"]}
        if missing := sum(id(p) not in trained for p in self.parameters()):
            raise BadInput(f"the optimizer does not train {missing} of the tensors that retraining trains: build it from "
                           "session.parameters()")  # fmt: skip
        for target in self._placed.frozen:
            target.parameter.grad = None  # of an earlier training: the optimizer would use it
        self._handle = optimizer.register_step_post_hook(lambda *_: self.step())
        return self

    def step(self) -> None:
        """Count one optimizer step and check every planned zero. The hook calls this.

        Raises:
            BrokenPromise: one is none.
        """
        self._check_zeros("something other than the attached optimizer has written to it")
        self.step_count += 1

    def finish(self, merge: bool = True) -> nn.Module:
        """Merge, check, and return the plain model, with every ``requires_grad`` as it was.

        With ``merge=False`` what was trained through adapters stays beside the weights, as parametrisations: the model
        computes with it, and each ``weight`` is dense where the adapter is ``"lora"``.

        Raises:
            BadInput: LoRA's ``W + c BA`` on a pruned weight would fill its zeros.
            BrokenPromise: a frozen parameter has changed, or a planned zero is none.
        """
        if self._finished:
            raise BadInput("this session is finished")
        if merge and (dense := self._placed.unmergeable()):
            raise BadInput(f"adapter='lora' cannot be merged into {dense[0]!r} and {len(dense) - 1} other pruned weights "
                           "without losing their sparsity: use adapter='mask-lora', or finish(merge=False), which keeps "
                           "the adapters beside the weights")  # fmt: skip
        if self._digest() != self._frozen:
            raise BrokenPromise("a frozen parameter has changed since retraining began: something other than the attached "
                                "optimizer has written to it")  # fmt: skip
        self._check_zeros("something other than the attached optimizer has written to it")
        self.detach()
        if merge:
            self._placed.remove()
            self._check_zeros("the merge has filled it")
        release(self.weights)
        self._finished = True
        return self._given

    def detach(self) -> None:
        """Stop acting on the optimizer's steps; what trains stays where it is."""
        if self._handle is not None:
            self._handle.remove()
        self._handle = None

    @property
    def masks(self) -> Masks:
        """The plan's masks by name, True = kept."""
        return self._plan.masks

    @property
    def sparsity(self) -> float:
        """Share of the planned weights masked."""
        return self._plan.sparsity

    @property
    def average_density(self) -> float:
        """Share of the planned weights in use, at every step the same."""
        return 1 - self._plan.sparsity

    def plan(self) -> Plan:
        """The plan the model was pruned by."""
        return self._plan

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs beside the model and the optimizer: loads with ``weights_only=True``."""
        how = {**asdict(self._how), "parts": list(self._how.parts)}
        return {"version": 1, "step": self.step_count, "how": how, "frozen": self._frozen, "masks": self.masks.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where :meth:`state_dict` was taken, of a session built alike on the same pruned model.

        Raises:
            BadInput: it is of another session, or no such state.
        """
        if not isinstance(state, Mapping) or state.get("version") != 1 or "how" not in state:
            raise BadInput(f"this is no state of a retraining that this library reads: {type(state).__name__}")
        own = self.state_dict()
        if differ := [key for key, value in own["how"].items() if state["how"].get(key) != value]:
            raise BadInput(f"the state is of a retraining with {differ[0]}={state['how'].get(differ[0])!r}, this one has "
                           f"{own['how'][differ[0]]!r}")  # fmt: skip
        if state["frozen"] != self._frozen or not _same_masks(state["masks"], self.masks):
            raise BadInput("the state is of another pruned model: its frozen parameters or its masks differ")
        self.step_count = int(state["step"])

    def _digest(self) -> str:
        return digest(target.parameter for target in self._placed.frozen)

    def _check_zeros(self, why: str, error: type[Exception] = BrokenPromise) -> None:
        for weight in self.weights:
            live = weight.parameter.detach().bool()  # NaN is
            mask = self._masks[weight.name].to(live.device)
            if not torch.equal(live | mask, mask):  # four times as fast as counting
                lifted = int(torch.count_nonzero(live & ~mask))
                raise error(f"{lifted} masked entries of {weight.name!r} are not zero: {why}")


def _check_plain(model: nn.Module, plan: Plan) -> None:
    """Raise :class:`BadInput` if one of the plan's parameters is computed from another one already."""
    modules = dict(model.named_modules())
    for name in plan.masks:
        path, _, attribute = name.rpartition(".")
        module = modules.get(path)
        if module is not None and parametrize.is_parametrized(module, attribute):
            raise BadInput(f"{name!r} is parametrised already, by another session perhaps: finish() that one first")


def _same_masks(state: Mapping[str, Any], masks: Mapping[str, Tensor]) -> bool:
    theirs = Masks.from_state_dict(state)
    return theirs.keys() == masks.keys() and all(torch.equal(theirs[name], mask.cpu()) for name, mask in masks.items())
