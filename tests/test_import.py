"""Importing the library is light, patches nothing, and works without any extra."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src"
HEAVY = (
    "accelerate", "datasets", "jinja2", "lightning", "matplotlib", "pandas", "pyarrow", "pydantic", "pytorch_lightning", "rich",
    "sacrebleu", "safetensors", "scipy", "sklearn", "tokenizers", "torchvision", "transformers", "typer", "yaml",
)  # fmt: skip

PATCHES = """
import json, types
import numpy, torch
owners = [numpy, torch, torch.Tensor, torch.nn, torch.nn.functional, torch.nn.Module, torch.nn.Parameter, torch.nn.Linear,
          torch.nn.LSTM, torch.nn.MultiheadAttention, torch.nn.Conv2d, torch.nn.Embedding, torch.optim, torch.optim.Optimizer,
          torch.optim.SGD, torch.optim.AdamW, torch.autograd, torch.autograd.Function, torch.utils.data.DataLoader]
before = [dict(vars(owner)) for owner in owners]
import secateurs
for name in secateurs.__all__:
    getattr(secateurs, name)
changed = [f"{owner.__name__}.{name}" for owner, old in zip(owners, before) for name, value in vars(owner).items()
           if old.get(name) is not value and not (name not in old and isinstance(value, types.ModuleType))]
print(json.dumps(changed))
"""

EVERY_MODULE = """
import importlib, json, pkgutil, sys
for name in {heavy!r}:
    sys.modules[name] = None  # importing it now fails as if it were not installed
import secateurs
from secateurs.errors import MissingExtra
failed, seen = {{}}, 0
for found in pkgutil.walk_packages(secateurs.__path__, "secateurs.", onerror=lambda name: None):
    seen += 1
    try:
        importlib.import_module(found.name)
    except MissingExtra as error:
        assert "pip install 'secateurs[" in str(error), error
    except ImportError as error:
        failed[found.name] = str(error)
print(json.dumps([seen, failed]))
"""


def run(code: str) -> object:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=SOURCE, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_import_brings_no_extra() -> None:
    """Nor does touching every public name, which loads what lies behind it."""
    touch = "import json, sys, secateurs as sc; names = [getattr(sc, name) for name in sc.__all__]"
    assert run(f"{touch}; print(json.dumps([n for n in {HEAVY!r} if n in sys.modules]))") == []


def test_import_alone_brings_neither_torch_nor_numpy() -> None:
    assert run("import json, sys, secateurs; print(json.dumps([n for n in ('torch', 'numpy') if n in sys.modules]))") == []


def test_import_patches_nothing() -> None:
    assert run(PATCHES) == []


def test_every_module_imports_without_extras_or_names_the_extra() -> None:
    """The command's own modules need typer by nature; everything else must not fail with a bare ImportError."""
    seen, failed = run(EVERY_MODULE.format(heavy=HEAVY))  # type: ignore[misc]
    assert seen > 20
    assert {name: why for name, why in failed.items() if not name.startswith("secateurs.cli.")} == {}


def test_public_names_are_there() -> None:
    import secateurs as sc

    assert {"Pruner", "Recipe", "load", "methods", "prune", "save", "verify"} <= set(sc.__all__)
    for name in sc.__all__:
        assert getattr(sc, name) is not None
    assert set(sc.__all__) <= set(dir(sc))


def test_unknown_name_is_an_attribute_error() -> None:
    import secateurs as sc

    with pytest.raises(AttributeError, match="prunner"):
        sc.prunner
