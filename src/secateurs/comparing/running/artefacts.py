"""What runs leave in the results folder for later ones: dense weights, masks, checkpoints."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from secateurs.errors import BadInput, CorruptFile, near
from secateurs.extras import require
from secateurs.files import write_whole
from secateurs.planning import Plan

__all__ = ["Artefacts", "fill"]


@dataclass(frozen=True)
class Artefacts:
    """Files of a results folder, by the name of the run that wrote them."""

    folder: Path

    def weights(self, name: str) -> Path:
        """The dense weights of a start."""
        return self.folder / "weights" / f"{name}.safetensors"

    def masks(self, name: str) -> Path:
        """The folder of a pruned run's plan."""
        return self.folder / "masks" / name

    def checkpoint(self, name: str, round_: int | None = None) -> Path:
        """Where a run that is under way keeps its state, or that of a round in it."""
        return self.folder / "state" / (f"{name}.pt" if round_ is None else f"{name}.round{round_}.pt")

    def checkpoints(self, name: str) -> list[Path]:
        """All of a run's."""
        return [self.checkpoint(name), *(self.folder / "state").glob(f"{name}.round*.pt")]

    def save_weights(self, model: nn.Module, name: str, value: float) -> None:
        """Write the state dict of ``model``, and the metric it has."""
        path = self.weights(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        state = {key: t.detach().cpu().clone().contiguous() for key, t in model.state_dict().items() if isinstance(t, Tensor)}
        content = require("safetensors.torch", "files").save(state, {"value": json.dumps(value)})
        write_whole(path, content)

    def load_weights(self, model: nn.Module, name: str) -> float:
        """Fill ``model`` with the weights of the run ``name``; returns the metric they have.

        Raises:
            BadInput: they are not there, or of another model.
        """
        path = self.weights(name)
        fill(model, path, f"the start {name!r}")
        with require("safetensors", "files").safe_open(path, "pt") as file:
            return float(json.loads(file.metadata()["value"]))

    def save_masks(self, plan: Plan, name: str) -> None:
        """Write ``plan``."""
        self.masks(name).mkdir(parents=True, exist_ok=True)
        plan.save(self.masks(name))

    def load_masks(self, name: str) -> Plan:
        """The plan of the run ``name``.

        Raises:
            BadInput: it is not there.
            CorruptFile: it is damaged.
        """
        return Plan.load(self.masks(name))


def fill(model: nn.Module, path: str | Path, said: str) -> None:
    """Load the safetensors file of a state dict into ``model``: the same names and shapes; of tied tensors one is enough.

    Raises:
        BadInput: there is no such file, or it is of another model; the message begins with ``said`` and quotes the path.
        CorruptFile: it is no whole safetensors file.
    """
    path = Path(path)
    said = f"{said}: {str(path)!r}"
    if not path.is_file():
        beside = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        raise BadInput(f"{said} does not exist" + near(path.name, beside))
    stored = _read(path, said)
    own = {name: value for name, value in model.state_dict().items() if isinstance(value, Tensor)}
    given = {value.data_ptr() for name, value in own.items() if name in stored and value.numel()}
    missing = [name for name, value in own.items() if name not in stored and value.data_ptr() not in given]
    unknown = [name for name in stored if name not in own]
    odd = [name for name, value in own.items() if name in stored and stored[name].shape != value.shape]
    if missing:
        raise BadInput(f"{said} lacks {len(missing)} of the model's tensors, first {missing[0]!r}" + near(missing[0], unknown))
    if unknown:
        raise BadInput(f"{said} has {len(unknown)} tensors the model lacks, first {unknown[0]!r}")
    if odd:
        raise BadInput(f"{said} has {odd[0]!r} with shape {tuple(stored[odd[0]].shape)}, the model {tuple(own[odd[0]].shape)}")
    model.load_state_dict(stored, strict=False)


def _read(path: Path, said: str) -> dict[str, Any]:
    if path.suffix != ".safetensors":
        raise BadInput(f"{said}: give a .safetensors file of a state dict")
    safetensors: Any = require("safetensors", "files")
    try:
        return require("safetensors.torch", "files").load_file(path)
    except safetensors.SafetensorError as error:
        raise CorruptFile(f"{said} is not a whole safetensors file: {error}") from error
