"""A session: only what is listed trains, zeros stay zeros, the merge is exact, and a killed run goes on to the same bits."""

from __future__ import annotations

import copy
import io
import json
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import secateurs as sc
from secateurs.errors import BadInput, BrokenPromise
from secateurs.planning import Plan
from secateurs.train import Held
from secateurs.train.retraining import ADAPTERS
from tests.train.retraining.nets import Net, batches, pruned, train

PARTS = {
    "biases": {"first.bias", "second.bias", "head.bias"},
    "norms": {"norm.weight", "norm.bias"},
    "head": {"head.weight", "head.bias"},
}
ADAPTED = {"first.weight", "second.weight"}
MERGING = [name for name in ADAPTERS if name != "lora"]
WAYS: list[dict[str, Any]] = [
    {"parts": ["biases"]},
    {"parts": ["norms"]},
    {"parts": ["biases", "norms"]},
    {"parts": ["head"]},
    *({"adapter": name, "rank": 2} for name in MERGING),
    {"parts": ["biases", "norms", "head"], "adapter": "mask-lora", "rank": 2},
]


def adamw(session: sc.Retraining, lr: float = 0.05) -> torch.optim.Optimizer:
    return torch.optim.AdamW(session.parameters(), lr=lr, weight_decay=0.0)


def zeros(model: nn.Module, plan: Plan) -> bool:
    return all(bool((model.get_parameter(name)[~mask] == 0).all()) for name, mask in plan.masks.items())


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_only_what_is_listed_changes_and_every_zero_stays(way: dict[str, Any]) -> None:
    done = pruned()
    before = {name: p.detach().clone() for name, p in done.model.named_parameters()}
    session = sc.Retraining(done.model, done.plan, **way)
    session.attach(optimizer := adamw(session))
    train(done.model, optimizer, batches(4))
    model = session.finish()
    assert model is done.model and session.step_count == 4
    listed = set().union(*(PARTS[part] for part in way.get("parts", [])), ADAPTED if "adapter" in way else set())
    changed = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert changed == listed
    assert [name for name, _ in model.named_parameters()] == list(before)
    assert zeros(model, done.plan) and sc.verify(model, done.plan).ok
    assert all(p.requires_grad for p in model.parameters())
    assert {type(module) for module in model.modules()} == {Net, nn.Linear, nn.LayerNorm}
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("adapter", ["mask-lora", "scale-lora"])
def test_the_merged_model_gives_what_the_adapted_one_gave(adapter: str, dtype: torch.dtype) -> None:
    done = pruned(dtype)
    session = sc.Retraining(done.model, done.plan, parts=["biases", "norms", "head"], adapter=adapter, rank=2)
    session.attach(optimizer := adamw(session))
    train(done.model, optimizer, batches(3, dtype))
    x = batches(1, dtype)[0][0]
    adapted = done.model(x)
    assert torch.equal(session.finish()(x), adapted)
    assert {p.dtype for p in done.model.parameters()} == {dtype}


def test_lora_prune_changes_what_the_model_gives_when_it_is_merged() -> None:
    done = pruned()
    session = sc.Retraining(done.model, done.plan, adapter="lora-prune", rank=2)
    session.attach(optimizer := adamw(session))
    train(done.model, optimizer, batches(3))
    adapted = done.model(x := batches(1)[0][0])
    assert not torch.allclose(session.finish()(x), adapted, atol=1e-3)


def test_lora_is_not_merged_into_pruned_weights_but_can_stay_beside_them() -> None:
    done = pruned()
    session = sc.Retraining(done.model, done.plan, adapter="lora", rank=2)
    session.attach(optimizer := adamw(session))
    train(done.model, optimizer, batches(3))
    adapted = done.model(x := batches(1)[0][0])
    with pytest.raises(BadInput, match=r"'lora' cannot be merged into 'first.weight' and 1 other pruned weights"):
        session.finish()
    model = session.finish(merge=False)
    assert torch.equal(model(x), adapted)
    for name, mask in done.plan.masks.items():
        layer = model.get_submodule(name.removesuffix(".weight"))
        assert torch.all(layer.parametrizations.weight.original[~mask] == 0) and torch.count_nonzero(layer.weight[~mask])


def test_lora_merges_into_weights_of_which_nothing_is_pruned() -> None:
    torch.manual_seed(0)
    done = sc.prune(Net(), "magnitude", sparsity=0.5, overrides={"second": 0.0}, exclude=["head", "first"])
    session = sc.Retraining(done.model, done.plan, adapter="lora", rank=2)
    session.attach(optimizer := adamw(session))
    train(done.model, optimizer, batches(2))
    adapted = done.model(x := batches(1)[0][0])
    assert torch.equal(session.finish()(x), adapted)


