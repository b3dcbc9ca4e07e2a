"""What an oracle study is, as plain data, and a part of it: one set of filters, retrained once."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from secateurs.comparing.spec import SCHEMA, Arm, Run, Task, hashed_name, plain
from secateurs.comparing.studies.filters import Layers
from secateurs.comparing.studies.sets import Kept

__all__ = ["STUDY", "OracleStudy", "Retraining"]

STUDY = "oracle"


@dataclass(frozen=True)
class OracleStudy:
    """Does a lower loss after pruning mean a better model after retraining?

    Source: "Is Oracle Pruning the True Oracle?" (2024). The filters of ``layers`` are pruned in every way, or in ``samples``
    ways, each pruned model is retrained for ``task.steps``, and the two losses and the final metric are compared.
    """

    name: str
    task: Task
    """With ``dense:``, the training of the model that all sets are cut from."""
    layers: tuple[Layers, ...]
    ratio: float
    """Share of the filters of each layer that goes."""
    samples: int | None = None
    """Sets drawn where there are more; None for all. More samples of the same seed go on with the same draw."""
    repeats: int = 3
    """Retrainings of each set, with other orders of the data; those of one repeat share theirs, whatever the set."""
    examples: int | None = None
    """Training examples the loss is measured on (and test examples afterwards), drawn once; None for all."""
    seed: int = 0
    threads: int = 1

    def start(self) -> Run:
        """The training of the dense model."""
        return Run(self.name, self.task, Arm("start", "start"), None, self.seed, (), self.threads)

    def retrainings(self, sets: list[Kept]) -> list[Retraining]:
        """Every set with every repeat, the repeats of a set one after the other."""
        needs = (self.start().name,)
        return [Retraining(self.name, self.task, self.layers, kept, self.seed, repeat, self.examples, needs, self.threads)
                for kept in sets for repeat in range(self.repeats)]  # fmt: skip


@dataclass(frozen=True)
class Retraining:
    """One retraining: a :class:`secateurs.comparing.processes.waiting.Job`."""

    study: str
    task: Task
    layers: tuple[Layers, ...]
    kept: Kept
    seed: int
    repeat: int
    examples: int | None
    needs: tuple[str, ...]
    """The start: the run that trains the dense model."""
    threads: int

    def determined_by(self) -> dict[str, Any]:
        """Everything that determines the result, as JSON-able data: what the name is the hash of."""
        said = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "study"}
        return plain({"schema": SCHEMA, "study": STUDY, **said})

    @property
    def name(self) -> str:
        """Readable, and unique by the hash of :meth:`determined_by`."""
        return hashed_name(f"{self.task.name}-oracle-repeat{self.repeat}", self.determined_by())
