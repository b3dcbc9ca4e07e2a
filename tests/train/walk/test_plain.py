"""Models of one's own: no lists, branches, layers used twice, convolutions, blocks with all kinds of arguments and outputs."""

import copy

import pytest
import torch
from torch import nn

from secateurs.errors import BadInput, NotFinite
from secateurs.models import select, survey
from secateurs.train.walk import walk


def prune(block):
    for weight in block.weights:
        weight.parameter.view(-1)[::2] = 0


def inputs_of(model, name, given):
    """All inputs of a layer, over forwards of the whole model."""
    seen = []
    handle = model.get_submodule(name).register_forward_pre_hook(lambda m, args: seen.append(args[0]))
    for batch in given:
        model(batch)
    handle.remove()
    return torch.cat([x.reshape(-1, x.shape[-1]) for x in seen])


def check(model, given, names, **options):
    """The layers are visited in order and their Gram matrices are those of the partly pruned model."""
    visited = []

    def visit(block):
        for weight in block.weights:
            x = inputs_of(model, weight.sites[0].path, given)
            (found,) = block.statistics[weight.name]["gram"]
            assert found.tokens == len(x)
            torch.testing.assert_close(found.gram, x.T @ x)
        visited.append(block.name)
        prune(block)

    walked = walk(model, survey(model), given, ["gram"], visit, dtype=torch.float64, **options)
    assert visited == names
    return walked


class Branches(nn.Module):
    """Defined in another order than called; a skip over two layers; a layer used twice; one never used."""

    def __init__(self):
        super().__init__()
        self.out = nn.Linear(4, 2)
        self.second, self.first, self.idle = nn.Linear(4, 4), nn.Linear(3, 4), nn.Linear(9, 9)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x):
        x = self.first(x)
        y = self.act(self.second(x))
        z = self.second(y)
        z += x
        return self.out(self.act(z) + y)


def test_layers_are_walked_in_the_order_of_their_calls():
    model = Branches().double()
    walked = check(model, [torch.randn(5, 3).double() for _ in range(3)], ["first", "second", "out"])
    assert [(left.name, left.reason) for left in walked.left] == [
        ("idle.weight", "its block was not called by the first calibration batch")]  # fmt: skip


def test_a_sequence_of_equal_layers_is_a_list_of_blocks():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3)).double()
    check(model, [torch.randn(5, 3).double()], ["0", "1"])


def test_pairs_are_inputs_and_labels():
    model, pairs = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)), [(torch.randn(5, 3), torch.zeros(5))]
    assert list(walk(model, survey(model), pairs, ["norms"], prune).facts) == ["0", "2"]


def test_convolutions_are_measured_in_patches():
    model = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(4, 4, 2, groups=2), nn.Flatten(),
                          nn.Linear(36, 3)).double()  # fmt: skip
    x, found = torch.randn(5, 2, 4, 4).double(), {}

    def visit(block):
        (weight,) = block.weights
        found[block.name] = [one.gram for one in block.statistics[weight.name]["gram"]]

    walk(model, survey(model), [x], ["gram"], visit, dtype=torch.float64)
    patches = nn.functional.unfold(x, 3, padding=1).transpose(1, 2).reshape(-1, 18)
    torch.testing.assert_close(found["0"], [patches.T @ patches])
    hidden = model[:2](x)
    halves = [nn.functional.unfold(h, 2).transpose(1, 2).reshape(-1, 8) for h in hidden.chunk(2, 1)]
    torch.testing.assert_close(found["2"], [h.T @ h for h in halves])


class Odd(nn.Module):
    """A block with keyword-only arguments that returns a tuple, and writes into its input."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, *, hidden, shift, bias=None):
        out = torch.tanh(self.a(hidden)) + self.b(hidden) + shift
        bias = self.c(hidden) if bias is None else bias
        hidden.zero_()
        return out, {"bias": bias, "note": "kept"}


class Stack(nn.Module):
    """Every block gets another shift, and the first one's bias."""

    def __init__(self, blocks=3):
        super().__init__()
        self.stem, self.blocks = nn.Linear(3, 4), nn.ModuleList(Odd() for _ in range(blocks))
        self.config = type("Config", (), {"use_cache": True})()

    def forward(self, x):
        assert self.config.use_cache is False or self.training
        hidden, bias = self.stem(x), None
        for i, block in enumerate(self.blocks):
            hidden, extra = block(hidden=hidden, shift=x.sum() * i, bias=bias)
            assert extra["note"] == "kept"
            bias = extra["bias"]
        return hidden