def test_the_share_is_counted() -> None:
    done = pruned()
    session = sc.Retraining(done.model, done.plan, parts=["biases", "norms", "head"], adapter="mask-lora", rank=2)
    rows = {row["part"]: (row["tensors"], row["parameters"]) for row in session.report()}
    # biases 8 + 8 + 3, the norm's 2 x 8, the head's weight 3 x 8 (its bias is among the biases), factors 2 (6 + 8) + 2 (8 + 8)
    assert rows == {"biases": (3, 19), "norms": (2, 16), "head": (1, 24), "mask-lora": (4, 60), "total": (10, 119)}
    assert session.share == 119 / 171 and session.report()[-1]["share"] == session.share
    assert sum(p.numel() for p in session.parameters()) == 119
    assert {id(p) for p in session.parameters()} == {id(p) for p in done.model.parameters() if p.requires_grad}


def test_a_live_weight_that_is_zero_trains_and_the_mask_is_the_plan() -> None:
    done = pruned()
    mask = done.plan.masks["second.weight"]
    live = tuple(mask.nonzero()[0].tolist())
    done.model.second.weight.data[live] = 0.0
    session = sc.Retraining(done.model, done.plan, adapter="mask-lora", rank=2)
    session.attach(optimizer := adamw(session))
    train(done.model, optimizer, batches(3))
    assert session.finish().second.weight[live] != 0 and zeros(done.model, done.plan)


def test_a_pruned_head_trains_whole_and_keeps_its_zeros_under_weight_decay() -> None:
    torch.manual_seed(0)
    done = sc.prune(Net(), "magnitude", sparsity=0.5)
    before = done.model.head.weight.detach().clone()
    session = sc.Retraining(done.model, done.plan, parts=["head"])
    optimizer = torch.optim.AdamW(session.parameters(), lr=0.05, weight_decay=0.5)
    session.attach(optimizer)
    train(done.model, optimizer, batches(3))
    session.finish()
    assert zeros(done.model, done.plan)
    assert int((done.model.head.weight != before).sum()) == int(done.plan.masks["head.weight"].sum())


def test_updates_below_the_resolution_of_16_bits_add_up() -> None:
    done = pruned(torch.bfloat16)
    bias = done.model.head.bias
    bias.data.fill_(1.0)  # its neighbours in bfloat16 are 2^-8 below and 2^-7 above
    session = sc.Retraining(done.model, done.plan, parts=["biases"])
    optimizer = torch.optim.SGD(session.parameters(), lr=0.001)
    session.attach(optimizer)
    for _ in range(8):
        optimizer.zero_grad()
        (-done.model.head.bias.float().sum()).backward()
        optimizer.step()
    assert session.finish().head.bias.tolist() == [1.0078125] * 3  # 1.008; one by one each would have been lost


def test_dropout_thins_out_the_inputs_of_the_change_alone() -> None:
    done = pruned(torch.float64)
    session = sc.Retraining(done.model, done.plan, adapter="mask-lora", rank=2, dropout=0.5)
    layer = done.model.first
    adapter = layer.parametrizations.weight[0]
    adapter.b.data.normal_()
    x = torch.randn(4, 6).double()
    done.model.train()
    torch.manual_seed(3)
    found = layer(x)
    torch.manual_seed(3)
    thin = nn.functional.dropout(x, 0.5)
    weight = layer.parametrizations.weight.original
    assert torch.allclose(found, nn.functional.linear(x, weight, layer.bias) + thin @ adapter.change(weight).T, atol=1e-12)
    done.model.eval()
    evaluated = done.model(x)
    assert torch.equal(session.finish()(x), evaluated)


def test_dropout_of_a_convolution() -> None:
    torch.manual_seed(0)
    done = sc.prune(nn.Sequential(nn.Conv2d(4, 8, 3, padding=1, stride=2)), "magnitude", sparsity=0.5)
    session = sc.Retraining(done.model, done.plan, adapter="mask-lora", rank=2, dropout=0.3)
    layer = done.model[0]
    adapter = layer.parametrizations.weight[0]
    adapter.b.data.normal_()
    x = torch.randn(2, 4, 5, 5)
    torch.manual_seed(3)
    found = done.model(x)
    torch.manual_seed(3)
    thin = nn.functional.dropout(x, 0.3)
    original = layer.parametrizations.weight.original
    wanted = nn.functional.conv2d(x, original, layer.bias, 2, 1) + nn.functional.conv2d(
        thin, adapter.change(original), None, 2, 1
    )
    assert torch.allclose(found, wanted, atol=1e-6)
    session.finish()


