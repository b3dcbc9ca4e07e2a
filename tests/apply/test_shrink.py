"""Shrunk models compute what the dense ones do with the removed indices at zero; where that cannot be shown, they say so."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from secateurs.apply import shrink, slice_tensors, verify_shrunk
from secateurs.apply.masking import masked_tensors
from secateurs.errors import BadInput
from secateurs.graph import trace
from tests.apply import shrinkable as nets

IMAGE, WORDS = torch.randn(2, 3, 8, 8), torch.arange(10).view(2, 5)


def run(make, example, *kinds, drop=1):
    model = make().eval()
    graph = trace(model, example)
    keeps = nets.keep(graph, *kinds, drop=drop)
    assert keeps
    return model, graph, keeps, shrink(model, graph, keeps)


def check(model, graph, keeps, shrunk):
    found = verify_shrunk(model, shrunk, graph, keeps)
    assert found.ok, [c for c in found.checks if not c.ok]
    return found


def inner(graph, tensor="first.weight"):
    return next(g for g in graph.prunable() if any(s.tensor == tensor and s.dim == 0 for s in g.slices))


def test_one_channel_by_hand():
    model = nets.Pair().eval()
    model.norm.running_mean.normal_()
    model.norm.running_var.uniform_(0.5, 2)
    x = torch.randn(2, 2, 5, 5)
    graph = trace(model, x)
    kept = torch.tensor([0, 1, 2, 4, 5])
    shrunk = shrink(model, graph, {inner(graph).name: kept})
    hand = nets.Pair(inner=5).eval()
    with torch.no_grad():
        for name in ("first.weight", "first.bias", "norm.weight", "norm.bias", "norm.running_mean", "norm.running_var"):
            hand.get_submodule(name.split(".")[0])._buffers.get(name.split(".")[1])
            target = dict([*hand.named_parameters(), *hand.named_buffers()])[name]
            target.copy_(dict([*model.named_parameters(), *model.named_buffers()])[name][kept])
        hand.second.weight.copy_(model.second.weight[:, kept])
        hand.second.bias.copy_(model.second.bias)
        hand.head.load_state_dict(model.head.state_dict())
    assert type(shrunk.model) is nets.Pair and not shrunk.is_exported and shrunk.why == ""
    assert torch.equal(shrunk.model(x), hand(x))
    assert torch.allclose(shrunk.program(x), hand(x), atol=1e-6)
    assert (shrunk.model.first.out_channels, shrunk.model.norm.num_features, shrunk.model.second.in_channels) == (5, 5, 5)
    assert model.first.out_channels == 6  # the model given is as it was
    assert shrunk.parameters == sum(p.numel() for p in hand.parameters()) == 2 * 5 * 9 + 5 + 10 + 5 * 4 * 9 + 4 + 15


def test_removing_nothing_is_the_identity():
    model = nets.Pair().eval()
    x = torch.randn(2, 2, 5, 5)
    shrunk = shrink(model, trace(model, x), {})
    assert torch.equal(shrunk.model(x), model(x)) and torch.equal(shrunk.program(x), model(x))
    assert shrunk.model is not model and shrunk.model.first.weight is not model.first.weight


def test_two_cuts_are_the_cut_of_both():
    model = nets.Pair().eval()
    x = torch.randn(2, 2, 5, 5)
    graph = trace(model, x)
    name = inner(graph).name
    once = shrink(model, graph, {name: torch.tensor([0, 3, 5])})
    first = shrink(model, graph, {name: torch.tensor([0, 2, 3, 5])})
    again = trace(first.model, x)
    second = shrink(first.model, again, {inner(again).name: torch.tensor([0, 2, 3])})  # of 0, 2, 3, 5
    for mine, both in zip(second.model.state_dict().values(), once.model.state_dict().values(), strict=True):
        assert torch.equal(mine, both)


def test_zeroing_only_the_consumers_is_enough_without_norms():
    model = nets.Pair().eval().double()
    x = torch.randn(2, 2, 5, 5, dtype=torch.float64)
    graph = trace(model, x)
    kept = torch.tensor([1, 2, 4])
    shrunk = shrink(model, graph, {inner(graph).name: kept})
    with torch.no_grad():
        model.second.weight[:, [0, 3, 5]] = 0
    assert torch.allclose(shrunk.model(x), model(x), rtol=0, atol=1e-14)


@pytest.mark.parametrize(
    ("make", "example", "kinds"),
    [
        (nets.UNet, IMAGE, ()),
        (nets.Grouped, IMAGE, ()),
        (nets.Tagger, WORDS, ()),
        pytest.param(lambda: nets.Tagger(nn.GRU), WORDS, (), marks=pytest.mark.slow),
        (nets.Vision, IMAGE, ("heads", "width")),
        (nets.Tied, WORDS, ()),
        (lambda: nets.llama(tie_word_embeddings=True), {"input_ids": WORDS}, ("kv-heads", "neurons", "width")),
        (nets.llama, {"input_ids": WORDS}, ("heads",)),
        pytest.param(nets.bert, {"input_ids": WORDS}, ("heads", "width"), marks=pytest.mark.slow),
    ],
    ids=["u-net", "grouped", "lstm", "gru", "vision", "tied", "llama-tied", "llama", "bert"],
)
def test_models_keep_their_class_and_agree(make, example, kinds):
    model, graph, keeps, shrunk = run(make, example, *kinds)
    assert type(shrunk.model) is type(model) and not shrunk.why
    found = check(model, graph, keeps, shrunk)
    assert len(found.checks) >= 4  # another batch at least
    assert shrunk.parameters < sum(p.numel() for p in model.parameters())
    for path, layer in shrunk.model.named_modules():
        if isinstance(layer, nn.Linear):
            assert (layer.out_features, layer.in_features) == tuple(layer.weight.shape), path
        if isinstance(layer, nn.modules.conv._ConvNd):
            a, b = layer.weight.shape[:2]
            expected = (a, b * layer.groups) if layer.transposed else (b * layer.groups, a)
            assert (layer.in_channels, layer.out_channels) == expected, path


def test_tied_weights_stay_tied():
    shrunk = run(nets.Tied, WORDS, drop=3)[-1]
    assert shrunk.model.out.weight is shrunk.model.words.weight and shrunk.model.words.embedding_dim == 5
    assert shrunk.program.out.weight is shrunk.program.words.weight


@settings(max_examples=10)
@given(st.data())
def test_any_choice_of_channels_agrees(data):
    torch.manual_seed(0)
    model, x = nets.UNet().eval(), torch.randn(1, 3, 4, 4)
    graph = _traced(model, x)
    keeps = {}
    for group in graph.prunable():
        kept = data.draw(st.sets(st.integers(0, group.size - 1), min_size=1), label=group.name)
        keeps[group.name] = torch.tensor(sorted(kept))
    norm = [n for n in keeps if graph[n].norms]
    for name in norm:  # a group norm must keep equally many of each of its runs
        keeps[name] = torch.arange(graph[name].size)
    check(model, graph, keeps, shrink(model, graph, keeps))


_CACHE = {}


def _traced(model, x):
    key = type(model)
    if key not in _CACHE:
        _CACHE[key] = trace(model, x)
    return _CACHE[key]


def test_group_norms_that_would_be_uneven_are_refused():
    model = nets.UNet().eval()
    graph = trace(model, IMAGE)
    group = next(g for g in graph.prunable() if g.norms)
    if group.size == 8:
        with pytest.raises(BadInput, match="unequal numbers"):
            shrink(model, graph, {group.name: torch.tensor([0, 1, 2])})
    else:  # the axis is that of whole runs, or of places within each
        check(model, graph, {group.name: torch.arange(1)}, shrink(model, graph, {group.name: torch.arange(1)}))


def test_rms_norms_are_repaired_exactly():
    model = nets.Tied().eval().double()
    with torch.no_grad():
        model.norm.weight.uniform_(0.5, 2)
    graph = trace(model, WORDS)
    width = next(g for g in graph.prunable() if "norm" in g.norms)
    kept = torch.tensor([0, 2, 3, 6, 7])
    shrunk = shrink(model, graph, {width.name: kept})
    assert shrunk.repaired == ("norm",) and shrunk.recounted == ()
    assert torch.allclose(shrunk.model.norm.weight, model.norm.weight[kept] * (8 / 5) ** 0.5, rtol=1e-15)
    assert shrunk.model.norm.eps == pytest.approx(1e-3 * 8 / 5, rel=1e-15)
    check(model, graph, {width.name: kept}, shrunk)


def test_layer_norms_take_their_statistics_from_what_stays():
    model, graph, keeps, shrunk = run(nets.Vision, IMAGE, "width", drop=3)
    assert shrunk.recounted == ("blocks.0.norm", "blocks.1.norm") and shrunk.repaired == ()
    found = check(model, graph, keeps, shrunk)
    assert "statistics of 2 norms over what stays" in found.checks[1].detail
    x = torch.randn(2, 5, 12)
    kept = next(iter(keeps.values()))
    norm = shrunk.model.blocks[0].norm
    assert torch.allclose(norm(x[..., kept]), F.layer_norm(x[..., kept], (9,), norm.weight, norm.bias), atol=1e-6)


class OneMoreNorm(nn.LayerNorm):
    """A layer norm whose weight is what the scale exceeds one by."""

    def forward(self, x):
        return F.layer_norm(x, self.normalized_shape, self.weight + 1, self.bias, self.eps)


class MeasuredNorm(nn.Module):
    """An RMS norm that refuses what has not the width it remembers."""

    def __init__(self, width):
        super().__init__()
        self.width, self.eps, self.weight = width, 1e-3, nn.Parameter(torch.rand(width) + 0.5)

    def forward(self, x):
        if x.shape[-1] != self.width:
            raise AssertionError("not my width")
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.eps) * self.weight


def around(norm):
    return nn.Sequential(nn.Linear(6, 8), norm, nn.Linear(8, 3)).eval()


def test_a_layer_norm_with_a_rule_of_its_own_for_the_weight():
    model = around(OneMoreNorm(8))
    graph = trace(model, torch.randn(2, 4, 6))
    keeps = {g.name: torch.tensor([0, 2, 3, 6, 7]) for g in graph.prunable()}
    shrunk = shrink(model, graph, keeps)
    assert shrunk.recounted == ("1",)
    check(model, graph, keeps, shrunk)


def test_a_norm_that_remembers_its_width():
    model = around(MeasuredNorm(8))
    graph = trace(model, torch.randn(2, 4, 6))
    keeps = {g.name: torch.tensor([0, 2, 3, 6, 7]) for g in graph.prunable()}
    shrunk = shrink(model, graph, keeps)
    assert shrunk.repaired == ("1",) and not shrunk.is_exported and shrunk.model[1].width == 5
    check(model, graph, keeps, shrunk)


class TestExported:
    """What the user's code cannot be, the traced program is; the reason is given."""

    def test_padding_written_into_the_code(self):
        model = nets.OptionA().eval()
        graph = trace(model, IMAGE)
        keeps = {g.name: torch.arange(g.size)[1:] for g in graph.prunable()}
        shrunk = shrink(model, graph, keeps)
        assert shrunk.is_exported and shrunk.model is shrunk.program and "fails on the smaller sizes" in shrunk.why
        check(model, graph, keeps, shrunk)

    def test_a_scale_that_follows_the_width_of_a_head(self):
        model, graph, keeps, shrunk = run(nets.Vision, IMAGE, "head-dims")
        assert shrunk.is_exported and "outputs differ from the traced program's" in shrunk.why
        check(model, graph, keeps, shrunk)

    def test_a_size_that_is_also_a_value(self):
        class Odd(nn.Module):
            def __init__(self):
                super().__init__()
                self.n, self.a, self.b = 6, nn.Linear(3, 6), nn.Linear(6, 2)

            def forward(self, x):
                return self.b(self.a(x).reshape(len(x), self.n)) / self.n

        model, graph, keeps, shrunk = run(Odd, torch.randn(2, 3))
        assert shrunk.is_exported and shrunk.why
        check(model, graph, keeps, shrunk)

    def test_any_batch_where_the_trace_left_it_open(self):
        model = nets.OptionA().eval()
        graph = trace(model, IMAGE, dynamic=({0: torch.export.Dim("batch", min=1, max=64)},))
        shrunk = shrink(model, graph, nets.keep(graph))
        x = torch.randn(7, 3, 8, 8)
        assert shrunk.is_exported and shrunk.model(x).shape == (7, 5)
        assert torch.allclose(shrunk.model(x)[:2], shrunk.model(x[:2]), atol=1e-6)


