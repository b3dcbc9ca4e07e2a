"""What a comparison is, as plain data: tasks, what is compared on them (arms), operating points, seeds; and a single run."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["MASKED", "PROTOCOLS", "PRUNING", "SCHEMA", "Arm", "Comparison", "Dense", "Named", "Optimizer", "Point", "Retrain",
           "Run", "Task", "hashed_name", "plain"]  # fmt: skip

SCHEMA = 1  # of a results row; raised whenever the code changes what a run measures, so that old rows are not taken for new

Named = str | Callable[..., Any]
"""``"module:function"``, or (from Python, in one process) the function itself."""

PROTOCOLS = {
    "start": "train the dense model, or load it: what the pruned runs of a seed begin with",
    "dense": "go on training the dense model for as many steps as the pruned ones",
    "small-dense": "train, for the whole budget, the narrowest dense model with at least the bytes of the pruned one",
    "prune": "prune the dense model by a method and train on with the masks, or prune it while it trains",
    "iterative": "prune by a method in rounds, training in between, with the same steps in all",
    "tickets": "train from random weights, prune and set the survivors back, in rounds that each have the whole budget",
    "scratch-e": "train the pruned shape from new random weights for the whole budget of steps (Scratch-E)",
    "scratch-b": "the same for as much compute as the dense model had, so for more steps (Scratch-B)",
    "reinitialised": "the masks of another arm over new weights drawn by the model's own initialisation",
    "reshuffled": "the counts of another arm, their places shuffled inside each layer, over the initial weights",
    "rewound": "the masks of another arm over the initial weights of the same seed",
}
PRUNING = ("prune", "iterative", "tickets")  # protocols that prune by a method
MASKED = ("scratch-e", "scratch-b", "reinitialised", "reshuffled", "rewound")  # protocols that take another arm's masks

ADDED = ("retrain", "rewind", "strategy")  # fields of an arm that came after the first runs were named


@dataclass(frozen=True)
class Optimizer:
    """How weights are trained. Shares (``warmup``, ``milestones``) are of a run's own steps, so a longer run is stretched."""

    name: str = "sgd"
    lr: float = 0.1
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 0.0
    rate: str = "constant"
    """Of the learning rate: ``constant``, ``cosine`` or ``linear`` to zero, or ``drops`` by ``factor`` at every milestone."""
    warmup: float = 0.0
    milestones: tuple[float, ...] = (0.5, 0.75)
    factor: float = 0.1
    clip: float = 0.0
    """Largest norm of the gradient; 0 for no limit."""


@dataclass(frozen=True)
class Dense:
    """The dense model that pruning begins with: ``steps`` of training, or a stored model that had them.

    Runs that begin with random weights are trained as this says, for ``steps`` plus the task's own.
    """

    steps: int
    checkpoint: str | None = None
    """A safetensors file of the dense model's state dict, the same for all seeds."""
    optimizer: Optimizer | None = None
    """The task's own if None."""


@dataclass(frozen=True)
class Task:
    """A model, its data, how it is trained and what it is worth."""

    name: str
    model: Named
    """``model(**model_options)``, and ``width=`` besides where the task has a width; gives a module drawn from torch's seed."""
    data: Named
    """``data(**data_options)`` gives a mapping with ``train``, ``test`` and perhaps ``validation``."""
    steps: int
    """Optimizer steps of a pruned run: after the dense training, or from random weights where there is none."""
    model_options: dict[str, Any] = field(default_factory=dict)
    data_options: dict[str, Any] = field(default_factory=dict)
    width: float | None = None
    widths: tuple[float, ...] = ()
    """What ``small-dense`` may choose from."""
    dense: Dense | None = None
    loss: Named = "cross-entropy"
    """A function ``(model, batch) -> loss`` or this name."""
    metric: Named = "top-1"
    """A name of :data:`secateurs.comparing.metrics.METRICS`, or a function ``(model, split) -> number``."""
    direction: str | None = None
    """``higher`` or ``lower`` is better; must be said for a metric of one's own."""
    train: Named = "built-in"
    """The supervised loop, or a function that takes a :class:`secateurs.comparing.running.training.Training`."""
    batch: int = 64
    transform: Named | None = None
    """Applied to a training batch, seeded by the run and the step: augmentation."""
    optimizer: Optimizer = field(default_factory=Optimizer)
    autocast: bool = False
    """Matrix products in bfloat16 while training; evaluation stays in float32."""
    evaluate_every: int | None = None
    """Steps between evaluations on ``validation`` for the metric's history."""
    evaluate_on: str = "test"
    calibration: int = 8
    """Training batches from which criteria take their gradients."""
    selection: dict[str, Any] = field(default_factory=dict)
    """Which weights all methods of the task prune: ``include``, ``exclude``, ``types``, ``exempt`` of a recipe."""
    seeds: tuple[int, ...] | None = None
    sparsities: tuple[float, ...] | None = None
    """The comparison's own if None."""
    latency_batch: int = 1
    version: int = 1
    """Raise it when the functions named here change what they do: runs are known by their settings, not by code."""

    @property
    def budget(self) -> int:
        """Steps that a run from random weights has: what the dense training and the pruned run take together."""
        return self.steps + (self.dense.steps if self.dense else 0)