def test_a_tied_weight_stays_tied() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.out = nn.Embedding(12, 8), nn.Linear(8, 12, bias=False)
            self.out.weight = self.words.weight

        def forward(self, ids: Tensor) -> Tensor:
            return self.out(self.words(ids))

    torch.manual_seed(0)
    done = sc.prune(Tied(), "magnitude", sparsity=0.5)
    session = sc.Retraining(done.model, done.plan, adapter="mask-lora", rank=2)
    ids = torch.arange(12)
    session.attach(optimizer := adamw(session))
    train(done.model, optimizer, [(ids, ids)])
    adapted = done.model(ids)
    model = session.finish()
    assert model.out.weight is model.words.weight and torch.equal(model(ids), adapted) and zeros(model, done.plan)


def test_a_convolutional_network_with_batch_norm() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(32, 3)
    )
    done = sc.prune(net, "magnitude", sparsity=0.5, types=["conv"])
    session = sc.Retraining(done.model, done.plan, parts=["biases", "norms"], adapter="scale-lora", rank=2)
    session.attach(optimizer := adamw(session))
    train(done.model, optimizer, [(torch.randn(4, 3, 6, 6), torch.tensor([0, 1, 2, 0])) for _ in range(3)])
    done.model.eval()
    adapted = done.model(x := torch.randn(2, 3, 6, 6))
    assert torch.equal(session.finish()(x), adapted) and zeros(done.model, done.plan)
    assert int(done.model[1].num_batches_tracked) == 3  # buffers follow the mode


class Run:
    """A pruned model in a session with its optimizer."""

    def __init__(self, way: dict[str, Any]):
        self.done = pruned()
        self.session = sc.Retraining(self.done.model, self.done.plan, **way)
        self.optimizer = adamw(self.session)
        self.session.attach(self.optimizer)
        self.parts = {"model": self.done.model, "optimizer": self.optimizer, "session": self.session}

    def checkpoint(self) -> io.BytesIO:
        file = io.BytesIO()
        torch.save({name: part.state_dict() for name, part in self.parts.items()}, file)
        file.seek(0)
        return file

    def resume(self, file: io.BytesIO) -> None:
        state = torch.load(file, weights_only=True)
        for name, part in self.parts.items():
            part.load_state_dict(state[name])


@pytest.mark.parametrize("stop", [1, 4])
@pytest.mark.parametrize("way", WAYS, ids=str)
def test_a_killed_run_goes_on_to_the_same_bits(way: dict[str, Any], stop: int) -> None:
    whole, half, resumed = Run(way), Run(way), Run(way)
    train(whole.done.model, whole.optimizer, batches(6))
    train(half.done.model, half.optimizer, batches(6)[:stop])
    resumed.resume(half.checkpoint())
    train(resumed.done.model, resumed.optimizer, batches(6)[stop:])
    assert resumed.session.step_count == whole.session.step_count == 6
    ends = [run.session.finish().state_dict() for run in (whole, resumed)]
    assert list(ends[0]) == list(ends[1]) and all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


def test_the_finished_model_is_saved_and_loaded(tmp_path: Any) -> None:
    done = pruned()
    session = sc.Retraining(done.model, done.plan, parts=["norms"], adapter="mask-lora", rank=2)
    session.attach(optimizer := adamw(session))
    train(done.model, optimizer, batches(2))
    model = session.finish()
    sc.save(model, tmp_path / "saved")
    loaded = sc.load(tmp_path / "saved", Net)
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), loaded.state_dict().values(), strict=True))


def test_a_lifted_zero_and_a_changed_frozen_parameter_are_told() -> None:
    done = pruned()
    session = sc.Retraining(done.model, done.plan, parts=["norms"])
    session.attach(optimizer := adamw(session))
    gone = tuple((~done.plan.masks["first.weight"]).nonzero()[0].tolist())
    done.model.first.weight.data[gone] = 1.0
    with pytest.raises(BrokenPromise, match=r"1 masked entries of 'first.weight' are not zero: something other"):
        train(done.model, optimizer, batches(1))
    done.model.first.weight.data[gone] = 0.0
    done.model.second.bias.data.add_(1)
    with pytest.raises(BrokenPromise, match="a frozen parameter has changed"):
        session.finish()


def test_gradients_of_an_earlier_training_move_nothing() -> None:
    done = pruned()
    old = torch.optim.SGD(done.model.parameters(), 0.1, weight_decay=0.1)
    nn.functional.cross_entropy(done.model(batches(1)[0][0]), batches(1)[0][1]).backward()
    before = done.model.second.bias.detach().clone()
    session = sc.Retraining(done.model, done.plan, parts=["norms"]).attach(old)
    train(done.model, old, batches(2))
    assert torch.equal(session.finish().second.bias, before)


def test_flags_are_given_back() -> None:
    done = pruned()
    done.model.second.weight.requires_grad_(False)
    sc.Retraining(done.model, done.plan, adapter="mask-lora", rank=2).finish()
    assert not done.model.second.weight.requires_grad and done.model.first.weight.requires_grad