def test_a_shape_kept_as_a_tuple_is_found():
    class Scale(nn.Module):
        def __init__(self):
            super().__init__()
            self.shape, self.scale = (6, 1, 1), nn.Parameter(torch.rand(6))

        def forward(self, x):
            return x * self.scale.view(self.shape)

    model, graph, keeps, shrunk = run(
        lambda: nn.Sequential(nn.Conv2d(3, 6, 1), Scale(), nn.Conv2d(6, 2, 1)), IMAGE, drop=2
    )
    assert not shrunk.is_exported and shrunk.model[1].shape == (4, 1, 1)
    check(model, graph, keeps, shrunk)


def test_gradients_go_along():
    model = nets.Pair().eval()
    x = torch.randn(2, 2, 5, 5)
    graph = trace(model, x)
    model(x).sum().backward()
    kept = torch.tensor([0, 2, 3])
    shrunk = shrink(model, graph, {inner(graph).name: kept})
    assert torch.equal(shrunk.model.first.weight.grad, model.first.weight.grad[kept])
    assert torch.equal(shrunk.model.second.weight.grad, model.second.weight.grad[:, kept])
    assert torch.equal(shrunk.model.head.weight.grad, model.head.weight.grad)


def test_masked_tensors_are_zero_where_the_smaller_ones_are_not():
    model = nets.Tied()
    graph = trace(model, WORDS)
    keeps = nets.keep(graph, drop=3)
    masked = masked_tensors(graph, keeps, dict(model.named_parameters()))
    small = slice_tensors(graph, keeps, dict(model.named_parameters()))
    for name, value in masked.items():
        assert int(value.count_nonzero()) == int(small[name].count_nonzero())
        assert value.shape == model.get_parameter(name).shape


