"""secateurs inspect, verify, export, methods, demo, and what holds for every command."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import secateurs as sc
from secateurs.cli import failing
from secateurs.errors import BadInput, BrokenPromise, CorruptFile, MissingExtra

NET = ("net.safetensors", "--factory", "toy:build")
SOURCE = Path(__file__).parents[2] / "src"


def test_inspect_tells_what_and_why_not(here: Path, as_json) -> None:
    told = as_json("inspect", *NET, "--exclude", "2")
    layers = {row["name"]: row for row in told["layers"]}
    assert list(layers) == ["0.weight", "0.bias", "1.weight", "1.bias", "2.weight", "2.bias"]
    first = layers["0.weight"]
    assert (first["prunable"], first["kind"], first["shape"]) == (True, "linear", [20, 6])
    assert layers["2.weight"]["reason"] == "named by exclude='2'"
    assert layers["1.weight"]["reason"] == "part of a normalisation"
    assert told["totals"]["parameters"] == 243
    assert told["totals"]["dense_bytes"] == 4 * 243


def test_inspect_counts_zeros_now(here: Path, as_json) -> None:
    as_json("prune", *NET, "--sparsity", 0.5, "--out", "half")
    rows = as_json("inspect", "half", "--factory", "toy:build")["layers"]
    assert [row["zeros"] for row in rows if row["prunable"]] == [60, 30]


def test_inspect_tells_how_unequal_the_weights_of_a_layer_are(here: Path, as_json, command) -> None:
    weights = load_file("net.safetensors")
    weights["0.weight"] = torch.zeros(20, 6)
    weights["0.weight"][0, :3] = torch.tensor([1.0, -4.0, 9.0])  # of those that are not zero: 1 - (1 + 2 + 3)^2 / (3 * 14)
    weights["2.weight"].fill_(-0.5)
    save_file(weights, "odd.safetensors")
    rows = as_json("inspect", "odd.safetensors", "--factory", "toy:build")["layers"]
    found = {row["name"]: row["pq_index"] for row in rows}
    assert found["0.weight"] == pytest.approx(1 / 7) and found["2.weight"] == pytest.approx(0) and found["0.bias"] is None
    assert "PQ index" in command("inspect", *NET).output


def test_inspect_of_a_model_without_anything_to_prune(here: Path, command) -> None:
    Path("norms.py").write_text("from torch import nn\ndef build():\n    return nn.LayerNorm(4)\n")
    save_file({"weight": torch.ones(4), "bias": torch.zeros(4)}, "norm.safetensors")
    result = command("inspect", "norm.safetensors", "--factory", "norms:build")
    assert result.exit_code == 0
    assert "0 of 8 parameters" in result.stdout


@pytest.mark.parametrize("width", [60, 80, 100])
def test_a_terminal_crops_nothing(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    """Folded names join up again, and no line is wider than the terminal."""
    from rich.console import Console

    from secateurs.cli import showing
    from secateurs.report import Table

    console = Console(width=width, force_terminal=True, color_system=None, record=True, file=io.StringIO())
    monkeypatch.setattr(showing, "Console", lambda: console)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    name = "model.layers.0.self_attention.query_key_value_projection.weight"
    showing.show(Table(("layer", "kind", "weights"), (((name, "linear", "1,024"),),), left=2))
    shown = console.export_text().splitlines()
    assert max(map(len, shown)) <= width
    assert "".join("".join(shown[3:]).split()).replace("linear1,024", "") == name
    showing.facts({"word": "much to say " * 12})
    assert " ".join(console.export_text().split()).count("much to say") == 12


def test_verify_holds_without_and_with_a_factory(here: Path, as_json) -> None:
    as_json("prune", *NET, "--sparsity", 0.5, "--out", "half")
    without, with_it = as_json("verify", "half"), as_json("verify", "half", "--factory", "toy:build")
    assert [c["name"] for c in without["checks"]] == ["checksums", "planned entries are zero"]
    assert {c["name"] for c in with_it["checks"]} == {"checksums", "loads", "exact counts", "planned entries are zero"}
    assert without["ok"] and with_it["ok"]


def test_verify_finds_weights_that_came_back(llama: Path, as_json, command) -> None:
    as_json("prune", llama, "--sparsity", 0.5, "--out", "half", "--format", "huggingface")
    tensors = load_file("half/model.safetensors")
    tensors["lm_head.weight"] += 1
    save_file(tensors, "half/model.safetensors", metadata={"format": "pt"})
    result = command("verify", "half")
    assert result.exit_code == 3
    assert "BROKEN: planned entries are zero" in result.stdout
    assert "non-zero in 'lm_head.weight'" in result.stdout


def test_verify_refuses_an_altered_file(here: Path, as_json, command) -> None:
    as_json("prune", *NET, "--sparsity", 0.5, "--out", "half")
    content = bytearray(Path("half/weights.safetensors").read_bytes())
    content[-1] ^= 1
    Path("half/weights.safetensors").write_bytes(content)
    result = command("verify", "half")
    assert (result.exit_code, "altered" in result.stderr) == (2, True)


def test_verify_says_when_there_is_nothing_to_verify(llama: Path, command) -> None:
    result = command("verify", "net.safetensors")
    assert (result.exit_code, "is not a folder" in result.stderr) == (2, True)


def test_export_to_an_ordinary_folder(llama: Path, as_json) -> None:
    from transformers import AutoModelForCausalLM

    as_json("prune", llama, "--sparsity", 0.5, "--out", "sparse")
    assert as_json("export", "sparse", "--out", "plain")["verified"]["ok"]
    exported = AutoModelForCausalLM.from_pretrained("plain").state_dict()
    assert all(torch.equal(value, exported[name]) for name, value in sc.load("sparse").state_dict().items())
    assert Path("plain/tokenizer.json").is_file()
    assert sc.Plan.load("plain").removed == sc.Plan.load("sparse").removed


def test_export_of_a_plain_network_says_what_works(here: Path, as_json, command) -> None:
    as_json("prune", *NET, "--sparsity", 0.5, "--out", "half")
    result = command("export", "half", "--factory", "toy:build", "--out", "plain")
    assert (result.exit_code, "format='secateurs'" in result.stderr) == (2, True)
    assert not Path("plain").exists()


def test_methods_as_data_and_as_text(command, as_json) -> None:
    told = as_json("methods")
    assert [m["name"] for m in told] == [m.name for m in sc.methods()]
    assert all(m["paper"] and m["when"] for m in told)
    text = command("methods").stdout
    assert all(m["name"] in text and m["paper"] in text for m in told)


def test_demo_passes_its_flags_on(monkeypatch: pytest.MonkeyPatch, command) -> None:
    import secateurs.demo

    calls = []
    monkeypatch.setattr(secateurs.demo, "run", lambda out, **settings: calls.append((out, settings)) or 3)
    assert command("demo", "--out", "there", "--seeds", 2, "--quick").exit_code == 3
    assert calls == [(Path("there"), {"seeds": 2, "quick": True})]


@pytest.mark.parametrize(
    ("error", "code"),
    [(BadInput("x"), 2), (CorruptFile("x"), 2), (MissingExtra("x"), 2), (BrokenPromise("x"), 3), (RuntimeError("x"), 1)],
)
def test_exit_codes(error: Exception, code: int) -> None:
    assert failing.exit_code(error) == code


def test_a_surprise_is_one_line_and_debug_shows_where(monkeypatch: pytest.MonkeyPatch, command) -> None:
    import secateurs.demo

    def fail(*_: object, **__: object) -> int:
        raise RuntimeError("out of\npaper")

    monkeypatch.setattr(secateurs.demo, "run", fail)
    plain, debug = command("demo", "--out", "there"), command("--debug", "demo", "--out", "there")
    assert (plain.exit_code, debug.exit_code) == (1, 1)
    assert plain.stderr == "secateurs demo: failed: RuntimeError: out of paper (secateurs --debug ... shows where)\n"
    assert "Traceback" in debug.stderr


def run(*words: str, code: str = "from secateurs.cli import main; main()") -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(SOURCE), "COLUMNS": "80"}
    return subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, env=environment, timeout=120)


def test_in_a_process_of_its_own(here: Path) -> None:
    done = run("prune", *NET, "--sparsity", "0.5", "--out", "half", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["report"][-1]["kept"] == 90
    assert done.stderr == ""
    wrong = run("prune", *NET, "--sparsity", "0.5", "--out", "half")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr.startswith("secateurs prune: --out 'half' exists")


def test_version_and_help_load_nothing_heavy() -> None:
    code = """
import sys
from secateurs.cli import main
try:
    main()
except SystemExit as end:
    heavy = [m for m in ("torch", "transformers", "safetensors", "sklearn", "matplotlib") if m in sys.modules]
    sys.exit(end.code or (f"loaded {heavy}" if heavy else 0))
"""
    version, usage = run("--version", code=code), run("prune", "--help", code=code)
    assert (version.returncode, version.stdout) == (0, f"secateurs {sc.__version__}\n"), version.stderr
    assert usage.returncode == 0, usage.stderr
    assert "--total-sparsity" in usage.stdout


def test_without_the_extra_it_names_the_extra() -> None:
    done = run("methods", code="import sys; sys.modules['typer'] = None\nfrom secateurs.cli import main; main()")
    assert done.returncode == 2
    assert "pip install 'secateurs[cli]'" in done.stderr
    assert done.stderr.count("\n") == 1