def test_blocks_keep_their_own_arguments_and_outputs():
    model = Stack().double()
    model.eval()
    given = [torch.randn(2, 5, 3).double() for _ in range(2)]
    expected = {}

    def visit(block):
        clones = []
        handles = [block.module.a.register_forward_pre_hook(lambda m, args: clones.append(args[0].clone()))]
        for batch in given:
            model(batch)
        handles[0].remove()
        x = torch.cat(clones).reshape(-1, 4)
        expected[block.name] = (x.T @ x, block.statistics)
        prune(block)

    walked = walk(model, survey(model), given, ["gram"], visit, dtype=torch.float64)
    assert list(expected) == ["blocks.0", "blocks.1", "blocks.2"]
    for name, (gram, statistics) in expected.items():
        torch.testing.assert_close(statistics[f"{name}.a.weight"]["gram"][0].gram, gram)
        assert statistics[f"{name}.a.weight"] is statistics[f"{name}.b.weight"]  # one input, measured once
    # the third layer of the later blocks is never called
    assert walked.left[0].name == "stem.weight" and "outside the blocks (blocks)" in walked.left[0].reason


def test_layers_no_batch_reaches_are_named():
    model, unseen = Stack().double(), []
    walk(model, survey(model), [torch.randn(2, 5, 3).double()], ["norms"], lambda block: unseen.append(block.unseen))
    assert unseen == [(), ("blocks.1.c.weight",), ("blocks.2.c.weight",)]


class Skips(Stack):
    """The last block also reads what the first gave."""

    def forward(self, x):
        first, _ = self.blocks[0](hidden=self.stem(x), shift=x.sum())
        second, _ = self.blocks[1](hidden=first.clone(), shift=x.sum())
        return self.blocks[2](hidden=second + first, shift=x.sum())


def test_outputs_that_were_let_go_are_missed_or_kept_where_asked_for():
    given = [torch.randn(2, 5, 3).double()]
    with pytest.raises(BadInput, match="keep='all'"):
        walk(model := Skips().double(), survey(model), given, ["norms"], prune)
    kept = Skips().double()
    assert len(walk(kept, survey(kept), given, ["norms"], prune, keep="all").facts) == 3


def trace(model):
    hooks = [len(m._forward_pre_hooks) + len(m._forward_hooks) for m in model.modules()]
    return hooks, [m.training for m in model.modules()], ["forward" in vars(m) for m in model.modules()], model.config.use_cache


@pytest.mark.parametrize("fails", [None, "visit", "model"])
def test_nothing_of_the_walk_is_left_in_the_model(fails, tmp_path):
    model = Stack().double().train()
    model.blocks[1].eval()
    calls = []

    def visit(block):
        calls.append(block.name)
        if fails == "visit" and len(calls) == 2:
            raise ZeroDivisionError
        if fails == "model":
            model.blocks[1].b.weight.data = torch.ones(4, 5).double()
        prune(block)

    given = [torch.randn(2, 5, 3).double()]
    before, state = trace(model), torch.get_rng_state()
    try:
        walk(model, survey(model), given, ["norms"], visit, budget=0, scratch=tmp_path)
        assert fails is None
    except (ZeroDivisionError, RuntimeError, BadInput):
        assert fails
    assert trace(model) == before
    assert not list(tmp_path.iterdir())
    assert torch.equal(torch.get_rng_state(), state)
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert torch.is_grad_enabled()


def outcome(model, given, **options):
    """A walk whose masks depend on the statistics: per row, the smaller half of |w| times the input's norm goes."""
    model, log = copy.deepcopy(model), []

    def visit(block):
        for weight in block.weights:
            if weight.name in block.statistics:
                (norms,) = block.statistics[weight.name]["norms"]
                scores = weight.parameter.abs() * norms.norms
                weight.parameter[scores <= scores.median(1, keepdim=True).values] = 0
                log.append(norms.squares)

    walked = walk(model, survey(model), given, ["norms"], visit, **options)
    return model.state_dict(), log, walked


def test_a_budget_and_the_number_of_batches_change_nothing(tmp_path):
    model, x = Stack().double(), torch.randn(6, 5, 3).double()
    x -= x.sum((1, 2), keepdim=True) / 15  # the shift is the batch's sum: none
    whole = outcome(model, [x], dtype=torch.float64)
    many = outcome(model, list(x.split(1)), dtype=torch.float64)
    disk = outcome(model, list(x.split(1)), dtype=torch.float64, budget=400, scratch=tmp_path)
    assert disk[2].spilled > 0 and many[2].spilled == 0
    for name, value in whole[0].items():
        torch.testing.assert_close(many[0][name], value)
        assert torch.equal(disk[0][name], many[0][name])
    torch.testing.assert_close(many[1], whole[1])