class TestRefused:
    """Bad input changes nothing and says what would work."""

    def test_other_groups_and_indices(self):
        model = nets.Pair().eval()
        graph = trace(model, torch.randn(2, 2, 5, 5))
        name = inner(graph).name
        for keeps, reason in (
            ({"nothing": torch.arange(2)}, "no group 'nothing'"),
            ({name: torch.tensor([0, 9])}, "below 6"),
            ({name: torch.tensor([2, 1])}, "ascending"),
            ({name: torch.tensor([], dtype=torch.int64)}, "at least one"),
            ({name: torch.tensor([[0, 1]])}, "no parent"),
        ):
            with pytest.raises(BadInput, match=reason):
                shrink(model, graph, keeps)
        frozen = next(g for g in graph.groups if g.frozen)
        with pytest.raises(BadInput, match="nothing of it may go"):
            shrink(model, graph, {frozen.name: torch.arange(1)})

    def test_another_model(self):
        graph = trace(nets.Pair().eval(), torch.randn(2, 2, 5, 5))
        with pytest.raises(BadInput, match="trace the model as it is now"):
            shrink(nets.Pair(inner=7), graph, {inner(graph).name: torch.arange(3)})

    @pytest.mark.parametrize(
        ("spoil", "reason"),
        [
            (lambda m: nn.utils.parametrizations.weight_norm(m.first), "remove_parametrizations"),
            (lambda m: nn.utils.parametrizations.orthogonal(m.head), "remove_parametrizations"),
            (lambda m: m.to("meta"), "meta device"),
        ],
    )
    def test_tensors_that_are_not_plain(self, spoil, reason):
        model = nets.Pair().eval()
        graph = trace(model, torch.randn(2, 2, 5, 5))
        spoilt = copy.deepcopy(model)
        spoil(spoilt)
        with pytest.raises(BadInput, match=reason):
            shrink(spoilt, graph, {inner(graph).name: torch.arange(3)})
