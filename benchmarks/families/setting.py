"""What determines a run: the settings of a model at a size, and the run itself, named by a hash of both."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field

__all__ = ["Run", "Setting", "shrunk"]

FORMAT = 1  # raised whenever the code changes what a run would measure, so that old results are not taken for new ones


@dataclass(frozen=True)
class Setting:
    """One model of a family at one size. ``begin`` and ``end`` are shares of ``steps``; ``every`` is in optimizer steps."""

    family: str
    model: str
    width: float  # of the large model, in the model's own unit
    shape: dict[str, float]  # what else builds the model: depth, words, layers, dropout ...
    steps: int
    batch: int
    optimizer: str  # "sgd" (Nesterov momentum where there is momentum) or "adam"
    lr: float
    momentum: float = 0.0
    weight_decay: float = 0.0
    clip: float = 0.0  # gradient norm, 0 for none
    decay: dict[str, float] = field(default_factory=dict)  # {} is warm-up and cosine; see schedule.py for the other
    smoothing: float = 0.0  # of the labels in the training loss
    sparsities: tuple[float, ...] = (0.5, 0.75, 0.9, 0.95)
    orders: dict[str, tuple[float, ...]] = field(default_factory=dict)  # further orders of the layers, and at which sparsities
    begin: float = 0.1
    end: float = 0.65
    every: int = 100
    exempt: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    bfloat16: bool = False  # matrix products in bfloat16 while training, weights in float32; evaluation is float32
    data: str = ""  # what was done to the data


@dataclass(frozen=True)
class Run:
    """One training: dense at some width, or large and pruned gradually."""

    setting: Setting
    size: str
    width: float
    seed: int
    sparsity: float = 0.0
    order: str = "all"

    @property
    def method(self) -> str:
        return "gmp" if self.sparsity else "dense"

    @property
    def name(self) -> str:
        """Readable, and unique by a hash of everything that determines the result."""
        said = json.dumps([FORMAT, asdict(self)], sort_keys=True)
        what = f"s{round(1000 * self.sparsity)}-{self.order}" if self.sparsity else f"w{self.width:g}"
        return f"{self.setting.model}-{what}-seed{self.seed}-{hashlib.sha256(said.encode()).hexdigest()[:10]}"


def shrunk(setting: Setting, card: Setting) -> dict[str, list[object]]:
    """Where ``setting`` differs from the paper's own: ``{field: [here, there]}``; what only names or tunes is left out."""
    here, there = asdict(setting), asdict(card)
    names = ("model", "width", "shape", "steps", "batch", "every", "sparsities", "data")
    return {name: [here[name], there[name]] for name in names if here[name] != there[name]}
