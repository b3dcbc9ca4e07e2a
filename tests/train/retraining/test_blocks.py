"""Blocks that relearn what they gave: the closed form of a bias, blocks that lost nothing, targets, padding, resuming."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import secateurs as sc
from secateurs.errors import BadInput

OPTIONS: dict[str, Any] = {"rank": 2, "steps": 30, "lr": 0.02}


class Block(nn.Module):
    """A residual block with a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(6), nn.Linear(6, 12), nn.Linear(12, 6)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(torch.relu(self.up(self.norm(x))))


def stack(dtype: torch.dtype = torch.float32) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(Block(), Block(), Block()).to(dtype)


def batches(dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """Correlated inputs, of which the zeros can be made up for."""
    generator = torch.Generator().manual_seed(1)
    mixing = torch.randn(3, 6, generator=generator)
    return [(torch.randn(16, 3, generator=generator) @ mixing).to(dtype) for _ in range(4)]


def perp(model: nn.Module, sparsity: float = 0.5, **options: Any) -> Any:
    return sc.prune(model, "perp", sparsity=sparsity, calibration=batches(), options={**OPTIONS, **options})


def test_biases_alone_are_the_mean_of_what_was_lost() -> None:
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(6, 4)).double(), batches(torch.float64)
    with torch.no_grad():
        done = sc.prune(model, "perp", sparsity=0.5, calibration=x, options={"norms": False, "adapter": "none"})
        pruned = sc.prune(model, "magnitude", sparsity=0.5)
        every = torch.cat(x)
        lost = (model(every) - pruned.model(every)).mean(0)
    assert torch.equal(done.model[0].weight, pruned.model[0].weight)
    assert torch.allclose(done.model[0].bias - model[0].bias, lost, rtol=0, atol=1e-12)
    assert lost.abs().min() > 1e-3


def test_biases_of_a_convolution_are_means_over_places_too() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 3, 2)).double()
    x = [torch.randn(4, 2, 5, 5).double() + 1 for _ in range(3)]
    done = sc.prune(model, "perp", sparsity=0.5, calibration=x, options={"norms": False, "adapter": "none"})
    pruned = sc.prune(model, "magnitude", sparsity=0.5)
    with torch.no_grad():
        lost = (model(torch.cat(x)) - pruned.model(torch.cat(x))).mean((0, 2, 3))
    assert torch.allclose(done.model[0].bias - model[0].bias, lost, rtol=0, atol=1e-12)


def test_trained_biases_come_to_the_same() -> None:
    """The layer inside a block of two modules is not solved but trained; its optimum is the closed form."""
    torch.manual_seed(0)

    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(6, 6)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x)

    model = nn.Sequential(Wrapped(), Wrapped()).double()
    x = [torch.cat(batches(torch.float64))]
    options = {"norms": False, "adapter": "none", "steps": 150, "lr": 0.03}
    done = sc.prune(model, "perp", sparsity=0.5, calibration=x, options=options)
    pruned = sc.prune(model, "magnitude", sparsity=0.5)
    with torch.no_grad():
        every = torch.cat(x)
        lost = (model[0](every) - pruned.model[0](every)).mean(0)
        second = (model[1](done.model[0](every)) - pruned.model[1](done.model[0](every))).mean(0)
    assert torch.allclose(done.model[0].layer.bias - model[0].layer.bias, lost, atol=2e-3)
    # targets of the second are its dense weights' on what the first, pruned and reconstructed, gives
    assert torch.allclose(done.model[1].layer.bias - model[1].layer.bias, second, atol=2e-3)


@pytest.mark.parametrize("adapter", ["mask-lora", "scale-lora", "lora-prune", "none"])
def test_a_block_of_which_nothing_is_pruned_stays_as_it_is(adapter: str) -> None:
    model = stack()
    done = perp(model, 0.0, adapter=adapter)
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), done.model.state_dict().values(), strict=True))
    assert {row.get("block_error") for row in done.report[:-1]} == {0.0}


@pytest.mark.parametrize("adapter", ["mask-lora", "scale-lora", "lora-prune", "none"])
def test_every_block_comes_nearer_to_its_dense_output_and_keeps_its_zeros(adapter: str) -> None:
    model = stack()
    done = perp(model, adapter=adapter)
    pruned = sc.prune(model, "magnitude", sparsity=0.5)
    assert done.plan.diff(pruned.plan) == [] and sc.verify(done.model, done.plan).ok
    for row in done.report[:-1]:
        assert row["block_error"] < row["block_error_pruned"]
    changed = {name for name, p in done.model.named_parameters() if not torch.equal(p, pruned.model.get_parameter(name))}
    weights = set(done.plan.masks) if adapter != "none" else set()
    assert weights <= changed and "0.norm.weight" in changed and "1.up.bias" in changed
    assert list(done.model.state_dict()) == list(model.state_dict())
    assert [type(m) for m in done.model.modules()] == [type(m) for m in model.modules()]
    assert all(p.requires_grad and p.grad is None for p in done.model.parameters())
    every = torch.cat(batches())
    with torch.no_grad():
        errors = [(m.model(every) - model(every)).square().mean() for m in (done, pruned)]
    assert errors[0] < errors[1]


