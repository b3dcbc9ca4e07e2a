"""A folder to run commands in: a factory, its weights as safetensors, and a tiny Hugging Face model."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import save_file
from typer.testing import CliRunner, Result

from secateurs.cli.app import app

FACTORY = '''
import torch
from torch import nn

def build():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 20), nn.LayerNorm(20), nn.Linear(20, 3))

def halves():
    return build().half()

def wider():
    return nn.Sequential(nn.Linear(6, 21), nn.LayerNorm(21), nn.Linear(21, 3))

def tied():
    model = build()
    model.append(nn.Linear(20, 3))
    model[3].weight = model[2].weight
    return model

def breaks():
    raise RuntimeError("no data here")

def forgets():
    build()

number = 3
'''


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with ``toy.py`` and ``net.safetensors`` in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    sys.modules.pop("toy", None)
    (tmp_path / "toy.py").write_text(FACTORY)
    sys.path.insert(0, str(tmp_path))
    importlib.invalidate_caches()
    save_file(importlib.import_module("toy").build().state_dict(), tmp_path / "net.safetensors")
    return tmp_path


@pytest.fixture
def llama(here: Path) -> Path:
    """A Hugging Face folder with a tokenizer's file in it."""
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.LlamaConfig(vocab_size=16, num_key_value_heads=2, **sizes)
    transformers.LlamaForCausalLM(config).save_pretrained(here / "llama")
    (here / "llama" / "tokenizer.json").write_text("{}")
    return here / "llama"


@pytest.fixture
def command() -> Callable[..., Result]:
    """Run the command line in this process."""
    return lambda *words: CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture
def as_json(command: Callable[..., Result]) -> Callable[..., Any]:
    """The JSON that a command prints, which must be all that it prints."""

    def run(*words: object) -> Any:
        result = command(*words, "--json")
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    return run
