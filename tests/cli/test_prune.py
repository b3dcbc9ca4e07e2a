"""secateurs prune: what is written, what is proved, and that flags, recipe and Python call say the same."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import secateurs as sc

NET = ("net.safetensors", "--factory", "toy:build")


def test_writes_a_folder_that_loads(here: Path, as_json) -> None:
    import toy

    told = as_json("prune", *NET, "--sparsity", 0.8, "--out", "pruned")
    kept = [(row["name"], row["kept"], row["size"]) for row in told["report"]]
    assert kept == [("0.weight", 24, 120), ("2.weight", 12, 60), ("total", 36, 180)]
    assert told["verified"]["ok"]
    assert {c["name"] for c in told["verified"]["checks"]} == {"exact counts", "planned entries are zero", "reloaded tensors"}
    loaded = sc.load("pruned", factory=toy.build)
    assert int(torch.count_nonzero(loaded[0].weight)) == 24
    beside = {p.name for p in (here / "pruned").iterdir()}
    assert {"plan.json", "plan.safetensors", "recipe.yaml", "report.json", "secateurs.json", "weights.safetensors"} <= beside


def test_sizes_told_are_those_of_the_files(here: Path, as_json) -> None:
    told = as_json("prune", *NET, "--sparsity", 0.8, "--out", "pruned")["sizes"]
    info = json.loads((here / "pruned" / "secateurs.json").read_text())["sizes"]
    assert told["before"]["dense_bytes"] == info["dense_bytes"] == 4 * (120 + 20 + 40 + 60 + 3)
    assert told["after"]["paper_bytes"] == pytest.approx(info["paper_bytes"], abs=1)
    assert told["after"]["stored_bytes"] == (here / "pruned" / "weights.safetensors").stat().st_size
    assert told["after"]["nonzero"] == info["nonzero"]


@pytest.mark.parametrize(
    ("flags", "settings"),
    [
        (["--sparsity", "0.5"], {"method": "magnitude", "sparsity": 0.5}),
        (["--method", "global-magnitude", "--keep", "30"], {"method": "global-magnitude", "keep": 30}),
        (["--method", "global-magnitude", "--keep", "0.25"], {"method": "global-magnitude", "keep": 0.25}),
        (["--total-sparsity", "0.4", "--exclude", "2.*"], {"method": "magnitude", "total_sparsity": 0.4, "exclude": ("2.*",)}),
        (["--method", "random", "--sparsity", "0.5", "--seed", "7"], {"method": "random", "sparsity": 0.5, "seed": 7}),
        (["--structure", "2:4", "--include", "2", "--type", "linear"],
         {"method": "magnitude", "structure": "2:4", "include": ("2",), "types": ("linear",)}),
        (["--sparsity", "0.5", "--override", "2.weight=0.25", "--exempt", "first-conv"],
         {"method": "magnitude", "sparsity": 0.5, "overrides": {"2.weight": 0.25}, "exempt": ("first-conv",)}),
        (["--sparsity", "0.5", "--allocation", "per-row", "--criterion", "random"],
         {"method": "magnitude", "sparsity": 0.5, "allocation": "per-row", "criterion": "random"}),
        (["--sparsity", "0.8", "--allocation", "global-floor", "--allocation-option", "layer_floor=0.15"],
         {"method": "magnitude", "sparsity": 0.8, "allocation": "global-floor", "allocation_options": {"layer_floor": 0.15}}),
    ],
)  # fmt: skip
def test_flags_call_and_recipe_say_the_same(here: Path, as_json, flags: list[str], settings: dict) -> None:
    import toy

    as_json("prune", *NET, *flags, "--out", "by-flags")
    written = here / "by-flags" / "recipe.yaml"
    as_json("prune", *NET, "--recipe", written, "--out", "by-recipe")
    called = sc.prune(toy.build(), **settings)
    assert sc.Recipe.from_yaml(written) == called.recipe
    for folder in ("by-flags", "by-recipe"):
        masks = sc.Plan.load(folder).masks
        assert list(masks) == list(called.plan.masks)
        for name, mask in called.plan.masks.items():
            assert torch.equal(masks[name], mask), (folder, name)


def test_a_flag_overrides_the_recipe(here: Path, as_json) -> None:
    Path("r.yaml").write_text("method: magnitude\nkeep: 0.1\nexclude: ['2.*']\nseed: 3\n")
    told = as_json("prune", *NET, "--recipe", "r.yaml", "--sparsity", 0.5, "--out", "pruned")
    assert told["report"][-1] == {"name": "total", "shape": None, "size": 120, "kept": 60, "removed": 60, "sparsity": 0.5}
    assert "keep" not in told["recipe"]
    assert told["recipe"]["seed"] == 3


def test_the_table_adds_up_and_speaks_plainly(here: Path, command) -> None:
    result = command("prune", *NET, "--sparsity", 0.8, "--out", "pruned")
    assert result.exit_code == 0
    total = next(line for line in result.stdout.splitlines() if line.startswith("total"))
    assert total.split() == ["total", "180", "36", "80.00", "%"]
    assert "dense kernels multiply the zeros too" in result.stdout
    assert "paper's accounting" in result.stdout
    assert result.stderr == ""


@pytest.mark.parametrize(("method", "says"), [("gmp", "pruner.attach(optimizer)"), ("taylor", "calibration=batches")])
def test_methods_with_needs_show_the_python(here: Path, command, method: str, says: str) -> None:
    result = command("prune", *NET, "--method", method, "--sparsity", 0.5, "--out", "pruned")
    assert result.exit_code == 2
    assert says in result.stderr
    assert not Path("pruned").exists()


def test_hugging_face_to_both_formats(llama: Path, as_json) -> None:
    from transformers import AutoModelForCausalLM

    before = load_file(llama / "model.safetensors")
    for form in ("secateurs", "huggingface"):
        told = as_json("prune", llama, "--structure", "2:4", "--exempt", "embedding", "--out", form, "--format", form)
        assert told["verified"]["ok"]
        assert (Path(form) / "tokenizer.json").is_file()
    ordinary = AutoModelForCausalLM.from_pretrained("huggingface").state_dict()
    ours = sc.load("secateurs").state_dict()
    assert all(torch.equal(ordinary[name], ours[name]) for name in ours)
    weight = ours["model.layers.0.mlp.up_proj.weight"]
    assert torch.equal(torch.count_nonzero(weight.reshape(16, 2, 4), -1), torch.full((16, 2), 2))
    assert torch.equal(ours["model.embed_tokens.weight"], before["model.embed_tokens.weight"])


def test_a_pruned_folder_is_a_model_too(here: Path, as_json) -> None:
    as_json("prune", *NET, "--sparsity", 0.5, "--out", "half")
    told = as_json("prune", "half", "--factory", "toy:build", "--sparsity", 0.75, "--out", "quarter")
    first, second = sc.Plan.load("half").masks, sc.Plan.load("quarter").masks
    assert told["report"][-1]["kept"] == 45
    assert all(bool((second[n] <= first[n]).all()) for n in first)


def test_tied_weights_count_once(here: Path, as_json) -> None:
    import toy

    tensors = toy.tied().state_dict()
    save_file({name: value for name, value in tensors.items() if name != "3.weight"}, "tied.safetensors")
    told = as_json("prune", "tied.safetensors", "--factory", "toy:tied", "--sparsity", 0.5, "--out", "pruned")
    assert told["report"][-1]["size"] == 180


def test_an_existing_folder_is_kept_unless_told(here: Path, command) -> None:
    words = ("prune", *NET, "--sparsity", 0.5, "--out", "pruned")
    assert command(*words).exit_code == 0
    manifest = Path("pruned/secateurs.json").read_bytes()
    again = command("prune", *NET, "--sparsity", 0.6, "--out", "pruned")
    assert (again.exit_code, Path("pruned/secateurs.json").read_bytes()) == (2, manifest)
    assert "--overwrite" in again.stderr
    assert command("prune", *NET, "--sparsity", 0.6, "--out", "pruned", "--overwrite").exit_code == 0
    assert Path("pruned/secateurs.json").read_bytes() != manifest


@pytest.mark.parametrize(
    ("flags", "quotes"),
    [
        (["--sparsity", "1.5"], "sparsity=1.5"),
        (["--sparsity", "0.5", "--keep", "0.5"], "sparsity and keep"),
        (["--keep", "many"], "--keep 'many'"),
        (["--keep", "0"], "keep=0"),
        ([], "how much?"),
        (["--sparsity", "0.5", "--method", "magnitud"], "did you mean 'magnitude'"),
        (["--sparsity", "0.5", "--structure", "3of4"], "'3of4'"),
        (["--sparsity", "0.5", "--allocation", "globall"], "globall"),
        (["--sparsity", "0.5", "--include", "2.wieght"], "did you mean '2.weight'"),
        (["--sparsity", "0.5", "--override", "2.weight"], "write KEY=VALUE"),
        (["--sparsity", "0.5", "--option", "order=all"], "has no option 'order'"),
        (["--sparsity", "0.5", "--format", "hugingface"], "did you mean 'huggingface'"),
        (["--structure", "4:8"], "'0.weight'"),
        (["--recipe", "absent.yaml"], "'absent.yaml'"),
    ],
)
def test_bad_input_is_one_line_that_quotes_it(here: Path, command, flags: list[str], quotes: str) -> None:
    result = command("prune", *NET, *flags, "--out", "pruned")
    assert result.exit_code == 2
    assert quotes in result.stderr
    assert result.stderr.startswith("secateurs prune: ")
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""
    assert not Path("pruned").exists()


def test_a_wrong_recipe_quotes_its_key(here: Path, command) -> None:
    Path("r.yaml").write_text("method: magnitude\nsparsty: 0.5\n")
    result = command("prune", *NET, "--recipe", "r.yaml", "--out", "pruned")
    assert (result.exit_code, "did you mean 'sparsity'" in result.stderr) == (2, True)


def test_non_finite_weights_are_named(here: Path, command) -> None:
    tensors = load_file("net.safetensors")
    tensors["2.weight"][1, 2] = float("nan")
    save_file(tensors, "nan.safetensors")
    result = command("prune", "nan.safetensors", "--factory", "toy:build", "--sparsity", 0.5, "--out", "pruned")
    assert (result.exit_code, "'2.weight'" in result.stderr) == (2, True)
