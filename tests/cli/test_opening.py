"""MODEL: what opens, and what each wrong thing says."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from secateurs.cli.opening import Source
from secateurs.errors import BadInput, CorruptFile


def test_a_file_fills_the_factorys_network(here: Path) -> None:
    save_file({name: value + 1 for name, value in load_file("net.safetensors").items()}, "other.safetensors")
    opened = Source(Path("other.safetensors"), "toy:build").open()
    assert opened.kind == "safetensors"
    assert not opened.model.training
    for name, value in load_file("net.safetensors").items():
        assert torch.equal(opened.model.state_dict()[name], value + 1)


def test_half_precision_stays(here: Path) -> None:
    save_file({name: value.half() for name, value in load_file("net.safetensors").items()}, "half.safetensors")
    assert Source(Path("half.safetensors"), "toy:halves").open().model[0].weight.dtype == torch.float16


@pytest.mark.parametrize(
    ("path", "factory", "says"),
    [
        ("net.safetensor", None, "'net.safetensor' does not exist; did you mean 'net.safetensors'"),
        ("org/name", None, "hf download org/name"),
        ("net.safetensors", None, "add --factory module:function"),
        ("net.safetensors", "toy", "write module:function"),
        ("net.safetensors", "toy.py:build", "write module:function"),
        ("net.safetensors", "tyo:build", "no module 'tyo'"),
        ("net.safetensors", "toy:biuld", "did you mean 'build'?"),
        ("net.safetensors", "toy:number", "'number' is a int"),
        ("net.safetensors", "toy:breaks", "failed: RuntimeError: no data here"),
        ("net.safetensors", "toy:forgets", "returned a NoneType; it must return a torch.nn.Module"),
        ("net.safetensors", "toy:wider", "'0.weight' is float32 (20, 6) in the file and float32 (21, 6) in the network"),
        ("net.safetensors", "toy:halves", "'0.weight' is float32 (20, 6) in the file and float16 (20, 6) in the network"),
        ("net.safetensors", "toy:tied", "1 of the network's tensors are not in the file, first '3.bias'"),
        ("net.pt", "toy:build", "weights_only=True"),
        ("toy.py", None, "is not a model"),
        ("empty", None, "found nothing"),
        ("pickled", None, "pytorch_model.bin"),
        ("adapter", None, "merge_and_unload"),
        ("strange", None, "NoSuchNetForCausalLM"),
        ("weightless", None, "no .safetensors file"),
        (".", None, "give 'net.safetensors' and --factory"),
    ],
)
def test_what_each_wrong_thing_says(here: Path, path: str, factory: str | None, says: str) -> None:
    Path("net.pt").touch()
    for folder, files in {
        "empty": {}, "pickled": {"config.json": "{}", "pytorch_model.bin": ""}, "adapter": {"adapter_config.json": "{}"},
        "weightless": {"config.json": "{}"},
        "strange": {"config.json": json.dumps({"architectures": ["NoSuchNetForCausalLM"]}), "model.safetensors": ""},
    }.items():  # fmt: skip
        Path(folder).mkdir()
        for name, text in files.items():
            Path(folder, name).write_text(text)
    with pytest.raises(BadInput, match=re.escape(says)):
        Source(Path(path), factory).open()


def test_a_truncated_file_is_corrupt(here: Path) -> None:
    Path("cut.safetensors").write_bytes(Path("net.safetensors").read_bytes()[:-4])
    with pytest.raises(CorruptFile, match=r"cut\.safetensors"):
        Source(Path("cut.safetensors"), "toy:build").open()


def test_a_factory_module_that_fails_to_import(here: Path) -> None:
    Path("broken_module.py").write_text("import no_such_package_at_all\n")
    with pytest.raises(BadInput, match=r"importing 'broken_module' failed: ModuleNotFoundError: .*'no_such_package_at_all'"):
        Source(Path("net.safetensors"), "broken_module:build").open()


def test_code_in_a_folder_runs_only_when_allowed(llama: Path) -> None:
    config = json.loads((llama / "config.json").read_text())
    own = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnNet"}
    config |= {"architectures": ["OwnNet"], "model_type": "own", "auto_map": own}
    (llama / "config.json").write_text(json.dumps(config))
    (llama / "own.py").write_text("from pathlib import Path\nPath('ran').touch()\n")
    with pytest.raises(BadInput, match="--trust-remote-code"):
        Source(llama).open()
    assert not Path("ran").exists()


def test_missing_tensors_are_not_made_up(llama: Path) -> None:
    tensors = load_file(llama / "model.safetensors")
    del tensors["model.layers.0.mlp.up_proj.weight"]
    save_file(tensors, llama / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BadInput, match=r"lacks 1 tensors of LlamaForCausalLM.*'model\.layers\.0\.mlp\.up_proj\.weight'"):
        Source(llama).open()


def test_tensors_that_are_left_out_are_told(llama: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tensors = load_file(llama / "model.safetensors")
    save_file({**tensors, "model.extra_head.weight": torch.ones(2)}, llama / "model.safetensors", metadata={"format": "pt"})
    assert Source(llama).open().kind == "huggingface"
    assert "'model.extra_head.weight'" in capsys.readouterr().err


def test_a_factory_for_a_folder_that_needs_none(llama: Path) -> None:
    with pytest.raises(BadInput, match="leave out --factory"):
        Source(llama, "toy:build").open()
