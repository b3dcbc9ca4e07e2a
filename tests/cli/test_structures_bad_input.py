"""Bad input to secateurs plan, prune and advise of structures: what a person reads, the exit code, and nothing written."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.planning.nets import Attention
from tests.train.unprunable import REFUSED

FACTORY = """
from tests.planning.nets import Attention
from tests.train.unprunable import REFUSED

{functions}
"""


@pytest.fixture
def nets(here: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with ``odd.py``, which builds every module that is refused."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2]))
    functions = [f"{name.replace(' ', '_')} = REFUSED[{name!r}][0]" for name in REFUSED]
    (here / "odd.py").write_text(FACTORY.format(functions="\n".join(functions)))
    save_file(Attention().state_dict(), here / "att.safetensors")
    return here


def storable(name: str) -> bool:
    """Whether a safetensors file can hold the weights (not those without values, or packed)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        values = REFUSED[name][0]().state_dict().values()
    return all(isinstance(value, torch.Tensor) and not value.is_quantized and not value.is_meta for value in values)


@pytest.mark.parametrize("name", [name for name in REFUSED if storable(name)])
@pytest.mark.filterwarnings("ignore")
def test_a_module_that_cannot_be_pruned(nets: Path, command, name: str) -> None:
    build, says = REFUSED[name]
    save_file(build().state_dict(), nets / "odd.safetensors")
    given = ("odd.safetensors", "--factory", f"odd:{name.replace(' ', '_')}", "--input", "4x6", "--structure", "neurons")
    result = command("prune", *given, "--ratio", "0.5", "--out", "out")
    assert result.exit_code == 2 and not (nets / "out").exists()
    assert all(words in result.stderr for words in says), result.stderr
    assert result.stderr.startswith("secateurs prune: ") and result.stderr.count("\n") == 1


NET = ("att.safetensors", "--factory", "odd:Attention")


@pytest.mark.parametrize(("words", "says"), [
    ([*NET, "--structure", "neurons", "--ratio", "0.5"], "what does this Attention take? Add --input"),
    ([*NET, "--input", "2x5x7", "--structure", "neurons", "--ratio", "0.5"], "does not run on the example"),
    ([*NET, "--input", "2x5x6:int64", "--structure", "neurons", "--ratio", "0.5"], "does not run on the example"),
    ([*NET, "--input", "0x5x6", "--structure", "neurons", "--ratio", "0.5"], "the example is empty"),
    ([*NET, "--input", "y=2x5x6", "--structure", "neurons", "--ratio", "0.5"], "unexpected keyword argument 'y'"),
    ([*NET, "--input", "2x5x6", "--structure", "neuron", "--ratio", "0.5"], "did you mean 'neurons'"),
    ([*NET, "--input", "2x5x6", "--structure", "experts", "--ratio", "0.5"], "it has groups of"),
    ([*NET, "--input", "2x5x6", "--structure", "neurons", "--ratio", "1"], "at least 0 and below 1"),
    ([*NET, "--input", "2x5x6", "--structure", "neurons"], "how much?"),
    ([*NET, "--input", "2x5x6", "--structure", "neurons", "--params", "10"], "out of reach"),
    ([*NET, "--input", "2x5x6", "--structure", "neurons", "--ratio", "0.5", "--criterion", "taylor"], "needs calibration"),
    ([*NET, "--input", "2x5x6", "--structure", "neurons", "--ratio", "0.5", "--include", "nothing"], "matches no tensor"),
])  # fmt: skip
def test_what_cannot_work_is_said(nets: Path, command, words, says) -> None:
    result = command("prune", *words, "--out", "out")
    assert result.exit_code == 2 and says in result.stderr, result.stderr
    assert not (nets / "out").exists() and result.stdout == ""


def test_a_model_of_transformers_is_asked_by_its_own_names(here: Path, command) -> None:
    transformers = pytest.importorskip("transformers")
    sizes = {"d_model": 8, "d_kv": 4, "d_ff": 8, "num_layers": 1, "num_heads": 2, "vocab_size": 20}
    transformers.T5ForConditionalGeneration(transformers.T5Config(**sizes)).save_pretrained(here / "t5")
    asked = command("plan", "t5", "--structure", "neurons", "--ratio", 0.5)
    says = "--input input_ids=2x16:int64 --input decoder_input_ids=2x8:int64"
    assert asked.exit_code == 2 and says in asked.stderr
    told = command("plan", "t5", "--structure", "neurons", "--ratio", 0.5, *says.split())
    assert told.exit_code == 0, told.stderr


def test_an_image_model_in_half_precision_gets_images_of_its_own(here: Path, command) -> None:
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 8}
    model = transformers.ViTForImageClassification(transformers.ViTConfig(patch_size=4, **sizes))
    model.to(torch.bfloat16).save_pretrained(here / "vit")
    told = command("plan", "vit", "--structure", "neurons", "--ratio", 0.5)
    assert told.exit_code == 0, told.stderr


def test_advice_takes_several_structures_with_commas(nets: Path, as_json, command) -> None:
    told = as_json("advise", *NET, "--input", "2x5x6", "--structure", "heads,neurons", "--ratio", 0.5)
    assert len(told["points"]) == 1 and told["points"][0]["parameters"] < 1
    shown = command("advise", *NET, "--input", "2x5x6", "--structure", "neurons", "--ratio", 0.5)
    assert "50% off" in shown.stdout and "- 50% of every group removed: " in shown.stdout