def test_weights_too_small_for_the_rank_are_told() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 2))
    done = sc.prune(net, "magnitude", sparsity=0.5)
    session = sc.Retraining(done.model, done.plan, adapter="mask-lora", rank=8)
    (left,) = session.left
    assert left.name == "2.weight" and "rank of at most 1 has fewer" in left.reason


BAD: list[tuple[dict[str, Any], str]] = [
    ({}, "nothing would train: name parts="),
    ({"parts": ["bias"]}, "parts: 'bias' is unknown; there are biases, norms, head; did you mean 'biases'"),
    ({"adapter": "masklora"}, "adapter='masklora' is unknown; there are .*did you mean 'mask-lora'"),
    ({"adapter": "mask-lora", "rank": 0}, "rank=0: give a whole number, 1 or more"),
    ({"adapter": "mask-lora", "rank": 2.5}, "rank=2.5"),
    ({"adapter": "mask-lora", "dropout": 1.0}, "dropout=1.0: give a number from 0 to 0.99"),
    ({"adapter": "mask-lora", "alpha": float("nan")}, "alpha=nan"),
    ({"adapter": "mask-lora", "rank": 16}, "fits none of the pruned weights: 'first.weight': an adapter of rank 16"),
]


@pytest.mark.parametrize(("way", "message"), BAD, ids=str)
def test_bad_settings_change_nothing(way: dict[str, Any], message: str) -> None:
    done = pruned()
    before = copy.deepcopy(done.model.state_dict())
    with pytest.raises(BadInput, match=message):
        sc.Retraining(done.model, done.plan, **way)
    assert list(done.model.state_dict()) == list(before) and all(p.requires_grad for p in done.model.parameters())
    sc.Retraining(done.model, done.plan, parts=["norms"]).finish()  # nobody holds the weights


def test_what_cannot_be_retrained_is_refused() -> None:
    done = pruned()
    dense = Net()
    with pytest.raises(BadInput, match=r"24 masked entries of 'first.weight' are not zero: prune the model with this plan"):
        sc.Retraining(dense, done.plan, parts=["norms"])
    with pytest.raises(BadInput, match=r"the plan removes entries of 'first.weight' with shape"):
        sc.Retraining(nn.Linear(3, 2), done.plan, parts=["biases"])
    with pytest.raises(BadInput, match="this model has no biases to train"):
        bare = sc.prune(nn.Sequential(nn.Linear(4, 4, bias=False)), "magnitude", sparsity=0.5)
        sc.Retraining(bare.model, bare.plan, parts=["biases"])
    held = Held(done.model, done.plan).attach(torch.optim.SGD(done.model.parameters(), 0.1))
    with pytest.raises(BadInput, match="already being pruned by an attached 'Held'"):
        sc.Retraining(done.model, done.plan, parts=["norms"])
    held.detach()
    session = sc.Retraining(done.model, done.plan, parts=["norms"], adapter="mask-lora", rank=2)
    with pytest.raises(BadInput, match="does not train 6 of the tensors that retraining trains"):
        session.attach(torch.optim.SGD([done.model.head.weight], 0.1))
    with pytest.raises(BadInput, match=r"'first.weight' is parametrised already, by another session"):
        sc.Retraining(done.model, done.plan, parts=["biases"])
    session.attach(optimizer := adamw(session))
    other = pruned()
    whole = sc.Retraining(other.model, other.plan, parts=["norms"])
    with pytest.raises(BadInput, match="already being pruned by an attached 'Retraining'"):
        sc.Retraining(other.model, other.plan, parts=["biases"])
    whole.finish()
    with pytest.raises(BadInput, match="one Retraining serves one"):
        session.attach(optimizer)
    session.finish()
    with pytest.raises(BadInput, match="is finished"):
        session.finish()


def test_the_state_of_another_session_is_refused() -> None:
    way: dict[str, Any] = {"adapter": "mask-lora", "rank": 2}
    state = Run(way).session.state_dict()
    json.dumps({key: value for key, value in state.items() if key != "masks"})
    other = Run({**way, "rank": 1})
    with pytest.raises(BadInput, match="of a retraining with rank=2, this one has 1"):
        other.session.load_state_dict(state)
    run = Run(way)
    run.session.load_state_dict(state)
    with pytest.raises(BadInput, match="no state of a retraining"):
        run.session.load_state_dict({"version": 2})
    with pytest.raises(BadInput, match="of another pruned model"):
        run.session.load_state_dict({**state, "frozen": "0"})


def test_dropout_where_the_inputs_are_not_one_layers() -> None:
    torch.manual_seed(0)
    done = sc.prune(nn.Sequential(nn.Embedding(40, 40)), "magnitude", sparsity=0.5)
    with pytest.raises(BadInput, match=r"dropout=0.1: the inputs of '0.weight' \(embedding\)"):
        sc.Retraining(done.model, done.plan, adapter="mask-lora", rank=2, dropout=0.1)