@dataclass(frozen=True)
class Retrain:
    """What trains after pruning in one shot, where not everything does: see :class:`secateurs.Retraining`."""

    parts: tuple[str, ...] = ()
    adapter: str | None = None
    rank: int = 16
    alpha: float = 32.0
    dropout: float = 0.0
    steps: int | None = None
    """The task's own if None; 0 for no training at all."""
    optimizer: Optimizer | None = None
    """The task's own if None."""


@dataclass(frozen=True)
class Arm:
    """One thing compared: a protocol, and for those that prune by a method the fields of a recipe."""

    name: str
    protocol: str = "prune"
    of: str | None = None
    """The arm whose masks are taken; for the protocols in :data:`MASKED`."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Fields of :class:`secateurs.Recipe`: method, allocation, schedule, ..."""
    cap: float = 2.0
    """``scratch-b``: at most this many times the whole budget."""
    rounds: int = 1
    """``iterative``, ``tickets``: how many times is pruned."""
    rewind: int | float | str | None = "own"
    """``tickets``: what a round goes back to, as :class:`secateurs.Rounds` has it."""
    strategy: int = 1
    """``tickets``: 1 goes back in every round, 2 only before the last training."""

    def said(self) -> dict[str, Any]:
        """What names a run: all fields, those that were added later only where they say something."""
        later = {f.name for f in dataclasses.fields(self) if f.name in ADDED and getattr(self, f.name) == f.default}
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name not in later}
    retrain: Retrain | None = None
    """``prune``: what trains afterwards; everything, under the masks, if None."""


@dataclass(frozen=True)
class Point:
    """An operating point: a share removed of the selected weights, or the compression ratio of the whole network."""

    sparsity: float | None = None
    compression: float | None = None

    @property
    def label(self) -> str:
        """``"90 %"`` or ``"8x"``; ``"own amount"`` where the method finds it."""
        if self.compression is not None:
            return f"{self.compression:g}x"
        return "own amount" if self.sparsity is None else f"{100 * self.sparsity:.10g} %"


@dataclass(frozen=True)
class Comparison:
    """Every arm on every task at every point with every seed."""

    name: str
    tasks: tuple[Task, ...]
    arms: tuple[Arm, ...]
    points: tuple[Point, ...]
    seeds: tuple[int, ...] = (0, 1, 2)
    threads: int = 1
    """Of torch, in each run."""


@dataclass(frozen=True)
class Run:
    """One cell of the grid."""

    comparison: str
    task: Task
    arm: Arm
    point: Point | None
    seed: int
    needs: tuple[str, ...] = ()
    """Names of the runs whose weights (the start) or masks (the arm ``of``) this one takes, in this order."""
    threads: int = 1

    def determined_by(self) -> dict[str, Any]:
        """Everything that determines the result, as JSON-able data: what the name is the hash of."""
        task = {f.name: getattr(self.task, f.name) for f in dataclasses.fields(Task) if f.name not in ("seeds", "sparsities")}
        return plain({"schema": SCHEMA, "task": task, "arm": self.arm.said(), "point": self.point, "seed": self.seed,
                      "needs": self.needs, "threads": self.threads})  # fmt: skip

    @property
    def name(self) -> str:
        """Readable, and unique by the hash of :meth:`determined_by`."""
        where = f"-{self.point.label}" if self.point else ""
        text = f"{self.task.name}-{self.arm.name}{where}-seed{self.seed}"
        return hashed_name(text.replace(" %", ""), self.determined_by())


def hashed_name(text: str, determined_by: Mapping[str, Any]) -> str:
    """``text`` as a file may be called, and ten hexadecimal digits that change with anything in ``determined_by``."""
    said = json.dumps(determined_by, sort_keys=True)
    safe = "".join(c if c.isalnum() or c in "-._" else "-" for c in text)
    return f"{safe}-{hashlib.sha256(said.encode()).hexdigest()[:10]}"


def plain(value: Any) -> Any:
    """Dataclasses, tuples and functions as JSON-able data; a function is its ``module:name``."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [plain(item) for item in value]
    if callable(value):
        return f"{value.__module__}:{value.__qualname__}"
    return value