def test_the_reported_error_is_that_of_the_blocks_output() -> None:
    model = stack()
    done = perp(model)
    every = torch.cat(batches())
    with torch.no_grad():
        target, given = model[0](every).double(), done.model[0](every).double()
    found = {row["name"]: row["block_error"] for row in done.report[:-1]}
    assert found["0.up.weight"] == found["0.down.weight"]
    assert found["0.up.weight"] == pytest.approx(float((given - target).square().sum() / target.square().sum()), rel=1e-6)


def test_training_that_does_not_help_is_undone() -> None:
    model = stack()
    done = perp(model, lr=1e4)
    pruned = sc.prune(model, "magnitude", sparsity=0.5)
    assert all(row["block_error"] == row["block_error_pruned"] for row in done.report[:-1])
    assert all(torch.equal(p, pruned.model.get_parameter(name)) for name, p in done.model.named_parameters())


def test_the_criterion_may_be_another() -> None:
    wanda = sc.prune(stack(), "wanda", sparsity=0.5, calibration=batches(), include=["0.*"], structure="1:2")
    done = sc.prune(stack(), "perp", sparsity=0.5, calibration=batches(), include=["0.*"], criterion="wanda",
                    structure="1:2", options=OPTIONS)  # fmt: skip
    assert done.plan.removed == wanda.plan.removed
    for name, mask in done.plan.masks.items():
        assert torch.equal(mask, wanda.plan.masks[name]) and name.startswith("0.")
    assert sc.verify(done.model, done.plan).ok


def test_16_bit_models_train_in_32_and_end_in_16() -> None:
    done = sc.prune(stack(torch.bfloat16), "perp", sparsity=0.5, calibration=batches(torch.bfloat16), options=OPTIONS)
    assert {p.dtype for p in done.model.parameters()} == {torch.bfloat16}
    assert done.report[0]["block_error"] < done.report[0]["block_error_pruned"]
    assert sc.verify(done.model, done.plan).ok


def test_dropout_is_drawn_anew_and_by_the_seed() -> None:
    first, again, other = (perp(stack(), dropout=p).model[0].up.weight for p in (0.3, 0.3, 0.0))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_a_killed_walk_goes_on_to_the_same_bits(tmp_path: Any) -> None:
    class Killed(Exception):
        pass

    def kill(done: Any) -> None:
        if done.number == 2:
            raise Killed

    settings: dict[str, Any] = {"sparsity": 0.5, "calibration": batches(), "options": OPTIONS}
    whole = sc.prune(stack(), "perp", **settings)
    with pytest.raises(Killed):
        sc.prune(stack(), "perp", state=tmp_path / "state", progress=kill, **settings)
    resumed = sc.prune(stack(), "perp", state=tmp_path / "state", **settings)
    values = zip(whole.model.state_dict().values(), resumed.model.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in values)
    assert resumed.report == whole.report


def test_padding_does_not_count() -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        vocab_size=32, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1
    )
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(config)
    ids = torch.randint(3, 32, (4, 10), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[:2, 6:] = 0
    found = []
    for fill in (0, 1):
        batch = {"input_ids": torch.where(mask == 1, ids, fill), "attention_mask": mask}
        done = sc.prune(model, "perp", sparsity=0.5, calibration=[batch], options=OPTIONS)
        found.append(done.model.model.layers[0].mlp.up_proj.weight)
        assert done.report[0]["block_error"] < done.report[0]["block_error_pruned"]
    assert torch.allclose(found[0], found[1], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["gpt2", "mixtral"])
def test_a_model_in_its_files_gets_the_bits_of_one_in_memory(name: str, tmp_path: Any) -> None:
    pytest.importorskip("transformers")
    from secateurs.train import prune_folder
    from tests.models.families import batches, family

    model, given = family(name, torch.float32), batches(name, dtype=torch.float32)
    model.save_pretrained(tmp_path / "model")
    settings: dict[str, Any] = {"sparsity": 0.5, "calibration": given, "options": {**OPTIONS, "steps": 5}}
    prune_folder(tmp_path / "model", "perp", out=tmp_path / "out", memory=64 * 10**9, **settings)
    wanted = sc.prune(model, "perp", **settings).model.state_dict()
    found = type(model).from_pretrained(tmp_path / "out", local_files_only=True).state_dict()
    assert found.keys() == wanted.keys() and all(torch.equal(found[key], wanted[key]) for key in wanted)


def test_what_cannot_be_reconstructed_is_refused() -> None:
    with pytest.raises(BadInput, match="trains nothing: leave one of them on"):
        perp(stack(), biases=False, norms=False, adapter="none")
    with pytest.raises(BadInput, match="option adapter='lora' of 'perp': use one of"):
        perp(stack(), adapter="lora")
    with pytest.raises(BadInput, match="option rank=0 of 'perp'"):
        perp(stack(), rank=0)
    with pytest.raises(BadInput, match="pass calibration="):
        sc.prune(stack(), "perp", sparsity=0.5)
