"""Make the list: ``python -m benchmarks.coverage.listing --jobs 2`` writes ``architectures.json`` anew.

Every vision and text model type of the installed transformers and every plain network is built, run and exported with
``torch.export`` in a process of its own. What exports is the list; what does not stands below it with the stage and the reason.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.coverage.apart import Row, apart, one_line
from benchmarks.coverage.architectures import LIST, every
from benchmarks.coverage.entry import called
from secateurs.files import write_whole

__all__ = ["examine", "main"]

SECONDS = 120  # of processor time to build, run and export one


def examine(name: str) -> Row:
    """Whether the architecture builds, runs and exports: its row of the list."""
    entry = next(entry for entry in every() if entry.name == name)
    row: Row = {"name": entry.name, "class": entry.kind, "family": entry.family, "exports": False}
    stage = "build"
    try:
        model = entry.build()
        row["parameters"] = sum(parameter.numel() for parameter in model.parameters())
        row["class"] = entry.kind or type(model).__name__
        stage = "run"
        with torch.no_grad():
            called(model, entry.example(model))
        stage, began = "export", time.process_time()
        args, kwargs = arguments(entry.example(model))
        torch.export.export(model, args, kwargs)
        return {**row, "exports": True, "seconds": round(time.process_time() - began, 2)}
    except Exception as error:
        return {**row, "stage": stage, "reason": one_line(error)}


def arguments(example: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """An example as positional and named arguments."""
    return ((), dict(example)) if hasattr(example, "keys") else (tuple(example), {})


def main(said: list[str] | None = None) -> int:
    """Write the list anew; rows of names that are not asked for stay."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=LIST)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--only", nargs="*", default=[], help="names, or parts of them")
    given = parser.parse_args(said)
    old = json.loads(given.out.read_text()) if given.out.exists() else {"architectures": [], "left_out": []}
    rows = {row["name"]: row for row in old["architectures"] + old["left_out"]}
    names = [entry.name for entry in every()]
    wanted = [name for name in names if not given.only or any(part in name for part in given.only)]
    for name, row in apart(examine, wanted, SECONDS, given.jobs):
        rows[name] = row if "exports" in row else {"name": name, "exports": False, "stage": "export", **row}
        print(name, rows[name].get("reason", "exports"), flush=True)
        _write(given.out, [rows[name] for name in names if name in rows])
    return 0


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    import transformers

    parts = {"architectures": [row for row in rows if row["exports"]], "left_out": [row for row in rows if not row["exports"]]}
    lines = [f' "{key}": [\n' + ",\n".join(f"  {json.dumps(row)}" for row in value) + "\n ]" for key, value in parts.items()]
    made = f' "torch": "{torch.__version__}",\n "transformers": "{transformers.__version__}"'
    write_whole(path, ("{\n" + ",\n".join([made, *lines]) + "\n}\n").encode())


if __name__ == "__main__":
    raise SystemExit(main())
