"""Train the dense model of a recipe's task again: ``python -m benchmarks.checkpoints``.

Writes the file that the task names as its ``checkpoint``, and beside it the row of that run, as JSON.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from secateurs.comparing.recipes.recipe import task_from
from secateurs.comparing.running.execute import execute
from secateurs.comparing.spec import Arm, Run
from secateurs.errors import BadInput
from secateurs.extras import require
from secateurs.files import write_whole

HERE = Path(__file__).parent
RECIPE = HERE.parent / "recipes" / "fair.yaml"


def main(arguments: list[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.checkpoints", description=__doc__)
    parser.add_argument("--recipe", type=Path, default=RECIPE)
    parser.add_argument("--task", default="cifar10-resnet8")
    parser.add_argument("--seed", type=int, default=0)
    said = parser.parse_args(arguments)
    row = made(said.recipe, said.task, said.seed)
    print(f"{row['task']}: {row['metric']} {row['value']:.4f} after {row['steps']} steps")
    return 0


def made(recipe: Path, name: str, seed: int) -> dict[str, Any]:
    """Train, write both files, and return the row.

    Raises:
        BadInput: the recipe has no such task, or the task names no checkpoint.
    """
    data = next((task for task in _tasks(recipe) if task["name"] == name), None)
    if data is None or "checkpoint" not in data.get("dense", {}):
        raise BadInput(f"recipe {str(recipe)!r} has no task {name!r} whose dense model is a checkpoint")
    path = recipe.parent / data["dense"]["checkpoint"]
    dense = {key: value for key, value in data["dense"].items() if key != "checkpoint"}
    run = Run("checkpoints", task_from({**data, "dense": dense}), Arm("start", "start"), None, seed)
    with tempfile.TemporaryDirectory() as folder:
        row = execute(run, Path(folder))
        write_whole(path, (Path(folder) / "weights" / f"{run.name}.safetensors").read_bytes())
    write_whole(path.with_suffix(".json"), (json.dumps(row, indent=1) + "\n").encode())
    return row


def _tasks(recipe: Path) -> list[dict[str, Any]]:
    return require("yaml", "cli").safe_load(recipe.read_text(encoding="utf-8"))["tasks"]


if __name__ == "__main__":
    raise SystemExit(main())
