"""What a command writes beside the weights: the plan, the recipe as YAML, and a Hugging Face model's own small files."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from secateurs.errors import BadInput, near
from secateurs.formats.huggingface import copy_side_files
from secateurs.planning import GroupPlan, Plan, load_plan
from secateurs.recipe import Recipe

__all__ = ["Beside", "Target", "read_beside", "stored_bytes"]

RECIPE, REPORT = "recipe.yaml", "report.json"
FORMATS, ONNX = ("secateurs", "huggingface"), "onnx"


@dataclass(frozen=True)
class Target:
    """Where a model goes."""

    path: Path
    format: str = "secateurs"
    overwrite: bool = False

    def check(self, *more: str) -> None:
        """Find out before the work, not after it; ``more`` are formats lawful here besides the two of folders.

        Raises:
            BadInput: there is no such format; the path is a file, or holds something and may not be replaced.
        """
        formats = (*FORMATS, *more)
        if self.format not in formats:
            raise BadInput(f"--format {self.format!r}: use one of {', '.join(formats)}" + near(self.format, formats))
        out = self.path.expanduser()
        if self.format == ONNX:
            self._check_file(out)
            return
        if out.is_file():
            raise BadInput(f"--out {str(out)!r} is a file: give the name of a folder")
        if out.is_dir() and not self.overwrite and any(out.iterdir()):
            raise BadInput(f"--out {str(out)!r} exists: give another name, or add --overwrite to replace it")

    def _check_file(self, out: Path) -> None:
        if out.suffix != ".onnx":
            raise BadInput(f"--out {str(out)!r}: an ONNX model is one file, name it .onnx")
        if out.is_dir() or (out.exists() and not self.overwrite):
            raise BadInput(f"--out {str(out)!r} exists: give another name, or add --overwrite to replace it")
        if not out.parent.is_dir():
            raise BadInput(f"--out {str(out)!r}: there is no folder {str(out.parent)!r}")


@dataclass(frozen=True)
class Beside:
    """Files that :func:`secateurs.save` puts into the folder before it is complete, so that its checksums cover them."""

    plan: Plan | GroupPlan | None = None
    recipe: Recipe | None = None
    source: Path | None = None

    def save(self, folder: Path) -> None:
        """Write them."""
        if self.plan is not None:
            self.plan.save(folder)
        if self.recipe is not None:
            (folder / RECIPE).write_text(self.recipe.to_yaml(), encoding="utf-8")
        if self.source is not None:
            copy_side_files(self.source, folder)


def read_beside(folder: Path) -> tuple[Beside, Any]:
    """What another command wrote beside the weights in ``folder``, and its report; None for what is not there."""
    plan = load_plan(folder) if (folder / "plan.json").is_file() else None
    recipe = Recipe.from_yaml(folder / RECIPE) if (folder / RECIPE).is_file() else None
    report = json.loads((folder / REPORT).read_text(encoding="utf-8")) if (folder / REPORT).is_file() else None
    return Beside(plan, recipe, folder), report


def stored_bytes(path: Path) -> int:
    """Bytes on disk of the weights in a folder or a file, the plan's masks left out."""
    files = [path] if path.is_file() else path.glob("*.safetensors")
    return sum(file.stat().st_size for file in files if file.name != "plan.safetensors")