def test_dense_inputs_are_those_of_the_dense_model():
    model, given = Stack().double(), [torch.randn(2, 5, 3).double() for _ in range(2)]
    dense, log = copy.deepcopy(model), []

    def measure(block):
        log.append(block.statistics[f"{block.name}.a.weight"]["norms"][0].squares)

    def visit(block):
        measure(block)
        prune(block)

    walk(model, survey(model), given, ["norms"], visit, propagate="dense", dtype=torch.float64)
    pruned, log[:] = log[:], []
    walk(dense, survey(dense), given, ["norms"], measure, dtype=torch.float64)
    torch.testing.assert_close(pruned, log)


def test_a_part_of_the_blocks_and_progress():
    model, said = Stack().double(), []
    chosen = select(survey(model), include=["blocks.1.*"])
    walked = walk(model, chosen, [torch.randn(2, 5, 3).double()], ["norms"], lambda block: {"zeros": prune(block) or 1},
                  progress=lambda *args: said.append(args))  # fmt: skip
    assert walked.facts == {"blocks.0": {}, "blocks.1": {"zeros": 1}}
    assert said == [(1, 2, "blocks.0"), (2, 2, "blocks.1")]
    assert [bool((b.a.weight == 0).any()) for b in model.blocks] == [False, True, False]


class Fickle(nn.Module):
    """Two layers that share their input until the third batch."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(3, 3), nn.Linear(3, 3)

    def forward(self, x):
        return self.a(x) + self.b(x if x.sum() > 0 else x.clone())


def test_weights_that_no_longer_share_an_input_are_told():
    model = nn.Sequential(Fickle(), Fickle()).double()
    given = [torch.ones(2, 3).double(), -torch.ones(2, 3).double()]
    with pytest.raises(BadInput, match=r"'0\.b\.weight' and '0\.a\.weight' read one input"):
        walk(model, survey(model), given, ["norms"], prune)
    walk(model, survey(model), given, ["norms"], lambda block: None, share=False)


def test_what_cannot_be_measured_is_left_alone_with_the_reason():
    model = nn.ModuleDict({"rnn": nn.LSTM(3, 3), "attention": nn.MultiheadAttention(4, 2), "up": nn.ConvTranspose1d(2, 2, 2),
                           "words": nn.Embedding(3, 4), "pair": nn.Bilinear(2, 2, 2), "out": nn.Linear(4, 4)})  # fmt: skip
    walked = walk(model, survey(model), [torch.ones(2, 4)], ["norms"], prune, forward=lambda m, x: m["out"](x))
    reasons = {left.name.partition(".")[0]: left.reason for left in walked.left}
    assert set(reasons) == {"rnn", "attention", "up", "words", "pair"}
    assert "MultiheadAttention" in reasons["attention"] and "two inputs" in reasons["pair"]


def test_bad_input():
    model, x = Stack().double(), torch.randn(2, 5, 3).double()
    found = survey(model)
    with pytest.raises(BadInput, match="calibration gave no batch"):
        walk(model, found, [], ["norms"], prune)
    with pytest.raises(BadInput, match="'norm' is unknown; use norms, gram, moments; did you mean"):
        walk(model, found, [x], ["norm"], prune)
    with pytest.raises(BadInput, match="propagate='sparse'"):
        walk(model, found, [x], ["norms"], prune, propagate="sparse")
    with pytest.raises(BadInput, match=r"nothing to walk through: 'stem\.weight': outside the blocks"):
        walk(model, select(found, include=["stem"]), [x], ["norms"], prune)
    with pytest.raises(NotFinite, match=r"inputs of 'blocks\.0\.a\.weight' are not finite"):
        walk(model, found, [x * float("nan")], ["norms"], prune)


class Wavering(nn.Module):
    """Calls its second layer twice where the input is large."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x):
        y = self.second(self.first(x))
        return self.second(y) if x.abs().max() > 9 else y


def test_layers_may_be_called_more_often_by_another_batch():
    whole, tokens = nn.Sequential(Wavering(), Wavering()), {}

    def visit(block):
        tokens.update({name: found.tokens[0] for name, found in block.statistics.items()})

    walk(whole, survey(whole), [torch.ones(2, 4), 10 * torch.ones(2, 4)], ["gram"], visit, blocks=["0", "1"])
    assert tokens["0.first.weight"] == 4 and tokens["0.second.weight"] == 6
